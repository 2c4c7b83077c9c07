"""Judges texts that were let pass before by milder rules than new ones: `passed` names the places where they stand.

A client sends its whole history with each turn. Where a caller is trusted less than before, a text that was told of and
answered then would refuse every further turn, though nothing new was said. It never forgives a text that was refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from conclave.safety.api import Action, Finding, Segment
from conclave.safety.detect.turns import TurnRunner
from conclave.safety.runner import Runner
from conclave.safety.verdict import Verdict


@dataclass(frozen=True, slots=True)
class KnownRunner:
    """`strict` for what is new, `mild` for what stands at `passed`; what both found in other texts is the first's."""

    strict: Runner | TurnRunner
    mild: Runner | TurnRunner
    passed: frozenset[str]

    def action_of(self, finding: Finding) -> Action:
        """What policy does about a finding."""
        return (self.mild if finding.place in self.passed else self.strict).action_of(finding)

    def screen(self, segments: Sequence[Segment], *, tenant: str) -> Verdict:
        """What the checks say of a request, as `Runner.screen`."""
        strict, mild = self.strict.screen(segments, tenant=tenant), self.mild.screen(segments, tenant=tenant)
        found = self._of_each(strict.findings, mild.findings)
        acted = self._of_each(strict.acted, mild.acted)
        action, would = (max(map(self.action_of, some), default=Action.ALLOW) for some in (acted, found))
        return Verdict(action, found, acted, strict.ran, would=would)

    def _of_each(self, strict: Sequence[Finding], mild: Sequence[Finding]) -> tuple[Finding, ...]:
        return (
            *(one for one in strict if one.place not in self.passed),
            *(one for one in mild if one.place in self.passed),
        )
