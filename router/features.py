"""What the classifier looks at beside the sentence vector: words in order, and the look of the text.

`codes` numbers the lexical features of a text (tokens, hashed token pairs, the tokens it begins and ends with), each
once; `surface` measures a few properties of the characters. Both are pure functions of the text and are part of the
artifact's contract: a change here needs a new artifact (`FEATURES` names the version).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEATURES: Final = "tokens+pairs+ends+surface/2"
PAIR_BUCKETS: Final = 1 << 17  # a power of two, as below; collisions of pairs: 1 in 5 at 30,000 frequent ones
END_BUCKETS: Final = 1 << 13
END_TOKENS: Final = 6  # an instruction opens a prompt or closes it
FEW_CODES: Final = 8  # a text of one word must not be as sure as a sentence

SURFACE: Final = (
    "length", "lines", "digits", "capitals", "code marks", "code fence", "question mark at the end", "quotation marks",
    "lower-case start", "mathematics", "tokens per character", "accented letters", "other scripts", "CJK", "shortness",
)  # fmt: skip

_ACCENTED: Final = range(0xC0, 0x250)  # Latin-1 Supplement, Latin Extended-A and -B
_PUNCTUATION: Final = range(0x2000, 0x2C00)  # dashes, typographic quotes, arrows, mathematical symbols
_CJK: Final = (range(0x3040, 0x3100), range(0x3400, 0xA000), range(0xAC00, 0xD7B0))
_DIGITS: Final = b"0123456789"
_CAPITALS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CODE_MARKS: Final = b"{}[]();=<>_\\/|&#"
_MATHEMATICS: Final = b"+*^=%"


def codes(tokens: "NDArray[np.int64]", vocabulary: int) -> "NDArray[np.int64]":
    """Distinct lexical features of a text's tokens, sorted; tokens first, then pairs, then both ends."""
    import numpy as np  # noqa: PLC0415

    every = np.concatenate((tokens, pairs(tokens, vocabulary), *ends(tokens, vocabulary)))
    every.sort()
    keep = np.ones(len(every), dtype=bool)
    np.not_equal(every[1:], every[:-1], out=keep[1:])
    return every[keep]


def pairs(tokens: "NDArray[np.int64]", vocabulary: int) -> "NDArray[np.int64]":
    """Codes of neighbouring tokens, [tokens - 1]."""
    return ((tokens[:-1] * 1_000_003 + tokens[1:] * 8191 >> 3) & PAIR_BUCKETS - 1) + vocabulary


def ends(tokens: "NDArray[np.int64]", vocabulary: int) -> tuple["NDArray[np.int64]", "NDArray[np.int64]"]:
    """Codes of the first and of the last `END_TOKENS` tokens."""
    start = vocabulary + PAIR_BUCKETS
    opening = (tokens[:END_TOKENS] * 2 * 2_654_435_761 >> 7 & END_BUCKETS - 1) + start
    closing = ((tokens[-END_TOKENS:] * 2 + 1) * 2_654_435_761 >> 7 & END_BUCKETS - 1) + start
    return opening, closing


def evidence(codes_found: int) -> float:
    """What each lexical feature counts: less, the more there are, and not much where there are hardly any."""
    return 1.0 / math.sqrt(codes_found + FEW_CODES)


def code_space(vocabulary: int) -> int:
    """How many codes there are."""
    return vocabulary + PAIR_BUCKETS + END_BUCKETS


def surface(text: str, ids: Sequence[int]) -> list[float]:
    """The measures named in `SURFACE`, each within 0..1."""
    raw = text.encode("utf-8", "replace")
    size = len(raw) or 1
    count = raw.count

    def share(marks: bytes, scale: float) -> float:
        return min(1.0, (len(raw) - len(raw.translate(None, marks))) / size * scale)

    return [
        min(size, 4096) ** 0.5 / 64,
        min(count(b"\n"), 32) ** 0.5 / 5.7,
        share(_DIGITS, 5),
        share(_CAPITALS, 5),
        share(_CODE_MARKS, 8),
        float(b"```" in raw),
        float(raw.rstrip().endswith(b"?")),
        min(1.0, count(b'"') / 6),
        float(raw[:1].islower()),
        share(_MATHEMATICS, 20),
        min(1.0, len(ids) / size * 2),
        *((0.0, 0.0, 0.0) if text.isascii() else _scripts(text)),
        1.0 / (1 + size / 20),
    ]


def _scripts(text: str) -> tuple[float, float, float]:
    """Shares of accented Latin letters, of letters of other scripts, and of Chinese, Japanese and Korean ones."""
    import numpy as np  # noqa: PLC0415

    points = np.frombuffer(text.encode("utf-32-le", "replace"), dtype="<u4")  # [characters]

    def count(block: range) -> int:
        return int(np.count_nonzero((points >= block.start) & (points < block.stop)))

    size = len(text)
    beyond = int(np.count_nonzero(points >= _ACCENTED.stop)) - count(_PUNCTUATION)
    cjk = sum(map(count, _CJK))
    return min(1.0, count(_ACCENTED) / size * 10), min(1.0, beyond / size * 2), min(1.0, cjk / size * 2)
