"""The policy's `tools`: what the tools that a request offers may do, and what follows from a call that was steered.

The settings are values, checked for shape; `compiled` makes of them what judges the tool calls of a tenant's answers,
and the tools of its requests.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints

from conclave.gateway.policy.part import Part
from conclave.safety.api import DATA, Action, Finding, Segment, Severity, tool_of
from conclave.safety.output.api import Authorise, Ruling, ToolCall
from conclave.safety.runner import CHECK_FAILED
from conclave.safety.toolcalls.api import NAME, Effect, Fits, ToolRule, ToolRules, tools_of
from conclave.safety.toolcalls.authorise import Authoriser
from conclave.safety.toolcalls.confirm import Confirmed
from conclave.safety.toolcalls.history import past_calls
from conclave.safety.toolcalls.pins import Pins
from conclave.safety.verdict import NOTHING, Verdict

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator

    from conclave.gateway.access.scope import Grant
    from conclave.gateway.call import ModelRequest

Follows: TypeAlias = Literal["observe", "annotate", "confirm", "block"]
ToolGlob = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/*?\[\]-]{1,128}$")]
Domain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
WRONG_CHARS: Final = 160  # of what a schema says is wrong


def _is_schema(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    if schema is not None:
        try:
            _validator(schema)
        except ValueError as error:
            raise ValueError(f"no JSON schema: {str(error).splitlines()[0][:WRONG_CHARS]}") from error
    return schema


def _validator(schema: Mapping[str, Any]) -> "Draft202012Validator":
    from jsonschema_rs import Draft202012Validator, RegexOptions  # noqa: PLC0415  only a policy with schemas pays

    return Draft202012Validator(dict(schema), pattern_options=RegexOptions(), retriever=_nowhere)


def _nowhere(uri: str) -> Any:
    raise ValueError(f"$ref must stay within the schema, and {uri[:WRONG_CHARS]!r} does not")


class ToolRuleSettings(Part):
    """What holds for one tool, or for those whose names fit a glob."""

    side_effect: Literal["none", "read", "write", "external", "code"] | None = Field(
        default=None, description="What a call does; null: as the tool's name and description have it."
    )
    arguments: Annotated[dict[str, Any] | None, AfterValidator(_is_schema)] = Field(
        default=None, description="A JSON schema that the arguments must fit; a call that does not is blocked."
    )
    egress: tuple[Domain, ...] | None = Field(
        default=None, description="The only domains that URLs and mail addresses in the arguments may name; null: any."
    )
    sensitive: tuple[str, ...] | None = Field(
        default=None, description="The arguments whose values data must not choose; null: by their names."
    )
    action: Literal["allow", "confirm", "block"] | None = Field(
        default=None, description="`allow`: told at most; `confirm`, `block`: every call; null: by what was found."
    )
    most_calls: int | None = Field(
        default=None, ge=0, le=10_000, description="Calls since the user's last word; further ones are blocked."
    )

    def rule(self) -> ToolRule:
        """As decisions need it."""
        return ToolRule(
            effect=Effect(self.side_effect) if self.side_effect is not None else None,
            fits=_fits(self.arguments) if self.arguments is not None else None,
            egress=self.egress,
            sensitive=frozenset(self.sensitive) if self.sensitive is not None else None,
            action=Action[self.action.upper()] if self.action is not None else None,
            most_calls=self.most_calls,
        )


class ToolsSettings(Part):
    """What tool calls of answers may do."""

    steered: Follows = Field(
        default="confirm", description="What follows from a call that data asked for, or whose values data chose."
    )
    from_severity: Literal["low", "medium", "high"] = Field(
        default="high", description="How sure that must be; milder findings are annotated at most."
    )
    duplicates: Follows = Field(
        default="annotate", description="What follows from a call that was made and answered since the user spoke."
    )
    undeclared: Follows = Field(
        default="annotate", description="What follows from a call of a tool that the request does not offer."
    )
    changed: Literal["observe", "annotate", "block"] = Field(
        default="observe", description="What follows where a tool is not what this caller first sent by that name."
    )
    pins: dict[str, Digest] = Field(
        default_factory=dict,
        max_length=10_000,
        description="Tools by name, and the SHA-256 that each must have (`conclave safety pin`); another is refused.",
    )
    default: ToolRuleSettings = Field(
        default_factory=ToolRuleSettings, description="What holds for tools that no rule names."
    )
    rules: dict[ToolGlob, ToolRuleSettings] = Field(
        default_factory=dict, max_length=1_000, description="Rules by tool: the exact name, else the first glob."
    )


@dataclass(frozen=True, slots=True)
class ToolGate:
    """A tenant's rules for tools, compiled. `works` is false where the stage is off."""

    rules: ToolRules = field(default_factory=ToolRules)
    pins: Mapping[str, str] = field(default_factory=dict)
    changed: Action = Action.ALLOW
    works: bool = True

    def authorise(
        self, request: "ModelRequest", segments: Sequence[Segment], confirmed: Confirmed | None
    ) -> Authorise | None:
        """What judges the calls of one answer; None where there is nothing to judge, and nothing need wait."""
        body = request.body
        if not self.works or not (body.get("tools") or body.get("functions")):
            return None
        segments = [one for one in segments if not tool_of(one.place)]  # what explains a tool is not what it returned
        bare = not self.rules.rules and self.rules.default == ToolRule()
        if bare and not any(one.origin in DATA for one in segments):
            return None
        judge: Authorise = Authoriser(self.rules, segments, tools_of(body), past_calls(body.get("messages")))
        if self.rules.observe:
            return _observed(judge)
        return _with(judge, confirmed) if confirmed is not None else judge

    def look(self, request: "ModelRequest", grant: "Grant", seen: Pins) -> Verdict:
        """What there is to say of the tools that a request offers."""
        body = request.body
        if not self.works or not (body.get("tools") or body.get("functions")):
            return NOTHING
        found = tuple(seen.changed(tools_of(body), self.pins, tenant=grant.tenant, key_id=grant.key_id))
        if not found:
            return NOTHING
        pinned = [one for one in found if one.severity is Severity.HIGH]
        action = Action.BLOCK if pinned else self.changed
        if self.rules.observe:
            return Verdict(Action.ALLOW, found, (), (), would=action)
        acted: Sequence[Finding] = found if self.changed > Action.ALLOW else pinned
        return Verdict(action, found, tuple(acted), ())


