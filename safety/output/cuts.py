"""What is cut out of a text on its way: which findings, how far they reach, and what stands in their place.

Where a finding ends may come to light only after what stands before it was let go; it stays open until then. Pure.
"""

from collections.abc import Callable, Sequence

from conclave.safety.output.api import OutputRule
from conclave.safety.output.judging import Spot

Slice = Callable[[int, int], str]  # the text from one place to another


class Cuts:
    """The cuts of one channel. `removed`: set a list to be told which places of what was let go were cut out."""

    __slots__ = ("_due", "_open", "_rules", "removed")

    def __init__(self, rules: Sequence[OutputRule]) -> None:
        self._rules = rules
        self._due: list[Spot] = []  # in what waits
        self._open: list[Spot] = []  # that what was let go has reached
        self.removed: list[tuple[int, int]] | None = None

    def __bool__(self) -> bool:
        return bool(self._due or self._open)

    def add(self, spot: Spot) -> None:
        self._due.append(spot)

    def clear(self) -> None:
        """Forget all but what was removed."""
        self._due, self._open = [], []

    def shown(self, out: int, safe: int, text: Slice, *, may_grow: Callable[[Spot], bool]) -> str:
        """What may be shown of the text from `out` to `safe`."""
        shown: list[str] = []
        self._due.sort(key=lambda spot: (spot.start, spot.order))
        at = out
        while True:
            cut_from, at = at, max([at, *(spot.end for spot in self._open)])
            if self.removed is not None and at > cut_from:
                self.removed.append((cut_from, at))
            if not self._due or self._due[0].start >= safe:
                break
            spot = self._due.pop(0)
            if spot.start >= at:
                shown += (text(at, spot.start), mark(self._rules[spot.order], spot))
                at = spot.start
            self._open.append(spot)
        if at < safe:
            shown.append(text(at, safe))
        reached = max(out, safe)
        self._open = [spot for spot in self._open if spot.end > reached or may_grow(spot)]
        return "".join(shown)


def mark(rule: OutputRule, spot: Spot) -> str:
    """What stands in the text for what was cut out of it."""
    return spot.finding.instead or f"[{rule.check.name} removed]"
