"""Fits the classifier: multinomial logistic regression on the features, a few passes over smoothed labels.

What is said of a model comes from predictions for sources that the fold's model has not seen (`out_of_source`), never
from random splits: those flatter every model on this data. One thread, fixed order: the same rows give the same bytes
on the same machine and library versions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import csr_matrix

from conclave.router.classify import Weights
from conclave.router.encoder import StaticEncoder, excerpt
from conclave.router.features import SURFACE, code_space, codes, evidence, surface
from conclave.router.train.corpus import NOISE_SOURCE, SOURCE
from conclave.router.train.descent import descend
from conclave.router.train.rows import Row, row_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

VECTOR_SCALE: Final = 2.0  # how cheaply a weight on each block is bought; these, and the penalty, were
CODES_SCALE: Final = 8.0  # chosen by leave-one-source-out (router/cards/classifier.md)
SURFACE_SCALE: Final = 1.0
PENALTY: Final = 5e-4  # on the squared weights, against the mean loss
RATE: Final = 0.1
PASSES: Final = 5
SMOOTHING: Final = 0.1  # of a label's weight is spread over all: sources disagree about what belongs where
ORDER_SEED: Final = 1
STEPS: Final = 32767  # of a code's weight to either side, in the shipped file
RARE: Final = 2  # a code seen less often teaches nothing
FOLDS: Final = 5
OWN_FACTORS: Final = {SOURCE: 5.0}  # our text is closer to real prompts than an examination is
OWN_SOURCES: Final = frozenset({SOURCE, NOISE_SOURCE})  # written by us: always trained on, never judged on


@dataclass(frozen=True, slots=True)
class Matrix:
    """The features of texts: `dense` [texts, dimensions + measures] fp32, `lexical` [texts, codes] fp32; scaled."""

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
        codes = self.lexical * np.float32(CODES_SCALE)
        unit = float(np.abs(codes).max()) / STEPS or 1.0
        return Weights(
            vector=np.ascontiguousarray(self.dense[:vector_end] * np.float32(VECTOR_SCALE)),
            codes=np.rint(codes / np.float32(unit)).astype(np.int16),
            unit=unit,
            surface=np.ascontiguousarray(self.dense[vector_end:] * np.float32(SURFACE_SCALE)),
            bias=self.bias,
        )


def features(encoder: StaticEncoder, texts: Sequence[str], vectors: "NDArray[np.float32] | None" = None) -> Matrix:
    """What the classifier sees of the texts; `vectors` are theirs by another encoder, [texts, its dimensions]."""
    wide = encoder.dimensions if vectors is None else vectors.shape[1]
    dense = np.zeros((len(texts), wide + len(SURFACE)), dtype=np.float32)
    columns, values, starts = [], [], [0]
    for row, text in enumerate(map(excerpt, texts)):
        ids = encoder.tokens.ids(text)
        dense[row, :wide] = (encoder.pool(ids) if vectors is None else vectors[row]) * VECTOR_SCALE
        dense[row, wide:] = np.array(surface(text, ids)) * SURFACE_SCALE
        columns.append(codes(np.array(ids, dtype=np.int64), encoder.vocabulary))
        values.append(np.full(len(columns[-1]), evidence(len(columns[-1])) * CODES_SCALE, dtype=np.float32))
        starts.append(starts[-1] + len(columns[-1]))
    shape = (len(texts), code_space(encoder.vocabulary))
    return Matrix(dense, csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape))


def fit(matrix: Matrix, rows: Sequence[Row], categories: Sequence[str]) -> Model:
    """A model of low penalised log loss over the weighted rows."""
    place = {category: number for number, category in enumerate(categories)}
    truth = np.full((len(rows), len(categories)), SMOOTHING / len(categories), dtype=np.float32)
    truth[np.arange(len(rows)), [place[row.category] for row in rows]] += 1 - SMOOTHING
    taught = np.bincount(matrix.lexical.indices, minlength=matrix.lexical.shape[1]) >= RARE
    draw = np.random.default_rng(ORDER_SEED)
    model = Model(
        dense=np.zeros((matrix.dense.shape[1], len(categories)), dtype=np.float32),
        lexical=np.zeros((matrix.lexical.shape[1], len(categories)), dtype=np.float32),
        bias=np.zeros(len(categories), dtype=np.float32),
    )
    descend(
        np.ascontiguousarray(matrix.dense),
        matrix.lexical.indptr.astype(np.int64),
        matrix.lexical.indices.astype(np.int32),
        (matrix.lexical.data * taught[matrix.lexical.indices]).astype(np.float32),
        truth,
        np.array(row_weights(rows, OWN_FACTORS), dtype=np.float32),
        np.stack([draw.permutation(len(rows)) for _ in range(PASSES)]),
        np.float32(PENALTY),
        np.float32(RATE),
        model.dense,
        model.lexical,
        model.bias,
    )
    return model


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
