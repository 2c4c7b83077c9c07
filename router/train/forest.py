"""Shallow trees for several targets at once, by gradient boosting: every level of a tree asks all rows one question.

Such trees (Prokhorenkova et al. 2018, arXiv 1706.09516, "oblivious") are read by three comparisons and one look-up, all
trees together in one numpy expression, which a call can afford. Half of the rows teach each tree; the halves are drawn
from a seed, so the same data give the same trees.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import csr_matrix

from conclave.router.quality import TREE_DEPTH

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS: Final = 16
TREES: Final = 120
ROWS_PER_TREE: Final = 20  # fewer rows teach fewer trees
RATE: Final = 0.08
HOLD: Final = 40.0  # rows of zero gain that every leaf is averaged with
HALVES: Final = 8  # draws of half of the rows, used in turn


@dataclass(frozen=True, slots=True)
class Forest:
    """`feature` and `cut` [trees, depth], `leaf` [trees, 2 ** depth, targets]; a bit is set where feature > cut."""

    feature: "NDArray[np.int64]"
    cut: "NDArray[np.float32]"
    leaf: "NDArray[np.float32]"

    def predict(self, features: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Targets of rows, [rows, targets]."""
        found = np.zeros((len(features), self.leaf.shape[2]), dtype=np.float32)
        for feature, cut, leaf in zip(self.feature, self.cut, self.leaf, strict=True):
            found += leaf[(features[:, feature] > cut) @ (1 << np.arange(TREE_DEPTH))]
        return found


def bare(targets: int) -> Forest:
    """No tree: it says 0."""
    none = np.zeros((0, TREE_DEPTH))
    return Forest(none.astype(np.int64), none.astype(np.float32), np.zeros((0, 1 << TREE_DEPTH, targets), np.float32))


def boost(features: "NDArray[np.float32]", targets: "NDArray[np.float32]", *, seed: int) -> Forest:
    """Trees for `targets` [rows, targets] from `features` [rows, features]; the targets' means should be 0."""
    rows, width = features.shape
    trees = min(TREES, rows // ROWS_PER_TREE)
    count = targets.shape[1]
    cuts = [_cuts(features[:, column]) for column in range(width)]
    bins = np.stack([np.searchsorted(cut, features[:, f], side="left") for f, cut in enumerate(cuts)], axis=1)
    ones = csr_matrix(
        (np.ones(rows * width, np.float32), (bins + np.arange(width) * BINS).ravel(), np.arange(rows + 1) * width),
        shape=(rows, width * BINS),
    )
    draw = np.random.default_rng(seed)
    halves = [np.sort(draw.permutation(rows)[: max(1, rows // 2)]) for _ in range(HALVES)]
    turned = [ones[half].T.tocsr() for half in halves]
    allowed = np.zeros((width, BINS), dtype=bool)
    for column, cut in enumerate(cuts):
        allowed[column, : len(cut)] = True
    rest = targets.astype(np.float32).copy()
    chosen = np.zeros((trees, TREE_DEPTH), dtype=np.int64)
    at = np.zeros((trees, TREE_DEPTH), dtype=np.float32)
    leaves = np.zeros((trees, 1 << TREE_DEPTH, count), dtype=np.float32)
    for tree in range(trees):
        half = halves[tree % HALVES]
        place = np.zeros(rows, dtype=np.int64)
        for level in range(TREE_DEPTH):
            split = _best(turned[tree % HALVES], rest[half], place[half], 1 << level, allowed)
            if split is None:
                chosen[tree, level], at[tree, level] = 0, np.inf
                continue
            column, number = split
            chosen[tree, level], at[tree, level] = column, cuts[column][number]
            place += (bins[:, column] > number).astype(np.int64) << level
        held = np.bincount(place[half], minlength=1 << TREE_DEPTH)[:, None]
        sums = np.stack([np.bincount(place[half], rest[half, t], 1 << TREE_DEPTH) for t in range(count)], axis=1)
        leaves[tree] = RATE * sums / (held + HOLD)
        rest -= leaves[tree][place]
    return Forest(chosen, at, leaves)


def _cuts(values: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """At most BINS - 1 values that part the rows about evenly; none for a constant."""
    quantiles = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1], method="lower")
    distinct = np.unique(quantiles).astype(np.float32)
    cuts: NDArray[np.float32] = distinct[distinct < values.max()]
    return cuts


def _best(
    turned: csr_matrix,
    rest: "NDArray[np.float32]",
    place: "NDArray[np.int64]",
    leaves: int,
    allowed: "NDArray[np.bool_]",
) -> tuple[int, int] | None:
    """The feature and bin whose question, asked of every leaf, explains most of what is left."""
    count = rest.shape[1]
    spread = np.zeros((len(rest), leaves, count + 1), dtype=np.float32)
    spread[np.arange(len(rest)), place, :count] = rest
    spread[np.arange(len(rest)), place, count] = 1
    sums = np.asarray(turned @ spread.reshape(len(rest), -1)).reshape(*allowed.shape, leaves, count + 1)
    below = sums.cumsum(axis=1)
    above = below[:, -1:] - below
    score = (_explained(below, count) + _explained(above, count)).sum(axis=-1)  # [features, bins]
    score = np.where(allowed, score, -np.inf)
    best = int(score.argmax())
    return divmod(best, BINS) if np.isfinite(score.flat[best]) else None


def _explained(sums: "NDArray[np.float32]", count: int) -> "NDArray[np.float32]":
    """What leaves with these sums (the last one: rows) explain, [..., leaves]."""
    squares: NDArray[np.float32] = np.square(sums[..., :count]).sum(axis=-1) / (sums[..., count] + HOLD)
    return squares
