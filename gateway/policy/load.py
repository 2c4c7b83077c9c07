"""From a file's values to a checked policy document: every problem at once, each with its line and what was meant.

Never opens a file that the policy names, and never prints a value that could be a key.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from conclave.gateway.experts.egress import Allowed, Refused, check_url
from conclave.gateway.policy.document import BUILT_IN, PATTERNS, ExpertSettings, PolicyDocument
from conclave.gateway.policy.overlay import OWN, OverlayError
from conclave.gateway.policy.part import CATEGORIES, VIRTUAL_MODELS
from conclave.gateway.policy.source import Loc, Problem, dotted
from conclave.router.budget import ANY
from conclave.router.gates.cascade import FROM_LOGPROBS

QUOTING: Final = "quoting"  # the names of the experts that are always there: this one answers,
ENCODER: Final = "encoder"  # and this one embeds
MANY: Final = 20  # names in a message; more are not helpful
WITH_ANY: Final = {("routing", "scores"), ("routing", "weights")}  # where `any` stands for the unsure questions
KEYED: Final = {("routing", "pins"), ("routing", "bans")}  # where an expert's name is no item of a list

Where: TypeAlias = Callable[[Loc], str]


def explain(error: ValidationError, model: type[BaseModel], where: Where, above: Loc = ()) -> Iterator[Problem]:
    """Pydantic's complaints about `model`, whose own path is `above`, in the words of the file."""
    for detail in error.errors(include_url=False):
        loc: Loc = (*above, *detail["loc"])
        words = _words(detail, model)
        if isinstance(inner := detail.get("ctx", {}).get("error"), OverlayError):
            loc, words = (*loc, *inner.loc), inner.words
        yield Problem(where(loc), dotted(loc), words)


