"""Whether one way is better than another, from what was measured of both: a difference with its 95 % interval.

Intervals are Student's. They lean on means of so many values being near the normal law, so below `FEWEST` values
nothing is claimed. What belongs together (the calls of one conversation) must be made one value before it comes here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from typing import Final, Literal, TypeAlias

FEWEST: Final = 30  # values, of each side
INSIDE: Final = 0.95  # of an interval

Verdict: TypeAlias = Literal["more", "less", "cannot tell yet"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of what the one has more than the other, over so many `values`; low and high bound its 95 % interval."""

    mean: float
    low: float
    high: float
    values: int

    @property
    def verdict(self) -> Verdict:
        """`more` or `less` where the interval is on one side of 0, and rests on enough values."""
        if self.values < FEWEST:
            return "cannot tell yet"
        if self.low > 0:
            return "more"
        return "less" if self.high < 0 else "cannot tell yet"


def paired(differences: Sequence[float]) -> Difference | None:
    """Of the same things done in both ways; None for fewer than two."""
    count = len(differences)
    if count < 2:  # noqa: PLR2004  one value has no spread
        return None
    return _difference(_mean(differences), _variance(differences) / count, count - 1, values=count)


def apart(one: Sequence[float], other: Sequence[float]) -> Difference | None:
    """Of different things, `other` less `one` (Welch: the spreads may differ); None for fewer than two of either.

    `values` is the smaller of the two numbers.
    """
    if min(len(one), len(other)) < 2:  # noqa: PLR2004  as above
        return None
    parts = [(_variance(values) / len(values), len(values) - 1) for values in (one, other)]
    squared = fsum(part for part, _ in parts)
    shares = fsum(part**2 / free for part, free in parts)
    freedom = squared**2 / shares if shares else min(free for _, free in parts)
    return _difference(_mean(other) - _mean(one), squared, freedom, values=min(len(one), len(other)))


def _difference(mean: float, squared_error: float, freedom: float, *, values: int) -> Difference:
    """With the interval that `freedom` degrees of freedom give to an error."""
    from scipy.special import stdtrit  # noqa: PLC0415  0.5 s: only where something is compared

    reach = float(stdtrit(freedom, (1 + INSIDE) / 2)) * sqrt(squared_error)
    return Difference(mean, mean - reach, mean + reach, values)


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
