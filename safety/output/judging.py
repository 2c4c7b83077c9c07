"""What the checks have found in one answer, and how each went: the account that all its channels share.

The caller, not the check, applies `on_error` and `timeout_s`: a check that raised, or that has taken longer for this
answer than it may, stands for what it might have found, or is passed over. Never raises for what a check does.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from conclave.safety.api import Action, Finding, Severity
from conclave.safety.output.api import Excerpt, OutputRule
from conclave.safety.runner import CHECK_FAILED, MOST_FINDINGS
from conclave.safety.verdict import Ran, Verdict

MOST_KEPT: Final = 256  # findings of one answer that are told; what more there are is acted on all the same
LATE: Final = "late"


@dataclass(slots=True, eq=False)
class Spot:
    """A finding at its place in a channel; `end` moves while more of it comes to light."""

    finding: Finding
    action: Action
    acts: bool
    order: int  # of its check in the policy
    start: int
    end: int
    place: str

    def told(self) -> Finding:
        """The finding as the record has it."""
        return replace(self.finding, place=self.place, start=self.start, end=self.end)


class Judging:
    """One answer's account. `rules` are the policy's checks of answers, in its order."""

    def __init__(self, rules: Sequence[OutputRule], *, now_s: Callable[[], float] = time.perf_counter) -> None:
        self.rules = rules
        self.spots: list[Spot] = []
        self.action = Action.ALLOW
        self.would = Action.ALLOW  # if nothing were only observed
        self._now_s = now_s
        self._spent_s = [0.0] * len(rules)
        self._errors: dict[int, str] = {}

    def inspect(self, order: int, excerpt: Excerpt) -> Sequence[Finding]:
        """What a check says of an excerpt, or what its failure means."""
        rule = self.rules[order]
        if self._spent_s[order] > rule.timeout_s:
            self._errors.setdefault(order, LATE)
            return self._failure(rule, excerpt)
        started_s = self._now_s()
        try:
            found = rule.check.inspect(excerpt)
            return found if len(found) <= MOST_FINDINGS else _bounded(found)
        except Exception as error:  # noqa: BLE001  a check's own edge: policy says what its failure means
            self._errors[order] = type(error).__name__
            return self._failure(rule, excerpt)
        finally:
            self._spent_s[order] += self._now_s() - started_s

    def note(self, spot: Spot) -> None:
        """Take a finding to account."""
        self.action = max(self.action, spot.action)
        self.would = max(self.would, self._would(spot))
        if len(self.spots) < MOST_KEPT:
            self.spots.append(spot)

    def clear(self) -> None:
        """Take all of it back; how long the checks took stays."""
        self.spots, self.action, self.would = [], Action.ALLOW, Action.ALLOW

    def forget(self, place: str, start: int) -> None:
        """Take back what was found in a channel from `start` on: it was never shown."""
        self.spots = [spot for spot in self.spots if spot.place != place or spot.start < start]
        for spot in self.spots:
            if spot.place == place:
                spot.end = min(spot.end, start)
        self.action = max((spot.action for spot in self.spots), default=Action.ALLOW)
        self.would = max(map(self._would, self.spots), default=Action.ALLOW)

    @property
    def verdict(self) -> Verdict:
        """All of it, so far."""
        told = [(spot, spot.told()) for spot in self.spots]
        return Verdict(
            self.action,
            tuple(finding for _, finding in told),
            tuple(finding for spot, finding in told if spot.acts),
            tuple(
                Ran(rule.check.name, 1e3 * spent_s, late=spent_s > rule.timeout_s, error=self._errors.get(order))
                for order, (rule, spent_s) in enumerate(zip(self.rules, self._spent_s, strict=True))
            ),
            would=self.would,
        )

    def _would(self, spot: Spot) -> Action:
        return self.rules[spot.order].would(spot.finding)

    @staticmethod
    def _failure(rule: OutputRule, excerpt: Excerpt) -> Sequence[Finding]:
        if rule.on_error == "allow":
            return ()
        check, size = rule.check.name, len(excerpt.text)
        return (Finding(check, CHECK_FAILED, Severity.HIGH, 1.0, place="", start=0, end=size),)


def _bounded(found: Sequence[Finding]) -> Sequence[Finding]:
    """In order of place; the last one covers all that are too many, and what stands between them."""
    ordered = sorted(found, key=lambda one: (one.start, -one.end))
    kept, rest = ordered[: MOST_FINDINGS - 1], ordered[MOST_FINDINGS - 1 :]
    worst = max(rest, key=lambda one: one.severity)
    return [*kept, replace(worst, start=rest[0].start, end=max(one.end for one in rest))]