def _words(detail: ErrorDetails, model: type[BaseModel]) -> str:
    loc, context = detail["loc"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            words = f"unknown key{meant(str(loc[-1]), keys_at(model, loc[:-1]))}"
        case "missing":
            words = "is missing"
        case "model_type" | "dict_type":
            words = "must be a mapping"
        case "tuple_type" | "list_type":
            words = "must be a list, such as [a, b]"
        case "bool_type" | "bool_parsing":
            words = "must be true or false"
        case "too_short" if context.get("min_length") == 1:
            words = "must hold one value at least"
        case "literal_error":
            given = str(detail["input"])[:64]
            choices = re.findall(r"'([^']*)'", str(context["expected"]))
            words = f"{given!r} is none of the choices{meant(given, choices)}"
        case "string_pattern_mismatch":
            words = PATTERNS.get(context["pattern"], detail["msg"])
        case _:
            words = detail["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return words


def meant(name: str, known: Collection[str], *, listed: bool = True) -> str:
    """`; did you mean 'x'?`, or what there is, or nothing if that is too much."""
    folded = {candidate.casefold(): candidate for candidate in known}
    if close := difflib.get_close_matches(name.casefold(), folded, n=1):
        return f"; did you mean {folded[close[0]]!r}?"
    return f"; known: {', '.join(sorted(known))}" if listed and 0 < len(known) <= MANY else ""


def keys_at(model: type[BaseModel], loc: Loc) -> Collection[str]:
    """The keys that the model knows at a path."""
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model.model_fields.keys()


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def complete(document: PolicyDocument, found: Mapping[str, ExpertSettings]) -> PolicyDocument:
    """The document with what goes without saying.

    That is: the experts `found` if it names none, the quoting expert and the encoder, and a default row of every model
    that chats in order (of the quoting expert if there is none) unless scores say more.
    """
    experts = dict(document.experts) or dict(found)
    experts.setdefault(QUOTING, ExpertSettings(kind="quoting"))
    experts.setdefault(ENCODER, ExpertSettings(kind="encoder"))
    chatting = {name: expert for name, expert in experts.items() if "chat" in expert.can()}
    models = tuple(name for name, expert in chatting.items() if expert.kind not in BUILT_IN)
    made = document.routing.scores  # the default row is then a part of the table that they come to
    default = document.default or (() if made else models or tuple(chatting))
    return document.model_copy(update={"experts": experts, "default": default})


def cross_check(
    policy: Any, experts: Collection[str], where: Where, own: Collection[str] | None = None
) -> Iterator[Problem]:
    """What one part says of another. `policy` is the file's half as it was read, whatever its shape.

    `own` are the policy's own categories where `policy` is only a part of it.
    """
    own = _mapping(_mapping(policy, "routing"), "own_categories") if own is None else own
    yield from _unknown_categories(policy, own, where)
    for loc, row in _rows(policy):
        for index, name in enumerate(row):
            at: Loc = ("policy", *loc, index) if loc[:2] not in KEYED else ("policy", *loc)
            if isinstance(name, str) and name not in experts:
                yield Problem(where(at), dotted(at), f"unknown expert {name!r}{meant(name, experts)}")
            elif name in row[:index]:
                yield Problem(where(at), dotted(at), f"{name!r} stands in this row twice")
    models = (*experts, *VIRTUAL_MODELS)
    for alias, target in _mapping(policy, "aliases").items():
        at = ("policy", "aliases", alias)
        if alias in models:
            yield Problem(where(at), dotted(at), f"{alias!r} is already the name of a model")
        if isinstance(target, str) and target not in models:
            yield Problem(where(at), dotted(at), f"unknown model {target!r}{meant(target, models)}")
    yield from _contradictions(policy, where)
    for at, name in _lone_experts(policy):
        if isinstance(name, str) and name not in experts:
            yield Problem(where(at), dotted(at), f"unknown expert {name!r}{meant(name, experts)}")
    for loc, overlay in _overlays(policy):
        yield from _cross_check_overlay(overlay, experts, where, loc, own)
        yield from _contradictions_over(policy, overlay, where, loc)


def _unknown_categories(policy: Any, own: Collection[str], where: Where) -> Iterator[Problem]:
    """Categories that nobody knows, and own ones that would be taken for a row of another kind."""
    for name in sorted({ANY, "default"} & set(own)):
        at: Loc = ("policy", "routing", "own_categories", name)
        yield Problem(
            where(at), dotted(at), f"{name!r} is what a policy calls a row of another kind; name it otherwise"
        )
    for loc, category in _named_categories(policy):
        known = (*CATEGORIES, *own, ANY) if loc[:2] in WITH_ANY else (*CATEGORIES, *own)
        if category not in known:
            at = ("policy", *loc)
            yield Problem(where(at), dotted(at), f"{category[:64]!r} is none of the choices{meant(category, known)}")


def _named_categories(policy: Any) -> Iterator[tuple[Loc, str]]:
    """Every category that is named, with its path."""
    routing = _mapping(policy, "routing")
    yield from ((("categories", name), str(name)) for name in _mapping(policy, "categories"))
    for key in ("scores", "weights", "pins"):
        yield from ((("routing", key, name), str(name)) for name in _mapping(routing, key))
    for expert, banned in _mapping(routing, "bans").items():
        for index, name in enumerate(banned if isinstance(banned, list) else ()):
            yield ("routing", "bans", expert, index), str(name)


def _contradictions(policy: Any, where: Where) -> Iterator[Problem]:
    """Where a row, a pin and a ban say different things of one category."""
    routing, rows = _mapping(policy, "routing"), _mapping(policy, "categories")
    bans = {name: row for name, row in _mapping(routing, "bans").items() if isinstance(row, list)}
    for category, name in _mapping(routing, "pins").items():
        at: Loc = ("policy", "routing", "pins", category)
        if category in rows:
            yield Problem(where(at), dotted(at), f"{category} has a row in categories, too; only one of them can count")
        elif isinstance(name, str) and category in bans.get(name, ()):
            yield Problem(where(at), dotted(at), f"{name!r} is banned from {category}")
    for category, row in rows.items():
        for index, name in enumerate(row if isinstance(row, list) else ()):
            at = ("policy", "categories", category, index)
            if isinstance(name, str) and category in bans.get(name, ()):
                yield Problem(where(at), dotted(at), f"{name!r} is banned from {category}")


def _overlays(policy: Any) -> Iterator[tuple[Loc, Mapping[str, Any]]]:
    """What is only tried: the policy's split and its shadows, with their paths."""
    routing = _mapping(policy, "routing")
    shadows = _mapping(routing, "shadow")
    found: list[tuple[Loc, Mapping[str, Any]]] = [(("shadow", name), _mapping(shadows, name)) for name in shadows]
    if "split" in routing:
        found.append((("split",), _mapping(routing, "split")))
    for loc, overlay in found:
        own = {key: value for key, value in _mapping(overlay, "routing").items() if key not in OWN}
        said = {"categories": overlay.get("categories"), "default": overlay.get("default"), "routing": own}
        yield ("policy", "routing", *loc), said


def _cross_check_overlay(
    overlay: Mapping[str, Any], experts: Collection[str], where: Where, above: Loc, own: Collection[str]
) -> Iterator[Problem]:
    """As `cross_check`, of the parts that an overlay says; it says them further down in the file."""
    for problem in cross_check(overlay, experts, lambda loc: where((*above, *loc[1:])), own):
        yield Problem(problem.where, problem.key.replace("policy", dotted(above), 1), problem.message)


def _contradictions_over(policy: Any, overlay: Mapping[str, Any], where: Where, above: Loc) -> Iterator[Problem]:
    """What is said of one category here and otherwise in the policy below: which of them counts, nobody could see."""
    laid = {
        "categories": {**_mapping(policy, "categories"), **_mapping(overlay, "categories")},
        "routing": {**_mapping(policy, "routing"), **_mapping(overlay, "routing")},
    }
    known = {problem.message for part in (policy, overlay) for problem in _contradictions(part, where)}
    for problem in _contradictions(laid, where):
        if problem.message not in known:
            yield Problem(where(above), dotted(above), f"laid over the policy: {problem.message}")


def _rows(policy: Any) -> Iterator[tuple[Loc, list[Any]]]:
    """Every list of expert names, with its path."""
    rows: list[tuple[Loc, Any]] = [(("categories", name), row) for name, row in _mapping(policy, "categories").items()]
    rows.append((("default",), policy.get("default") if isinstance(policy, dict) else None))
    tenants = _mapping(policy, "tenants")
    rows += [(("tenants", name, "experts"), _mapping(tenants, name).get("experts")) for name in tenants]
    above: list[tuple[Loc, Any]] = [((), policy), *((("tenants", name), _mapping(tenants, name)) for name in tenants)]
    for loc, part in above:
        bands = _mapping(part, "standing")
        rows += [((*loc, "standing", band, "experts"), _mapping(bands, band).get("experts")) for band in bands]
    scopes = _mapping(policy, "scopes")
    rows += [(("scopes", name, "experts"), _mapping(scopes, name).get("experts")) for name in scopes]
    routing = _mapping(policy, "routing")
    rows += [(("routing", "pins", category), [name]) for category, name in _mapping(routing, "pins").items()]
    rows += [(("routing", "bans", name), [name]) for name in _mapping(routing, "bans")]
    yield from ((loc, row) for loc, row in rows if isinstance(row, list))


def _lone_experts(policy: Any) -> Iterator[tuple[Loc, Any]]:
    """Places that name one expert, and what stands there."""
    cascade: Loc = ("routing", "cascade")
    yield from ((("policy", *cascade, key), _at(policy, cascade).get(key)) for key in ("weak", "strong"))
    tenants: list[Loc] = [("tenants", tenant) for tenant in _mapping(policy, "tenants")]
    for loc in [(*whose, "retrieval", "closed_book") for whose in ((), *tenants)]:
        yield ("policy", *loc, "robust"), _at(policy, loc).get("robust")


def _at(holder: Any, loc: Loc) -> Mapping[str, Any]:
    """What stands at a place, if it is a mapping."""
    for key in loc:
        holder = _mapping(holder, str(key))
    return holder if isinstance(holder, dict) else {}


def _mapping(holder: Any, key: str) -> Mapping[str, Any]:
    inner = holder.get(key) if isinstance(holder, dict) else None
    return inner if isinstance(inner, dict) else {}


def expert_names(policy: Any) -> Collection[str]:
    """The experts that a file names, whatever the shape of its policy half."""
    return _mapping(policy, "experts").keys()


def missing_documents(document: PolicyDocument, where: Where) -> Iterator[Problem]:
    """Folders that quoting experts name and that are not there."""
    for name, expert in document.experts.items():
        if expert.documents is not None and not expert.documents.is_dir():
            loc: Loc = ("policy", "experts", name, "documents")
            yield Problem(where(loc), dotted(loc), f"{expert.documents} is not a folder")


def forbidden_addresses(document: PolicyDocument, allowed: Allowed, where: Where) -> Iterator[Problem]:
    """Addresses, not names, where no expert may be; names are judged when they are resolved."""
    for name, expert in document.experts.items():
        for index, place in enumerate(expert.resolved_deployments()):
            own = expert.deployments and expert.deployments[index].base_url is not None
            loc: Loc = ("policy", "experts", name, *(("deployments", index) if own else ()), "base_url")
            try:
                check_url(place.base_url or "", allowed)
            except Refused as error:
                yield Problem(where(loc), dotted(loc), str(error))


def silent_trials(document: PolicyDocument, where: Where) -> Iterator[Problem]:
    """A weak expert that gives none of the evidence: a warning, for then no answer of its is ever judged."""
    gate = document.routing.cascade
    weak = document.experts.get(gate.weak) if gate is not None and gate.weak is not None else None
    if gate is None or weak is None:
        return
    needed = {"logprobs" if kind in FROM_LOGPROBS else "n" for kind in gate.evidence}
    if needed.isdisjoint(weak.can()):
        loc: Loc = ("policy", "routing", "cascade", "weak")
        fate = "is shown" if gate.without_evidence == "accept" else "is thrown away"
        words = f"each answer of {gate.weak!r} {fate} unjudged: its capabilities lack {' and '.join(sorted(needed))}"
        yield Problem(where(loc), dotted(loc), words)


def unknown_providers(
    document: PolicyDocument, known: Callable[[], Collection[str]], where: Where
) -> Iterator[Problem]:
    """Providers of litellm's that look mistyped: a warning, for litellm may know more than its lists (`known`)."""
    for name, expert in document.experts.items():
        listed = known() if expert.kind == "litellm" else ()
        for index, place in enumerate(expert.resolved_deployments() if listed else ()):
            provider = str(place.model).partition("/")[0]
            own = expert.deployments and expert.deployments[index].model is not None
            loc: Loc = ("policy", "experts", name, *(("deployments", index) if own else ()), "model")
            if provider not in listed:
                words = f"{provider!r} is no provider that litellm lists{meant(provider, listed, listed=False)}"
                yield Problem(where(loc), dotted(loc), words)


def missing_keys(document: PolicyDocument, environ: Mapping[str, str], where: Where) -> Iterator[Problem]:
    """Keys that the experts name and that are not there: a warning, for a key may come later."""
    for name, expert in document.experts.items():
        for index, place in enumerate(expert.resolved_deployments()):
            loc: Loc = ("policy", "experts", name, *(("deployments", index) if expert.deployments else ()))
            if place.api_key_file is not None:
                if not Path(place.api_key_file).is_file():
                    yield Problem(where(loc), dotted(loc), f"the key file {place.api_key_file} is not there")
            elif place.api_key_env is not None and not environ.get(place.api_key_env):
                yield Problem(where(loc), dotted(loc), f"the variable {place.api_key_env} is not set, or empty")