UNGATED: Final = ToolGate(works=False)


def compiled(settings: ToolsSettings, mode: Literal["off", "observe", "on"]) -> ToolGate:
    """The gate of these settings, while the stage of the guard is in this mode."""
    if mode == "off":
        return UNGATED
    rules = ToolRules(
        rules={name: rule.rule() for name, rule in settings.rules.items()},
        default=settings.default.rule(),
        steered=_action(settings.steered),
        from_severity=Severity[settings.from_severity.upper()],
        duplicates=_action(settings.duplicates),
        undeclared=_action(settings.undeclared),
        observe=mode == "observe",
    )
    return ToolGate(rules, settings.pins, _action(settings.changed))


def _action(word: str) -> Action:
    return Action.ALLOW if word == "observe" else Action[word.upper()]


def _with(judge: Callable[[ToolCall], Ruling], confirmed: Confirmed) -> Authorise:
    """`judge`, but what a person has confirmed passes."""

    def authorise(call: ToolCall) -> Ruling:
        ruling = judge(call)
        if ruling.action is Action.CONFIRM and confirmed.allows(call):
            return Ruling(Action.ANNOTATE, ruling.findings, ruling.acted, Action.ANNOTATE)
        return ruling

    return authorise


def _observed(judge: Authorise) -> Authorise:
    """`judge`, but nothing follows from its own failure either: the guard would take that for a call to refuse."""

    def authorise(call: ToolCall) -> Ruling:
        try:
            return judge(call)
        except Exception:  # noqa: BLE001  a check's own edge
            failed = Finding(NAME, CHECK_FAILED, Severity.HIGH, 1.0, "", 0, len(call.arguments))
            return Ruling(Action.ALLOW, (failed,), would=Action.BLOCK)

    return authorise


def _fits(schema: Mapping[str, Any]) -> Fits:
    validator = _validator(schema)

    def fits(arguments: Any) -> str | None:
        error = next(iter(validator.iter_errors(arguments)), None)
        if error is None:
            return None
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
        broken = next((step for step in reversed(error.schema_path) if isinstance(step, str)), "schema")
        return f"{place.lstrip('.')[:WRONG_CHARS] or 'the whole'} breaks `{broken[:WRONG_CHARS]}`"

    return fits
