"""How good a choice of experts was: accuracy and gain with bootstrap intervals, and the two curves of RouteLLM.

Pure arithmetic on arrays of scores, one row a question. Knows no router.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS: Final = 2000  # of a bootstrap; the ends of a 95 % interval are then good to a tenth of its width
FEW_VALUES: Final = 300  # distinct values of a mean that are drawn by their counts, all draws at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap(values: "NDArray[np.float64]", *, seed: int = 0) -> Interval:
    """The mean of rows, and where 95 % of the means of resampled rows lie (Efron 1979, percentile)."""
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    draw = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= FEW_VALUES:
        means = draw.multinomial(len(values), counts / len(values), size=DRAWS) @ distinct / len(values)
    else:
        means = np.array([values[draw.integers(0, len(values), len(values))].mean() for _ in range(DRAWS)])
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high))


def recovered(
    prefer: "NDArray[np.float64]", weak: "NDArray[np.float64]", strong: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """Share of the gap between two experts that is recovered when the k most preferred rows go to the strong one.

    [rows + 1] for k = 0..rows: 0 at first, 1 at last, above 1 where the weak one is better on the rest (Ong et al.
    2024, arXiv 2406.18665, eq. 4). Rows of equal preference share what they bring. Raises ValueError without a gap.
    """
    gain = strong - weak
    if not gain.sum() > 0:
        raise ValueError("the strong expert is not better than the weak one: there is no gap to recover")
    _, group = np.unique(-prefer, return_inverse=True)
    evened = (np.bincount(group, gain) / np.bincount(group))[group]
    order = np.argsort(group, kind="stable")
    curve: NDArray[np.float64] = np.concatenate(([0.0], np.cumsum(evened[order]))) / gain.sum()
    return curve


def apgr(curve: "NDArray[np.float64]") -> float:
    """Average performance gap recovered: the area below `recovered`; 0.5 is chance."""
    return float(np.trapezoid(curve, dx=1.0 / (len(curve) - 1)))


def cpt(curve: "NDArray[np.float64]", share: float) -> float:
    """Call-performance threshold: the least share of calls to the strong expert that recovers `share` of the gap."""
    return float(np.argmax(curve >= share - 1e-12)) / (len(curve) - 1)
