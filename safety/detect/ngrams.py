"""What the learned detectors see of a text: tokens, token pairs and triples, summed over sliding windows.

The model is linear and a window's score is a sum over its tokens, so that running sums give all windows of all heads in
one pass: linear in the text, whatever its length. `FEATURES` names the version; a change needs new artifacts.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

FEATURES: Final = "tokens+pairs+triples/1"
PAIR_BUCKETS: Final = 1 << 17
TRIPLE_BUCKETS: Final = 1 << 17
FEW_TOKENS: Final = 6  # a window of two words must not be as sure as a sentence


def code_space(vocabulary: int) -> int:
    """How many codes there are."""
    return vocabulary + PAIR_BUCKETS + TRIPLE_BUCKETS


def codes(ids: "Sequence[int]", vocabulary: int) -> "NDArray[np.int64]":
    """For each token the codes of itself, of the pair and of the triple that end there, [tokens, 3].

    The first token has no pair and the first two no triple: these are -1, which the table's last row (zeros) answers.
    """
    import numpy as np  # noqa: PLC0415  numpy is imported where it is first needed

    tokens = np.array(ids, dtype=np.int64)
    found = np.full((len(tokens), 3), -1, dtype=np.int64)
    found[:, 0] = tokens
    pair = tokens[:-1] * 1_000_003 + tokens[1:] * 8_191
    found[1:, 1] = (pair >> 3) % PAIR_BUCKETS + vocabulary
    triple = pair[:-1] * 31 + tokens[2:] * 131_071
    found[2:, 2] = (triple >> 4) % TRIPLE_BUCKETS + vocabulary + PAIR_BUCKETS
    return found


def windows(tokens: int, size: int) -> "NDArray[np.int64]":
    """Starts and ends of windows of `size` tokens that overlap by half and cover all, [windows, 2]."""
    import numpy as np  # noqa: PLC0415

    if tokens <= size:
        return np.array([[0, tokens]], dtype=np.int64)
    starts = np.arange(0, tokens - size // 2, size // 2, dtype=np.int64)
    return np.stack((starts, np.minimum(starts + size, tokens)), axis=1)


def weight(tokens: "NDArray[np.int64]") -> "NDArray[np.float32]":
    """What each token of a window counts: less, the more there are."""
    import numpy as np  # noqa: PLC0415

    return (1.0 / np.sqrt(tokens + FEW_TOKENS)).astype(np.float32)
