"""How good each expert is at each category, from outcome data, and how sure that is: the policy's `routing.scores`.

A category with few rows says little: its score is drawn to what the expert scores on the whole, and to how hard the
category is for all experts, by as much as the rows leave open (empirical Bayes). A row may count for several categories
in part, by the classifier's probabilities. Reads no file and chooses nobody.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from conclave.router.budget import ANY
from conclave.router.outcomes import Graded, experts_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUNDS: Final = 30  # of estimating experts and categories in turn; the data at hand settle in 10
LEAST_SPREAD: Final = 1e-4  # variance between categories that is always allowed for: 0.01 in score
CELL_PRIOR_ROWS: Final = 20.0  # of the expert's usual variance, in the variance of one category
PRIOR_ROWS: Final = 2.0  # of variance 1/4, so that three right answers are no certainty


class Score(msgspec.Struct, frozen=True):
    """An expert's expected score in a category, its standard error, and how many rows it rests on."""

    score: float
    error: float
    rows: int


ScoreTable: TypeAlias = Mapping[str, Mapping[str, Score]]


def score_table(rows: Sequence[Graded], shares: Sequence[Mapping[str, float]]) -> ScoreTable:
    """Category -> expert -> score; `shares[i]` says which categories row i counts for, 1 in all. ANY is over all rows.

    Every expert gets a score in every category: where it was never asked, what it scores elsewhere.
    """
    import numpy as np  # noqa: PLC0415  imported where a table is made

    experts = experts_of(rows)
    categories = sorted({name for share in shares for name in share})
    place = {name: number for number, name in enumerate(experts)}
    scores = np.full((len(rows), len(experts)), np.nan)
    weights = np.zeros((len(rows), len(categories)))
    for number, (row, share) in enumerate(zip(rows, shares, strict=True)):
        scores[number, [place[name] for name in row.scores]] = list(row.scores.values())
        weights[number] = [share.get(name, 0.0) for name in categories]
    found = shrunk(scores, weights)
    table = {
        category: {name: found.cell(c, e) for e, name in enumerate(experts)} for c, category in enumerate(categories)
    }
    return {**table, ANY: {name: found.whole(e) for e, name in enumerate(experts)}}


def certain(rows: Sequence[Graded]) -> list[dict[str, float]]:
    """Each row wholly in the category that it names; raises ValueError with the first that names none."""
    for number, row in enumerate(rows, start=1):
        if row.category is None:
            raise ValueError(f"row {number} names no category")
    return [{str(row.category): 1.0} for row in rows]


class Shrunk(msgspec.Struct, frozen=True):
    """The estimates: `score`, `error`, `counts` [categories, experts]; `mean` and `mean_error` [experts]."""

    score: "NDArray[np.float64]"
    error: "NDArray[np.float64]"
    counts: "NDArray[np.float64]"
    mean: "NDArray[np.float64]"
    mean_error: "NDArray[np.float64]"
    asked: "NDArray[np.int64]"

    def cell(self, category: int, expert: int) -> Score:
        """One category's."""
        score, error = self.score[category, expert], self.error[category, expert]
        return Score(round(float(score), 6), round(float(error), 6), round(float(self.counts[category, expert])))

    def whole(self, expert: int) -> Score:
        """Over all rows."""
        score, error = float(self.mean[expert]), float(self.mean_error[expert])
        return Score(round(score, 6), round(error, 6), int(self.asked[expert]))


def shrunk(scores: "NDArray[np.float64]", weights: "NDArray[np.float64]") -> Shrunk:
    """Scores [rows, experts], NaN where not asked, and each row's weights [rows, categories], to estimates.

    Cell mean m of n rows with variance v, drawn to the prior p = expert + category by the spread t between cells:
    score = (m n/v + p/t) / (n/v + 1/t), error^2 = 1 / (n/v + 1/t) + the prior's own doubt (Morris 1983).
    """
    import numpy as np  # noqa: PLC0415

    asked = ~np.isnan(scores)
    known = np.where(asked, scores, 0.0)
    counts = weights.T @ asked  # [categories, experts]
    sums = weights.T @ known
    means = sums / np.maximum(counts, 1e-12)
    rows = asked.sum(axis=0)
    of_expert = known.sum(axis=0) / np.maximum(rows, 1)
    squares = (weights.T @ (known * known)) - counts * means**2  # inside the cells, so that categories do not count
    variance = (squares.sum(axis=0) + PRIOR_ROWS / 4) / (counts.sum(axis=0) + PRIOR_ROWS)  # [experts]
    expert, category = of_expert.copy(), np.zeros(len(means))
    mass = counts.sum(axis=0)
    inside = (squares + CELL_PRIOR_ROWS * variance) / (counts + CELL_PRIOR_ROWS)  # [categories, experts]
    hold = counts / inside  # precision of each cell
    spread = _spread(means - expert, hold)
    for _ in range(ROUNDS):
        off = means - expert
        category = (hold * off).sum(axis=1) / (hold.sum(axis=1) + 1.0 / spread)
        expert = (counts * (means - category[:, None])).sum(axis=0) / np.maximum(mass, 1e-12)
        spread = _spread(category[:, None], np.minimum(hold.sum(axis=1, keepdims=True), 1e12))
    prior = np.clip(expert + category[:, None], 0.0, 1.0)
    between = _spread(means - prior, hold)
    precision = hold + 1.0 / between
    own = hold / precision  # the share of what the cell itself says
    doubt = 1.0 / (hold.sum(axis=1, keepdims=True) + 1.0 / spread) + variance / np.maximum(rows, 1)
    share = weights.sum(axis=0) / max(weights.sum(), 1e-12)
    return Shrunk(
        score=np.clip(own * means + (1 - own) * prior, 0.0, 1.0),
        error=np.sqrt(1.0 / precision + (1 - own) ** 2 * doubt),
        counts=counts,
        mean=np.clip(expert + share @ category, 0.0, 1.0),
        mean_error=np.sqrt(variance / np.maximum(rows, 1)),
        asked=rows,
    )


def _spread(off: "NDArray[np.float64]", hold: "NDArray[np.float64]") -> float:
    """The variance between cells beyond what their own rows explain (DerSimonian, Laird 1986, eq. 8)."""
    import numpy as np  # noqa: PLC0415

    filled = hold > 0
    if np.count_nonzero(filled) < 2:  # noqa: PLR2004  one cell has nothing beside it
        return LEAST_SPREAD
    weight = np.where(filled, hold, 0.0)
    total = weight.sum()
    surplus = (weight * off**2).sum() - (np.count_nonzero(filled) - 1)
    scale = total - (weight**2).sum() / total
    return max(LEAST_SPREAD, float(surplus / scale)) if scale > 0 else LEAST_SPREAD
