"""The policy's `answers`: which checks look at what experts say, in which order, and what follows from what they find.

The settings are values, checked for shape only; `compiled` makes of them what guards the answers of a policy version.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from conclave.gateway.guard import Guarding
from conclave.gateway.policy.defences import FromSeverity
from conclave.gateway.policy.part import Flag, Part
from conclave.gateway.policy.shift import OFF, ShiftSettings, graded, raised
from conclave.safety.api import Action, Severity
from conclave.safety.output.api import OutputCheck, OutputRule
from conclave.safety.output.plan import Plan

AnswerCheckName: TypeAlias = Literal["signatures", "exfiltration", "packages", "dependencies", "links", "shell", "code"]
MakeAnswerCheck: TypeAlias = Callable[[str, Sequence[str]], OutputCheck]  # by its name; the policy's canaries


class AnswerCheckSettings(Part):
    """One check of answers, and what follows from what it finds."""

    check: AnswerCheckName = Field(description="Its name; docs/safety.md says what each looks for.")
    action: Literal["off", "observe", "annotate", "redact", "block"] = Field(
        default="annotate",
        description="`observe`: noted and nothing more; `annotate`: the caller is told; `redact`: cut out of the "
        "answer; `block`: the answer is withheld, from there on in a stream.",
    )
    from_severity: FromSeverity = Field(
        default="low", description="How severe a finding must be for `action`; milder ones are annotated at most."
    )
    on_error: Literal["allow", "block"] = Field(
        default="block", description="A failure of the check itself: `block` takes what it did not see for a finding."
    )
    timeout_s: float = Field(
        default=1.0, gt=0, le=60, description="Time for one answer; what it would see after that, it did not see."
    )
    minor: Flag = Field(
        default=False, description="`code` only: tell also what is mostly harmless where it stands, as `low`."
    )

    @model_validator(mode="after")
    def _fits_the_check(self) -> Self:
        if self.minor and self.check != "code":
            raise ValueError(f"minor belongs to the check code; {self.check} keeps nothing to itself")
        return self


def _each_once(checks: tuple[AnswerCheckSettings, ...]) -> tuple[AnswerCheckSettings, ...]:
    names = [one.check for one in checks]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is listed more than once")
    return checks


AnswerChecks = Annotated[tuple[AnswerCheckSettings, ...], AfterValidator(_each_once)]
Canary = Annotated[str, StringConstraints(min_length=8, max_length=256)]
ANSWERS: Final = (  # unless the policy says otherwise
    AnswerCheckSettings(check="exfiltration"),
    AnswerCheckSettings(check="packages", action="block", from_severity="high"),  # high: known to be malicious
    AnswerCheckSettings(check="dependencies"),
    AnswerCheckSettings(check="links"),
    AnswerCheckSettings(check="shell"),
    AnswerCheckSettings(check="code"),
)
OPEN: Final = Guarding(Plan.of(()))


def compiled(
    checks: Sequence[AnswerCheckSettings],
    make: MakeAnswerCheck,
    *,
    canaries: Sequence[str],
    observe: bool,
    shift: ShiftSettings = OFF,
) -> Guarding:
    """What guards answers with the checks that are not off, in their order; with `observe` none of them acts.

    `shift` says what an answer meets whose request hid its wish.
    """
    used = [one for one in checks if one.action != "off"]
    if not used:
        return OPEN
    rules = [
        OutputRule(
            graded(make(one.check, canaries), minor=one.minor),
            action=Action.ALLOW if one.action == "observe" else Action[one.action.upper()],
            observe=observe or one.action == "observe",
            on_error=one.on_error,
            timeout_s=one.timeout_s,
            from_severity=Severity[one.from_severity.upper()],
        )
        for one in used
    ]
    return Guarding(Plan.of(rules), raised(rules, shift) if shift.mode == "on" else None)
