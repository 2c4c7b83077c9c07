"""Fits the classifier: logistic regression on the features, its temperature and threshold from unseen sources.

Temperature and threshold come from predictions for sources that the fold's model has not seen (`out_of_source`), never
from random splits: those flatter every model on this data. One thread, fixed order: the same rows give the same bytes
on the same machine and library versions.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from conclave.router.classify import Weights
from conclave.router.encoder import StaticEncoder, excerpt
from conclave.router.features import SURFACE, code_space, codes, evidence, surface
from conclave.router.train.corpus import NOISE_SOURCE, SOURCE
from conclave.router.train.rows import Row, row_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

VECTOR_SCALE: Final = 2.0  # how cheaply a weight on each block is bought; these, and the penalty, were
CODES_SCALE: Final = 8.0  # chosen by leave-one-source-out (router/cards/classifier.md)
SURFACE_SCALE: Final = 1.0
PENALTY: Final = 5e-4  # on the squared weights, against the mean loss
ITERATIONS: Final = 50
RARE: Final = 2  # a code seen less often teaches nothing
FOLDS: Final = 5
SURE_ACCURACY: Final = 0.80  # what "sure" promises, on unseen sources
OWN_SOURCES: Final = frozenset({SOURCE, NOISE_SOURCE})  # written by us: always trained on, never judged on


@dataclass(frozen=True, slots=True)
class Matrix:
    """The features of many texts: `dense` [texts, 256 + measures] fp32, `lexical` [texts, codes] fp32, both scaled."""

    dense: "NDArray[np.float32]"
    lexical: csr_matrix

    def rows(self, numbers: Sequence[int]) -> "Matrix":
        """Some of the texts."""
        return Matrix(self.dense[numbers], self.lexical[numbers])


@dataclass(frozen=True, slots=True)
class Model:
    """Weights for the scaled features: `dense` and `lexical` as in `Matrix`, [features, categories]."""

    dense: "NDArray[np.float32]"
    lexical: "NDArray[np.float32]"
    bias: "NDArray[np.float32]"

    def scores(self, matrix: Matrix) -> "NDArray[np.float32]":
        """Uncalibrated scores, [texts, categories]."""
        found: NDArray[np.float32] = matrix.dense @ self.dense + matrix.lexical @ self.lexical + self.bias
        return found

    def weights(self) -> Weights:
        """The same model for unscaled features, as it is shipped."""
        vector_end = len(self.dense) - len(SURFACE)
        return Weights(
            vector=np.ascontiguousarray(self.dense[:vector_end] * np.float32(VECTOR_SCALE)),
            codes=self.lexical * np.float32(CODES_SCALE),
            surface=np.ascontiguousarray(self.dense[vector_end:] * np.float32(SURFACE_SCALE)),
            bias=self.bias,
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """One temperature for all categories; below `threshold` a classification is unsure."""

    temperature: float
    threshold: float


def features(encoder: StaticEncoder, texts: Sequence[str]) -> Matrix:
    """What the classifier sees of the texts."""
    dense = np.zeros((len(texts), encoder.dimensions + len(SURFACE)), dtype=np.float32)
    columns, values, starts = [], [], [0]
    for row, text in enumerate(map(excerpt, texts)):
        ids = encoder.tokens.ids(text)
        dense[row, : encoder.dimensions] = encoder.pool(ids) * VECTOR_SCALE
        dense[row, encoder.dimensions :] = np.array(surface(text, ids)) * SURFACE_SCALE
        columns.append(codes(ids, encoder.vocabulary))
        values.append(np.full(len(columns[-1]), evidence(len(columns[-1])) * CODES_SCALE, dtype=np.float32))
        starts.append(starts[-1] + len(columns[-1]))
    shape = (len(texts), code_space(encoder.vocabulary))
    return Matrix(dense, csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape))


def fit(matrix: Matrix, rows: Sequence[Row], categories: Sequence[str]) -> Model:
    """The model of least penalised log loss over the weighted rows."""
    seen = np.flatnonzero(np.bincount(matrix.lexical.indices, minlength=matrix.lexical.shape[1]) >= RARE)
    some = Matrix(matrix.dense, matrix.lexical[:, seen].tocsr())
    split = matrix.dense.shape[1]
    size = (split + len(seen) + 1, len(categories))
    with threadpool_limits(1):
        found = minimize(
            _objective(some, rows, categories),
            np.zeros(size[0] * size[1]),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": ITERATIONS, "maxcor": 10},
        )
    weights = found.x.reshape(size).astype(np.float32)
    lexical = np.zeros((matrix.lexical.shape[1], len(categories)), dtype=np.float32)
    lexical[seen] = weights[split:-1]
    return Model(dense=weights[:split], lexical=lexical, bias=weights[-1])


def _objective(
    matrix: Matrix, rows: Sequence[Row], categories: Sequence[str]
) -> Callable[["NDArray[np.float64]"], tuple[float, "NDArray[np.float64]"]]:
    """Mean weighted log loss with its penalty, and its gradient, as functions of all weights in one vector."""
    count = np.array(row_weights(rows), dtype=np.float32)[:, None]
    total = float(count.sum())
    place = {category: number for number, category in enumerate(categories)}
    truth = np.zeros((len(rows), len(categories)), dtype=np.float32)
    truth[np.arange(len(rows)), [place[row.category] for row in rows]] = 1
    transposed: Any = matrix.lexical.T.tocsr()
    split = matrix.dense.shape[1]

    def objective(vector: "NDArray[np.float64]") -> tuple[float, "NDArray[np.float64]"]:
        weights = vector.astype(np.float32).reshape(-1, len(categories))
        logits = matrix.dense @ weights[:split] + matrix.lexical @ weights[split:-1] + weights[-1]
        logits -= logits.max(axis=1, keepdims=True)
        powers = np.exp(logits)
        sums = powers.sum(axis=1, keepdims=True)
        loss = float((count * (np.log(sums) - (logits * truth).sum(axis=1, keepdims=True))).sum()) / total
        slope = (powers / sums - truth) * (count / total)  # [rows, categories]
        gradient = np.concatenate((matrix.dense.T @ slope, transposed @ slope, slope.sum(axis=0, keepdims=True)))
        free = vector.reshape(weights.shape)[:-1]  # the bias costs nothing
        full = gradient.astype(np.float64)
        full[:-1] += PENALTY * free
        return loss + PENALTY / 2 * float(np.square(free).sum()), full.ravel()

    return objective


def source_folds(rows: Sequence[Row]) -> list[frozenset[str]]:
    """Sources apart: each in one fold, those of one category in different folds, the largest first."""
    by_source: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.source not in OWN_SOURCES:
            by_source[row.source][row.category] += 1
    folds: list[set[str]] = [set() for _ in range(FOLDS)]
    load: list[Counter[str]] = [Counter() for _ in range(FOLDS)]
    for source in sorted(by_source, key=lambda name: (-by_source[name].total(), name)):
        mine = by_source[source]
        best = min(range(FOLDS), key=lambda fold: (sum(load[fold][name] for name in mine), load[fold].total(), fold))
        folds[best].add(source)
        load[best].update(mine)
    return [frozenset(fold) for fold in folds if fold]


def out_of_source(
    matrix: Matrix, rows: Sequence[Row], categories: Sequence[str]
) -> Iterator[tuple[list[int], "NDArray[np.float32]"]]:
    """For each fold of whole sources: its row numbers and their scores by a model of all other sources."""
    for held in source_folds(rows):
        inside = [number for number, row in enumerate(rows) if row.source not in held]
        outside = [number for number, row in enumerate(rows) if row.source in held]
        model = fit(matrix.rows(inside), [rows[number] for number in inside], categories)
        yield outside, model.scores(matrix.rows(outside))


def calibrate(logits: "NDArray[np.float32]", labels: "NDArray[np.int64]", counts: "NDArray[np.float64]") -> Calibration:
    """Temperature of least log loss, then the lowest threshold at which sure rows are right often enough."""
    numbers = np.arange(len(labels))
    grid = np.exp(np.linspace(math.log(0.5), math.log(5.0), 231))
    losses = [-(log_softmax(logits / t, axis=1)[numbers, labels] * counts).sum() for t in grid]
    temperature = float(round(grid[int(np.argmin(losses))], 4))
    confidence = np.exp(log_softmax(logits / temperature, axis=1).max(axis=1))
    right = logits.argmax(axis=1) == labels
    for threshold in np.arange(0.10, 0.96, 0.01):
        sure = confidence >= threshold
        if (counts * right * sure).sum() >= SURE_ACCURACY * (counts * sure).sum():
            return Calibration(temperature, float(round(threshold, 2)))
    return Calibration(temperature, 0.96)
