"""The threshold of a cascade, from pairs that were logged or bought: both experts' answers to the same questions.

`fit` maps confidence to the probability that the weak answer is right (isotonic regression: it only rises) and finds
the threshold for a target. `escalation` says what each share of escalated questions is worth, beside choosing them by
chance; if the two do not differ, the confidence says nothing and a cascade does not pay. Pure; never asks anybody.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import fsum
from typing import TYPE_CHECKING, Final

from conclave.router.gates.cascade import calibrated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEWEST: Final = 20  # pairs; a threshold from less is chance
RESAMPLES: Final = 1000  # of the bootstrap
INTERVAL: Final = 0.95
SHARES: Final = frozenset({"confidence", "weak", "strong"})
MOST_USD: Final = 1e9  # for an answer: sums of more could be beyond what a double holds
CURVE_POINTS: Final = 20  # at most: what a policy holds is read by people


@dataclass(frozen=True, slots=True)
class Pair:
    """One question: how sure the weak expert was, what both answers were worth (0 to 1), and what each cost (USD)."""

    confidence: float
    weak: float
    strong: float
    weak_usd: float = 0.0
    strong_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Point:
    """If this share of the questions is escalated, the least sure first: the score, and that of as many by chance.

    Those are escalated whose confidence is below `below`. `usd` is what a question costs on average, both experts'
    answers where both were asked.
    """

    escalated: float
    below: float
    score: float
    by_chance: float
    usd: float


@dataclass(frozen=True, slots=True)
class Worth:
    """The area between the score by confidence and the score by chance, with its 95 % interval (bootstrap)."""

    area: float
    low: float
    high: float

    @property
    def pays(self) -> bool:
        """Whether the confidence is known to say something."""
        return self.low > 0


@dataclass(frozen=True, slots=True)
class Fit:
    """What a policy takes over: `curve`, and the threshold `below` on its scale. `at` is what that is worth."""

    curve: tuple[tuple[float, float], ...]
    below: float
    at: Point
    worth: Worth


def fit(pairs: Sequence[Pair], *, recover: float = 0.9, usd_per_score: float | None = None, seed: int = 0) -> Fit:
    """The curve, and the threshold for a target; raises ValueError for pairs that nothing follows from.

    `recover`: escalate as little as recovers this share of what the strong expert is better by. With `usd_per_score`
    (what a point of score is worth) the threshold with the most score less costs is taken in its place.
    """
    _check_all(pairs)
    curve = isotonic([pair.confidence for pair in pairs], [pair.weak for pair in pairs])
    mapped = [Pair(calibrated(p.confidence, curve), p.weak, p.strong, p.weak_usd, p.strong_usd) for p in pairs]
    points = escalation(mapped)
    if usd_per_score is not None:
        at = max(points, key=lambda point: point.score - point.usd / usd_per_score)
    else:
        weak, strong = points[0].score, points[-1].score
        goal = weak + recover * (strong - weak)
        at = (
            next((point for point in points if point.score >= goal - 1e-12), points[-1]) if strong > weak else points[0]
        )
    return Fit(curve, at.below, at, worth(pairs, seed=seed))


def escalation(pairs: Sequence[Pair]) -> list[Point]:
    """From no question escalated to all, one point for each confidence that stands in the pairs, and one above all."""
    ordered = sorted(pairs, key=lambda pair: pair.confidence)
    count = len(ordered)
    weak, strong = fsum(pair.weak for pair in pairs), fsum(pair.strong for pair in pairs)
    score, usd = weak, fsum(pair.weak_usd for pair in pairs)
    points, done = [], 0
    levels = [(level, list(group)) for level, group in groupby(ordered, key=lambda pair: pair.confidence)]
    edges = [0.0, *((left[0] + right[0]) / 2 for left, right in pairwise(levels)), 1.0]
    for below, group in zip(edges, [*(group for _, group in levels), []], strict=True):
        by_chance = weak + (strong - weak) * done / count
        points.append(Point(done / count, below, score / count, by_chance / count, usd / count))
        score += fsum(pair.strong - pair.weak for pair in group)
        usd += fsum(pair.strong_usd for pair in group)
        done += len(group)
    return points


def worth(pairs: Sequence[Pair], *, seed: int = 0, resamples: int = RESAMPLES) -> Worth:
    """How much better confidence chooses than chance, over all shares that could be escalated."""
    import numpy as np  # noqa: PLC0415  for people at a desk; no call needs it

    ordered = sorted(pairs, key=lambda pair: pair.confidence)
    levels = np.array([pair.confidence for pair in ordered])
    gains = np.array([pair.strong - pair.weak for pair in ordered])
    starts = np.flatnonzero(np.r_[True, levels[1:] != levels[:-1]])  # of each confidence, among the ordered pairs

    def area(counts: "NDArray[np.float64]") -> float:
        """Between the line that `escalation` draws and the straight one, by the trapezoid rule; [pairs] -> a number."""
        share = np.cumsum(np.r_[0.0, np.add.reduceat(counts, starts)]) / counts.sum()  # [levels + 1]
        score = np.cumsum(np.r_[0.0, np.add.reduceat(counts * gains, starts)]) / counts.sum()
        above = score - share * score[-1]
        return float(np.sum(np.diff(share) * (above[1:] + above[:-1]) / 2))

    rng = np.random.default_rng(seed)
    count = len(ordered)
    drawn = (np.bincount(rng.integers(0, count, count), minlength=count).astype(float) for _ in range(resamples))
    found = sorted(map(area, drawn))
    tail = (1 - INTERVAL) / 2
    low, high = found[int(resamples * tail)], found[min(resamples - 1, int(resamples * (1 - tail)))]
    return Worth(area(np.ones(count)), low, high)


def isotonic(confidences: Sequence[float], right: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """The rising line nearest to the points, as `calibrated` takes it: pools of neighbours that would fall (PAV).

    A pool stands as one point, at its mean confidence; of many, `CURVE_POINTS` are kept.
    """
    pools: list[list[float]] = []  # [sum of confidences, sum of what was right, count]
    for _, group in groupby(sorted(zip(confidences, right, strict=True)), key=lambda pair: pair[0]):
        level = list(group)
        pools.append([fsum(x for x, _ in level), fsum(y for _, y in level), len(level)])
        while len(pools) > 1 and pools[-2][1] / pools[-2][2] >= pools[-1][1] / pools[-1][2]:
            last = pools.pop()
            pools[-1] = [first + second for first, second in zip(pools[-1], last, strict=True)]
    points = [(round(x / n, 4), round(y / n, 4)) for x, y, n in pools]
    points = [group[-1] for group in (list(g) for _, g in groupby(points, key=lambda point: point[0]))]
    if len(points) <= CURVE_POINTS:
        return tuple(points)
    step = (len(points) - 1) / (CURVE_POINTS - 1)
    return tuple(points[round(number * step)] for number in range(CURVE_POINTS))


def at_share(points: Sequence[Point], escalated: float) -> Point:
    """The point that escalates at least this share, as little more as there is."""
    return points[min(len(points) - 1, bisect_left([point.escalated for point in points], escalated - 1e-12))]


def check(pair: Pair) -> None:
    """Raises ValueError for a pair that cannot be."""
    for name in Pair.__slots__:
        value, most = getattr(pair, name), 1.0 if name in SHARES else MOST_USD
        if not 0 <= value <= most:  # nor is NaN
            words = "within 0 to 1" if name in SHARES else f"0 or more, up to {most:g}"
            raise ValueError(f"{name} is {value}, and must be {words}")


def _check_all(pairs: Sequence[Pair]) -> None:
    if len(pairs) < FEWEST:
        raise ValueError(f"{len(pairs)} pairs are too few: a threshold needs {FEWEST} at least")
    for number, pair in enumerate(pairs, start=1):
        try:
            check(pair)
        except ValueError as error:
            raise ValueError(f"pair {number}: {error}") from error
