"""The policy's `scopes`: what a key bound to one may reach, and what of it a single request then may.

A scope's name is `cluster.right`: the cluster is the policy's own word, the right is `read` (no tools) or `synth` (the
tools that are listed). Several scopes of a key are several permissions, never one that mixes them: a request is allowed
if one of them allows all of it. Decided from the request alone, before anyone is asked; nothing later widens it. A name
that the policy does not know allows nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, StringConstraints

from conclave.gateway.access.scope import NO_CAPS, NO_MASKS, Scope
from conclave.gateway.errors import Forbidden, InvalidRequest
from conclave.gateway.policy.inner import FIELD as INNER
from conclave.gateway.policy.inner import MOST_EXPERTS, NAME_CHARS, inner_of
from conclave.gateway.policy.part import ExpertName, Part, Row
from conclave.gateway.policy.retrieval import KnowledgeName

SCOPE: Final = r"^[a-z][a-z0-9_-]{0,47}\.(read|synth)$"
EXTENSION: Final = "conclave"
TOOL: Final = r"^[A-Za-z0-9_.:/-]{1,128}$"
NARROWS: Final = f"{EXTENSION}.scope"  # the field of a request that says which scope it wants
SHOWN_CHARS: Final = 64  # of a tool's name, in our answer
NAMELESS: Final = "?"  # a tool whose name is nowhere to be found: no list has it
GIVES_TOOLS: Final = {  # fields beside `tools` by which providers give an expert one, and what it is called here
    "web_search_options": "web_search",
    "mcp_servers": "mcp_servers",
    "plugins": "plugins",
    "builtin_tools": "builtin_tools",
    "search_parameters": "web_search",
    "enable_search": "web_search",
    "web_search": "web_search",
    "search_settings": "web_search",
    "compound_custom": "compound_custom",
    "data_sources": "data_sources",
    "connectors": "connectors",
}
OTHER_MODELS: Final = ("models", "fallbacks")  # by which a provider asks another model than the expert's

ScopeName = Annotated[str, StringConstraints(pattern=SCOPE)]
ToolName = Annotated[str, StringConstraints(pattern=TOOL)]
Inner = Annotated[int, Field(ge=0, le=65_535, strict=True)]
RoutingName = Annotated[str, StringConstraints(min_length=1, max_length=NAME_CHARS)]


class ScopeSettings(Part):
    """What one scope allows."""

    experts: Row | None = Field(default=None, description="The only experts that may be asked; null: all.")
    tools: tuple[ToolName, ...] | None = Field(
        default=None,
        description="The only tools that a request may offer; null: all, and none for the right `read`.",
    )
    collections: tuple[KnowledgeName, ...] | None = Field(
        default=None, description="The only collections of documents that are looked up in; null: as for everybody."
    )
    tags: tuple[KnowledgeName, ...] | None = Field(
        default=None,
        description="The only tags, of those that the policy gives, whose documents may be read; null: all.",
    )
    expert_masks: dict[ExpertName, Annotated[tuple[Inner, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Of a local mixture-of-experts model (`conclave moe serve`) the only inner experts that work.",
    )
    experts_max: dict[ExpertName, Annotated[int, Field(ge=1, le=MOST_EXPERTS)]] = Field(
        default_factory=dict,
        description="Of a local mixture-of-experts model the most inner experts that work for a token.",
    )
    routing_policies: tuple[RoutingName, ...] | None = Field(
        default=None,
        description="The only routing policies of such a model that a request may name; null: all, []: none.",
    )


def _read_has_no_tools(scopes: dict[str, ScopeSettings]) -> dict[str, ScopeSettings]:
    for name, scope in scopes.items():
        if name.endswith(".read") and scope.tools:
            raise ValueError(f"{name}: the right read has no tools; name it {name.removesuffix('.read')}.synth")
        for setting in ("expert_masks", "experts_max"):
            named: set[str] = set(getattr(scope, setting))
            outside = sorted(named - set(scope.experts or named))
            if outside:
                raise ValueError(f"{name}: {setting} names {outside[0]!r}, which is not among the scope's experts")
    return scopes


Scopes = Annotated[dict[ScopeName, ScopeSettings], Field(max_length=256), AfterValidator(_read_has_no_tools)]


@dataclass(frozen=True, slots=True)
class Permission:
    """One scope: these experts, while the request offers only these tools and names these policies. None: all."""

    name: str
    experts: frozenset[str] | None
    tools: frozenset[str] | None
    masks: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: NO_MASKS)
    collections: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    caps: Mapping[str, int] = field(default_factory=lambda: NO_CAPS)
    routing: frozenset[str] | None = None

    def allows(self, tools: frozenset[str]) -> bool:
        return self.tools is None or tools <= self.tools

    def routes(self, policy: str | None) -> bool:
        return policy is None or self.routing is None or policy in self.routing

    def reaches(self, expert: str) -> bool:
        return self.experts is None or expert in self.experts


@dataclass(frozen=True, slots=True)
class Permissions:
    """The scopes of a policy, compiled."""

    known: Mapping[str, Permission] = field(default_factory=dict)

    def granted(self, scope: Scope, body: Mapping[str, Any]) -> Scope:
        """What of a key's scope this request may use; raises Forbidden, InvalidRequest. Never more than the key's."""
        wanted = _wanted(body)
        if scope.experts is not None or scope.named is not None or wanted is not None:
            _check_models(body)
        if scope.named is None and wanted is None:
            return scope
        chosen = self._chosen(scope, wanted)
        tools, inner = tools_of(body), inner_of(body)
        allowing = [one for one in chosen if one.allows(tools)]
        if not allowing:
            raise self._outside(chosen, tools)
        left = [one for one in allowing if one.routes(inner.policy_name)]
        if not left:
            words = f"this routing policy is outside the scope {', '.join(one.name for one in allowing)}"
            raise Forbidden(words, param=f"{INNER}.policy", code="outside_scope")
        under = _under(left, scope)
        for mask in under.masks.values():
            inner.within(mask, None)  # raises Forbidden
        return under

    def listed(self, scope: Scope) -> Scope:
        """What a key could reach with some request: for lists of models."""
        if scope.named is None:
            return scope
        known = [self.known[name] for name in scope.named if name in self.known]
        return _under(known, scope) if known else replace(scope, experts=frozenset())

    def _chosen(self, scope: Scope, wanted: str | None) -> Sequence[Permission]:
        if wanted is not None and scope.named is not None and wanted not in scope.named:
            words = f"this key has no scope {wanted[:SHOWN_CHARS]!r}; it has {', '.join(scope.named)}"
            raise Forbidden(words, param=NARROWS, code="outside_scope")
        names = (wanted,) if wanted is not None else scope.named or ()
        chosen = [self.known[name] for name in names if name in self.known]
        if not chosen:
            words = f"the policy knows no scope {' or '.join(name[:SHOWN_CHARS] for name in names)!r} now"
            raise Forbidden(words, param=NARROWS if wanted is not None else None, code="outside_scope")
        return chosen

    def _outside(self, chosen: Sequence[Permission], tools: frozenset[str]) -> Forbidden:
        """The tool that none of the scopes has, or else that no single one of them has all."""
        names = ", ".join(one.name for one in chosen)
        lone = sorted(tool for tool in tools if not any(one.allows(frozenset({tool})) for one in chosen))
        if lone:
            words = f"the tool {lone[0][:SHOWN_CHARS]!r} is outside the scope {names}"
        else:
            words = f"no single scope of {names} has all of these tools; offer fewer at once"
        return Forbidden(words, param="tools", code="outside_scope")


NO_PERMISSIONS: Final = Permissions()


def compiled(scopes: Mapping[str, ScopeSettings]) -> Permissions:
    """The scopes as decisions need them."""
    return Permissions({name: _permission(name, scope) for name, scope in scopes.items()})


def _permission(name: str, scope: ScopeSettings) -> Permission:
    tools = frozenset(scope.tools) if scope.tools is not None else None
    return Permission(
        name,
        experts=frozenset(scope.experts) if scope.experts is not None else None,
        tools=frozenset() if name.endswith(".read") else tools,
        masks=scope.expert_masks,
        collections=frozenset(scope.collections) if scope.collections is not None else None,
        tags=frozenset(scope.tags) if scope.tags is not None else None,
        caps=scope.experts_max,
        routing=frozenset(scope.routing_policies) if scope.routing_policies is not None else None,
    )


def _under(left: Sequence[Permission], scope: Scope) -> Scope:
    """The experts of any of these permissions, as far as the key reaches them; the first that has one limits it.

    Documents are those that each of them allows: one permission's expert never reads another's.
    """
    lists = [one.experts for one in left]
    any_of = None if None in lists else frozenset[str]().union(*(one for one in lists if one is not None))
    both = [one for one in (scope.experts, any_of) if one is not None]
    experts = frozenset.intersection(*both) if both else None
    names = {expert for one in left for expert in (*one.masks, *one.caps)}
    first = {expert: next(one for one in left if one.reaches(expert)) for expert in names}
    masks = {expert: one.masks[expert] for expert, one in first.items() if expert in one.masks}
    caps = {expert: one.caps[expert] for expert, one in first.items() if expert in one.caps}
    return Scope(
        experts,
        scope.named,
        tuple(one.name for one in left),
        masks or NO_MASKS,
        _common(one.collections for one in left),
        _common(one.tags for one in left),
        caps or NO_CAPS,
    )


def _common(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """What is in all of them; None is everything."""
    limited = [one for one in sets if one is not None]
    return frozenset.intersection(*limited) if limited else None


def _wanted(body: Mapping[str, Any]) -> str | None:
    own = body.get(EXTENSION)
    wanted = own.get("scope") if isinstance(own, dict) else None
    if wanted is None or (isinstance(wanted, str) and wanted):
        return wanted
    raise InvalidRequest("conclave.scope must be the name of a scope, such as code.read", param=NARROWS)


def _check_models(body: Mapping[str, Any]) -> None:
    """An expert is one model: its provider may not be asked for another."""
    said = next((name for name in OTHER_MODELS if body.get(name) is not None), None)
    if said is not None:
        words = f"this key's experts are fixed, and {said} would have a provider choose another model"
        raise Forbidden(words, param=said, code="outside_scope")


def tools_of(body: Mapping[str, Any]) -> frozenset[str]:
    """The names of all tools that a request offers, whatever the form; of one that says several, each."""
    found = {name for field, name in GIVES_TOOLS.items() if body.get(field) not in (None, False)}
    for key in ("tools", "functions"):
        offered = body.get(key)
        if offered is not None:
            found |= {name for one in (offered if isinstance(offered, list) else [None]) for name in _names(one)}
    return frozenset(found)


def _names(tool: object) -> Iterator[str]:
    if not isinstance(tool, dict):
        yield NAMELESS
        return
    inner = [tool.get("function"), tool.get("custom"), tool]
    said = [one.get("name") for one in inner if isinstance(one, dict) and "name" in one]
    kind = tool.get("type", "function")
    if kind not in ("function", "custom") or not said:
        said.append(kind if kind not in ("function", "custom") else NAMELESS)
    yield from (name if isinstance(name, str) else NAMELESS for name in said)
