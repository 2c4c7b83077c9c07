"""The policy's `defences`: which checks look at a request, in which order, and what follows from what they find.

A value, checked for shape only; `safety/checks.py` knows the checks by name, and `screening.py` compiles them.
"""

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from conclave.gateway.policy.part import Flag, Part

CheckName: TypeAlias = Literal[
    "hidden",
    "signatures",
    "secrets",
    "pii",
    "sponge",
    "topics",
    "override",
    "persona",
    "harm",
    "embedded",
    "second_opinion",
]
CheckAction: TypeAlias = Literal["off", "observe", "annotate", "redact", "confirm", "block"]
FromSeverity: TypeAlias = Literal["low", "medium", "high"]
LEARNED: Final = frozenset({"override", "persona", "harm", "embedded"})
WHOLE: Final = LEARNED | {"topics"}  # what they find has no place in the text that could be cut out
PLACELESS: Final = WHOLE | {"second_opinion"}  # as these; but joined turns are no second opinion's business
KEPT: Final = frozenset({"secrets", "pii"})  # what they find has a value that may come back


class CheckSettings(Part):
    """One check, and what follows from what it finds."""

    check: CheckName = Field(description="Its name; docs/safety.md says what each looks for.")
    action: CheckAction = Field(
        default="block",
        description="`observe`: noted and nothing more; `annotate`: the caller is told; `redact`: cut out of what the "
        "expert is sent; `confirm`: refused until a person lets it pass; `block`: refused.",
    )
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="Learned checks: the score from which it is a finding; null: its card's."
    )
    from_severity: FromSeverity = Field(
        default="low", description="How severe a finding must be for `action`; milder ones are annotated at most."
    )
    reversible: Flag = Field(
        default=False,
        description="`redact` of `secrets` and `pii`: what is cut out stands in the answer again, for its caller.",
    )
    on_error: Literal["allow", "block"] = Field(
        default="allow", description="What a failure of the check itself means for the request."
    )
    timeout_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Time from which it counts as late in the record; a second opinion is then given up.",
    )

    @model_validator(mode="after")
    def _fits_the_check(self) -> Self:
        if self.action == "redact" and self.check in PLACELESS:
            raise ValueError(f"{self.check} judges a whole text, so there is nothing to redact: annotate or block")
        if self.threshold is not None and self.check not in LEARNED:
            raise ValueError(f"{self.check} is a rule and has no threshold")
        if self.reversible and (self.action != "redact" or self.check not in KEPT):
            raise ValueError(f"reversible belongs to the action redact of {' and '.join(sorted(KEPT))}")
        return self


def _each_once(checks: tuple[CheckSettings, ...]) -> tuple[CheckSettings, ...]:
    names = [one.check for one in checks]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is listed more than once")
    return checks


Checks = Annotated[tuple[CheckSettings, ...], AfterValidator(_each_once)]
CHECKS: Final = (  # unless the policy says otherwise
    CheckSettings(check="hidden", action="block", on_error="block"),
    CheckSettings(check="signatures", action="annotate"),
    CheckSettings(check="secrets", action="annotate"),
    CheckSettings(check="sponge", action="annotate"),
    CheckSettings(check="override", action="block", from_severity="high"),
    CheckSettings(check="persona", action="block", from_severity="high"),
    CheckSettings(check="embedded", action="annotate"),
)
