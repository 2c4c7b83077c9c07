"""The policy's `shift`: requests whose coding or maths frame hides a risky wish, and what of that their answer meets.

A value, checked for shape only; `safety/detect/shift.py` does the looking. `raised` compiles what guards the answers of
such requests: the same checks, none of them milder.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal, cast

from pydantic import Field

from conclave.gateway.policy.part import Flag, Part
from conclave.safety.api import Severity
from conclave.safety.detect.shift import NAME, THRESHOLD
from conclave.safety.output.api import Graded, OutputCheck, OutputRule
from conclave.safety.output.plan import Plan
from conclave.safety.verdict import Verdict


class ShiftSettings(Part):
    """Requests whose frame hides a risky wish, and how their answers are looked at."""

    mode: Literal["on", "observe", "off"] = Field(
        default="on",
        description="`on`: the caller is told, and the answer meets what is said here; `observe`: it is only noted.",
    )
    threshold: float = Field(
        default=THRESHOLD, gt=0, le=1, description="How risky the wish must be without its frame, 0 to 1."
    )
    severities: int = Field(
        default=1, ge=0, le=2, description="By how many severities the `from_severity` of the answer's checks sinks."
    )
    minor: Flag = Field(
        default=True, description="The check `code` tells what is mostly harmless where it stands, too."
    )
    whole_blocks: Flag = Field(
        default=True, description="Where a check blocks, a fenced block waits until it is judged as a whole."
    )


OFF: Final = ShiftSettings(mode="off")


def raised(rules: Sequence[OutputRule], settings: ShiftSettings) -> Plan:
    """What looks at an answer whose request hid its wish."""
    return Plan.of([_raised(rule, settings) for rule in rules], whole_blocks=settings.whole_blocks)


def _raised(rule: OutputRule, settings: ShiftSettings) -> OutputRule:
    lower = Severity(max(Severity.LOW, rule.from_severity - settings.severities))
    return replace(rule, check=graded(rule.check, minor=settings.minor), from_severity=lower)


def graded(check: OutputCheck, *, minor: bool) -> OutputCheck:
    """The check; with `minor` it tells its mildest findings, too, if it keeps any to itself."""
    return cast(Graded, check).with_minor() if minor and hasattr(check, "with_minor") else check


def raises(verdict: Verdict) -> bool:
    """Whether the checks of a request say that its answer is to be looked at more closely."""
    return any(finding.check == NAME for finding in verdict.acted)
