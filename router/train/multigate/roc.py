"""The area under the ROC curve: how often a row with a yes is scored above one with a no."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def auc(scores: "NDArray[np.float32]", truth: "NDArray[np.int64]") -> float:
    """Area under the ROC curve by ranks, ties halved; not a number where one class is missing."""
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # mean rank of ties, from 1
    return float((ranks[truth == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))
