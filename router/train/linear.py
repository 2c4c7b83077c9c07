"""Two linear models of the words: ridge regression by conjugate gradients, and topics as the classifier learns them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from conclave.router.train.descent import descend

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

STEPS: Final = 40  # conjugate gradients; the residual falls by 1e-3 in 15 to 25 on rows of length 1
ENOUGH: Final = 1e-3
WORD_SCALE: Final = 32.0  # how cheaply a word's weight is bought: topics are finer than categories and live by words
DENSE_SCALE: Final = 2.0
PENALTY: Final = 2e-4
RATE: Final = 0.1
PASSES: Final = 5


def ridge(
    words: "csr_matrix", targets: "NDArray[np.float32]", penalties: "NDArray[np.float32]"
) -> "NDArray[np.float32]":
    """Weights [words, targets] of least error^2 + penalty * weights^2, a penalty a target (Hestenes, Stiefel 1952)."""
    turned: Any = words.T.tocsr()
    rest = np.asarray(turned @ targets, dtype=np.float32)
    weights = np.zeros_like(rest)
    way = rest.copy()
    square = start = (rest * rest).sum(axis=0)
    for _ in range(STEPS):
        step = turned @ (words @ way) + penalties * way
        length = square / np.maximum((way * step).sum(axis=0), 1e-30)
        weights += length * way
        rest -= length * step
        smaller = (rest * rest).sum(axis=0)
        if (smaller <= ENOUGH**2 * start).all():
            break
        way = rest + smaller / np.maximum(square, 1e-30) * way
        square = smaller
    return weights


@dataclass(frozen=True, slots=True)
class Naming:
    """Recognises topics: weights of the words [words, topics], of vector and surface [dense, topics], and bias."""

    words: "NDArray[np.float32]"
    dense: "NDArray[np.float32]"
    bias: "NDArray[np.float32]"

    def scores(self, words: "csr_matrix", dense: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """[rows, topics], before they become probabilities."""
        return np.asarray(words @ self.words + dense @ self.dense + self.bias, dtype=np.float32)


def topics(words: "csr_matrix", dense: "NDArray[np.float32]", topic: "NDArray[np.int64]", count: int) -> Naming:
    """A logistic regression of the rows' topics; rows of topic -1 teach nothing."""
    known = np.flatnonzero(topic >= 0)
    some = words[known]
    truth = np.zeros((len(known), count), dtype=np.float32)
    truth[np.arange(len(known)), topic[known]] = 1
    found = Naming(
        np.zeros((words.shape[1], count), dtype=np.float32),
        np.zeros((dense.shape[1], count), dtype=np.float32),
        np.zeros(count, dtype=np.float32),
    )
    if not count:
        return found
    draw = np.random.default_rng(0)
    descend(
        np.ascontiguousarray(dense[known] * DENSE_SCALE),
        some.indptr.astype(np.int64),
        some.indices.astype(np.int32),
        (some.data * WORD_SCALE).astype(np.float32),
        truth,
        np.ones(len(known), dtype=np.float32),
        np.stack([draw.permutation(len(known)) for _ in range(PASSES)]),
        np.float32(PENALTY),
        np.float32(RATE),
        found.dense,
        found.words,
        found.bias,
    )
    return Naming(found.words * np.float32(WORD_SCALE), found.dense * np.float32(DENSE_SCALE), found.bias)
