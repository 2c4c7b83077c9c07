"""What the gate for tool calls knows: a declared tool, what a policy says of tools, and what a call does.

Values only. What a tool does to the world (`Effect`) decides how much evidence a call of it needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol

from conclave.safety.api import Action, Severity

NAME: Final = "toolcalls"  # the check in findings


class Effect(StrEnum):
    """What a call does: nothing, looks something up, changes something, reaches others, runs code."""

    NONE = "none"
    READ = "read"
    WRITE = "write"
    EXTERNAL = "external"
    CODE = "code"


ACTS: Final = frozenset({Effect.WRITE, Effect.EXTERNAL, Effect.CODE})


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the request declares it; `parameters` is its JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""


class Fits(Protocol):
    """Whether arguments fit a JSON schema: what is wrong, or None."""

    def __call__(self, arguments: Any, /) -> str | None: ...


@dataclass(frozen=True, slots=True)
class ToolRule:
    """What a policy says of one tool. None: nothing, the tool's own words decide.

    `action` of a tool: ALLOW is never more than told, CONFIRM and BLOCK hold for every call. `egress` are the only
    domains (and their subdomains) that its addresses may name.
    """

    effect: Effect | None = None
    fits: Fits | None = None
    egress: tuple[str, ...] | None = None
    sensitive: frozenset[str] | None = None
    action: Action | None = None
    most_calls: int | None = None


@dataclass(frozen=True, slots=True)
class ToolRules:
    """A tenant's rules for tool calls.

    `steered` is what follows from a finding that is at least `from_severity`; milder ones are told at most. With
    `observe` nothing follows from any. `rules` are looked up by the tool's name, then as globs in their order.
    """

    rules: Mapping[str, ToolRule] = field(default_factory=dict)
    default: ToolRule = field(default_factory=ToolRule)
    steered: Action = Action.CONFIRM
    from_severity: Severity = Severity.HIGH
    duplicates: Action = Action.ANNOTATE
    undeclared: Action = Action.ANNOTATE
    observe: bool = False

    def of(self, name: str) -> ToolRule:
        """The rule for a tool."""
        found = self.rules.get(name)
        if found is not None:
            return found
        return next((rule for glob, rule in self.rules.items() if fnmatchcase(name, glob)), self.default)


def tools_of(body: Mapping[str, Any]) -> Sequence[Tool]:
    """The tools that a request declares, those that have a name. What is no tool is passed over."""
    found: list[Tool] = []
    for key in ("tools", "functions"):
        offered = body.get(key)
        for index, one in enumerate(offered) if isinstance(offered, list) else ():
            inner = one.get("function") or one.get("custom") or one if isinstance(one, dict) else None
            if isinstance(inner, dict) and isinstance(name := inner.get("name"), str):
                about, schema = inner.get("description"), inner.get("parameters") or inner.get("input_schema")
                place = f"{key}[{index}]"
                if inner is not one:
                    place += ".function" if "function" in one else ".custom"
                found.append(
                    Tool(
                        name,
                        about if isinstance(about, str) else "",
                        schema if isinstance(schema, dict) else {},
                        place,
                    )
                )
    return found
