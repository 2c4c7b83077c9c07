"""Whether one way is better than another, from what was measured of both: a difference with its 95 % interval.

Intervals are by the normal law of large numbers, so below `FEWEST` values nothing is claimed. What belongs together
(the calls of one conversation) must be made one value before it comes here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from typing import Final, Literal, TypeAlias

FEWEST: Final = 30  # values, of each side
SURE: Final = 1.959964  # standard errors on each side of a 95 % interval

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
    if len(differences) < 2:  # noqa: PLR2004  one value has no spread
        return None
    mean, error = _mean(differences), sqrt(_variance(differences) / len(differences))
    return Difference(mean, mean - SURE * error, mean + SURE * error, len(differences))


def apart(one: Sequence[float], other: Sequence[float]) -> Difference | None:
    """Of different things, `other` less `one` (Welch: the spreads may differ); None for fewer than two of either.

    `values` is the smaller of the two numbers.
    """
    if min(len(one), len(other)) < 2:  # noqa: PLR2004  as above
        return None
    mean = _mean(other) - _mean(one)
    error = sqrt(_variance(one) / len(one) + _variance(other) / len(other))
    return Difference(mean, mean - SURE * error, mean + SURE * error, min(len(one), len(other)))


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
