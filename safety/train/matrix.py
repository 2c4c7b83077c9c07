"""Texts to window rows: what a window of tokens shows the detectors, and whether it holds an attack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import csr_matrix

from conclave.safety.detect.ngrams import code_space, codes, weight, windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from conclave.safety.train.sources import Example

TEXT_CHARS: Final = 4_000  # of a part of a text
OVERLAP: Final = 0.5  # of the attack or of the window: less, and the window is neither

Ids = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows are windows, [windows, codes]; `of` says of which example. `attack`: 1 holds one, 0 does not, -1 unclear."""

    rows: "csr_matrix"
    of: "NDArray[np.int64]"
    attack: "NDArray[np.int8]"
    examples: int

    def best(self, scores: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Each example's highest score of a window."""
        found = np.full(self.examples, -1e9)
        np.maximum.at(found, self.of, scores)
        return found

    def take(self, examples: "NDArray[np.bool_]") -> "Matrix":
        """The rows of some examples, numbered anew."""
        kept = examples[self.of]
        numbers = np.cumsum(examples) - 1
        return Matrix(self.rows[kept], numbers[self.of[kept]], self.attack[kept], int(examples.sum()))


def matrix(examples: "Sequence[Example]", sizes: Sequence[int], ids: Ids, vocabulary: int) -> Matrix:
    """The windows of the given sizes of all examples."""
    columns: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float32]] = []
    pointers, of, attack = [0], [], []
    for number, example in enumerate(examples):
        parts = [ids(part[:TEXT_CHARS]) for part in (example.before, example.attack, example.after)]
        start, end = len(parts[0]), len(parts[0]) + len(parts[1])
        tokens = [token for part in parts for token in part]
        seen = codes(tokens, vocabulary) if tokens else np.zeros((0, 3), dtype=np.int64)
        for size in sizes:
            for first, last in windows(len(tokens), size).tolist():
                found = seen[first:last].copy()
                found[:1, 1:] = -1  # a window knows nothing of the token before it
                found[1:2, 2] = -1
                unique, counts = np.unique(found[found >= 0], return_counts=True)
                columns.append(unique)
                values.append((counts * weight(np.array(last - first))).astype(np.float32))
                pointers.append(pointers[-1] + len(unique))
                of.append(number)
                attack.append(_held(min(last, end) - max(first, start), end - start, last - first))
    rows = csr_matrix((np.concatenate(values), np.concatenate(columns), pointers), (len(of), code_space(vocabulary)))
    return Matrix(rows, np.array(of), np.array(attack, dtype=np.int8), len(examples))


def _held(overlap: int, attack: int, window: int) -> int:
    if attack == 0 or overlap <= 0:
        return 0
    return 1 if overlap >= OVERLAP * min(attack, window) else -1
