"""Texts to window rows: what a window of tokens shows the detectors, and whether it holds an attack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import csr_matrix

from conclave.safety.detect.ngrams import code_space, codes, tokens_of, weight, windows

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
    columns: list[NDArray[np.int32]] = []
    values: list[NDArray[np.float32]] = []
    lengths: list[NDArray[np.int64]] = []
    of, attack = [], []
    for number, example in enumerate(examples):
        parts = [
            tokens_of(part[:TEXT_CHARS], ids, vocabulary) for part in (example.before, example.attack, example.after)
        ]
        start, end = len(parts[0]), len(parts[0]) + len(parts[1])
        tokens = [token for part in parts for token in part]
        seen = codes(tokens, vocabulary) if tokens else np.zeros((0, 3), dtype=np.int64)
        spans = np.concatenate(
            [windows(len(tokens), size) for at, size in enumerate(sizes) if not at or len(tokens) > sizes[at - 1]]
        )  # a text that fits the smaller window is one window, whatever the size
        found = _rows(seen, spans)
        columns.append(found.columns)
        values.append(found.values)
        lengths.append(found.lengths)
        of += [number] * len(spans)
        for first, last in spans.tolist():
            attack.append(_held(min(last, end) - max(first, start), end - start, last - first))
    pointers = np.concatenate(([0], np.cumsum(np.concatenate(lengths))))
    rows = csr_matrix((np.concatenate(values), np.concatenate(columns), pointers), (len(of), code_space(vocabulary)))
    rows.sum_duplicates()
    return Matrix(rows, np.array(of), np.array(attack, dtype=np.int8), len(examples))


@dataclass(frozen=True, slots=True)
class Rows:
    """Codes and values of windows, one window behind the other, and how many are each one's."""

    columns: "NDArray[np.int32]"
    values: "NDArray[np.float32]"
    lengths: "NDArray[np.int64]"


def _rows(seen: "NDArray[np.int64]", spans: "NDArray[np.int64]") -> Rows:
    sizes = spans[:, 1] - spans[:, 0]
    window = np.repeat(np.arange(len(spans)), sizes)
    inside = np.arange(len(window)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # a token's place in its window
    found = seen[spans[window, 0] + inside]  # [tokens of all windows, 3]
    found[inside == 0, 1:] = -1  # a window knows nothing of the tokens before it
    found[inside == 1, 2] = -1
    counts = np.repeat(weight(sizes)[window], 3).reshape(-1, 3)
    known = found >= 0
    lengths = np.bincount(window, known.sum(axis=1), len(spans)).astype(np.int64)
    return Rows(found[known].astype(np.int32), counts[known], lengths)


def _held(overlap: int, attack: int, window: int) -> int:
    if attack == 0 or overlap <= 0:
        return 0
    return 1 if overlap >= OVERLAP * min(attack, window) else -1
