"""The ways to choose an expert that the benchmark compares, each made from the training rows of one fold.

Whatever a way has to decide (a table, a margin, what a cheaper expert may lose) it decides on training rows, and where
models are involved, on those training rows that the models had not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from conclave.router.budget import Infeasible, Problem
from conclave.router.choose import threshold
from conclave.router.mapping import solve
from conclave.router.scores import Score, shrunk
from conclave.router.train.quality import Fitted, Material, fit, predict

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUDGET_SHARE: Final = 0.6  # of the best expert's cost: what CoE may spend on average, and thrifty is meant to save
KEEP: Final = (
    0.98  # of the best expert's accuracy that thrifty must keep, by one standard error on unseen training rows
)
MARGINS: Final = (0.0, 0.01, 0.02, 0.04, 0.08)  # of expected gain, below which the best single expert is asked


@dataclass(frozen=True, slots=True)
class Fold:
    """What one fold is made of; `labels` and `topics` name each row's category and its finest name, if it has them."""

    held: Material
    train: "NDArray[np.int64]"
    test: "NDArray[np.int64]"
    labels: Sequence[str | None]
    topics: Sequence[str | None]
    costs: "NDArray[np.float64] | None"  # [experts]

    @property
    def best(self) -> int:
        """The expert with the best mean on the training rows."""
        return int(self.held.scores[self.train].mean(axis=0).argmax())

    @property
    def probabilities(self) -> "NDArray[np.float32]":
        """The classifier's, [rows, categories]."""
        return self.held.form[:, self.held.form.shape[1] - len(self.held.categories) :]


def ways(fold: Fold, *, apart: bool) -> tuple[dict[str, "NDArray[np.int64]"], "NDArray[np.float32]"]:
    """The expert that each way chooses for each test row, by the way's name; and the head's expected scores."""
    best = np.full(len(fold.test), fold.best)
    scores = fold.held.scores[fold.test]
    found = {"best single": best}
    for name, labels in (("known category", fold.labels), ("known topic", fold.topics)):
        if any(label is not None for label in labels):
            found[name] = by_label(fold, labels)
    found["predicted category"] = by_category(fold)
    found["CoE"] = composition(fold)
    head = fit(fold.held.rows(fold.train), apart=apart)
    unseen = fold.held.rows(fold.test)
    expected = predict(head.tensors, unseen)
    words = np.asarray(unseen.words[:, head.tensors.seen] @ head.tensors.lexical)
    found["per query, words alone"] = (head.tensors.mean + words[:, : scores.shape[1]]).argmax(axis=1)
    found["blend"] = unless_sure(expected, fold.best, margin(head, fold))
    if fold.costs is not None:
        found["blend, thrifty"] = (expected - thrift(head, fold) * fold.costs).argmax(axis=1)
    found["oracle"] = (scores - 1e-6 * _relative(fold)).argmax(axis=1)
    return found, expected


def by_label(fold: Fold, labels: Sequence[str | None]) -> "NDArray[np.int64]":
    """A map of the labels, from the training rows; rows of a label that they lack go to the best expert."""
    names = sorted({str(labels[row]) for row in fold.train if labels[row] is not None})
    place = {name: number for number, name in enumerate(names)}
    weights = np.zeros((len(fold.train), len(names)))
    for number, row in enumerate(fold.train):
        if labels[row] is not None:
            weights[number, place[str(labels[row])]] = 1
    table = shrunk(fold.held.scores[fold.train], weights).score.argmax(axis=1)
    return np.array([table[place[str(labels[r])]] if str(labels[r]) in place else fold.best for r in fold.test])


def by_category(fold: Fold) -> "NDArray[np.int64]":
    """A map of the classifier's categories, each training row counted by its probabilities."""
    table = shrunk(fold.held.scores[fold.train], fold.probabilities[fold.train].astype(float))
    chosen: NDArray[np.int64] = table.score.argmax(axis=1)[fold.probabilities[fold.test].argmax(axis=1)]
    return chosen


def composition(fold: Fold) -> "NDArray[np.int64]":
    """Composition of Experts: the mapping within a budget of `BUDGET_SHARE` of the best expert's cost.

    Without costs there is no budget, and the best expert serves where the category is unsure.
    """
    shares = fold.probabilities[fold.train].astype(float)
    found = shrunk(fold.held.scores[fold.train], shares)
    names, categories = fold.held.experts, fold.held.categories
    scores = {c: {e: found.cell(i, j) for j, e in enumerate(names)} for i, c in enumerate(categories)}
    table = _solved(fold, scores, dict(zip(categories, shares.sum(axis=0).tolist(), strict=True)))
    asked = fold.probabilities[fold.test]
    routed: NDArray[np.int64] = table[asked.argmax(axis=1)]
    if fold.costs is not None:  # the budget is the mapping's; a strong expert for unsure questions would break it
        return routed
    mine, observed = fold.probabilities[fold.train], fold.held.scores[fold.train]
    cut = threshold(
        mine.max(axis=1).tolist(),
        observed[np.arange(len(mine)), table[mine.argmax(axis=1)]].tolist(),
        observed[:, fold.best].tolist(),
    ).below
    return np.where(asked.max(axis=1) < cut, fold.best, routed)


def _solved(fold: Fold, scores: Mapping[str, Mapping[str, Score]], weights: Mapping[str, float]) -> "NDArray[np.int64]":
    names = fold.held.experts
    costs = dict.fromkeys(names, 0.0) if fold.costs is None else dict(zip(names, fold.costs.tolist(), strict=True))
    limits = {} if fold.costs is None else {"usd_per_call": BUDGET_SHARE * float(fold.costs[fold.best])}
    problem = Problem(
        experts={name: {"usd_per_call": cost} for name, cost in costs.items()},
        scores=scores,
        weights=weights,
        limits=limits,
    )
    try:
        table = solve(problem, priced=False).table
    except Infeasible:  # the best expert is among the cheapest: nothing to save
        return np.full(len(scores), fold.best)
    return np.array([names.index(table[category]) for category in scores])


def margin(head: Fitted, fold: Fold) -> float:
    """The expected gain from which leaving the best expert served best on rows the head had not seen."""
    scores = fold.held.scores[fold.train][head.unseen]
    rows = np.arange(len(scores))
    return max(MARGINS, key=lambda one: (scores[rows, unless_sure(head.expected, fold.best, one)].mean(), one))


def unless_sure(expected: "NDArray[np.float32]", best: int, least: float) -> "NDArray[np.int64]":
    """The expert of the highest expected score, if it is `least` above the best single one's."""
    chosen = expected.argmax(axis=1)
    gain = expected[np.arange(len(expected)), chosen] - expected[:, best]
    return np.where(gain > least, chosen, best)


def thrift(head: Fitted, fold: Fold) -> float:
    """Score per unit of cost: the most that keeps KEEP of the best expert's accuracy on rows the head had not seen."""
    if fold.costs is None:
        return 0.0
    scores = fold.held.scores[fold.train][head.unseen]
    rows = np.arange(len(scores))
    base = scores[:, fold.best]
    kept = 0.0
    for rate in np.geomspace(1e-3, 3.0, 60) / max(fold.costs.max(), 1e-12):
        above = scores[rows, (head.expected - rate * fold.costs).argmax(axis=1)] - KEEP * base
        if above.mean() >= above.std() / np.sqrt(len(above)):
            kept = float(rate)
    return kept


def _relative(fold: Fold) -> "NDArray[np.float64]":
    return np.zeros(len(fold.held.experts)) if fold.costs is None else fold.costs / fold.costs.max()
