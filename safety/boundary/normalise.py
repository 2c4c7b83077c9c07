"""The folded view of a text: NFKC, so that full-width letters, ligatures and styled alphabets read as plain ones.

Linear in the text, whatever it holds. `unicodedata.normalize` alone is not: it sorts a run of combining marks by
insertion, so that 40,000 marks in a row take 1.6 s and a million would take the better part of an hour. Runs are
therefore cut as the Stream-Safe Text Format says (Unicode UAX #15, section 13). The text as written is never changed.
"""

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Final

from conclave.safety.boundary.caps import BoundaryError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MARKS_IN_A_ROW: Final = 30  # UAX #15: no natural text has more
JOINER: Final = 0x034F  # COMBINING GRAPHEME JOINER ends a run and shows nothing
LAST_MARK: Final = 0x20000  # all combining marks but the variation selectors' plane, which has class 0, lie below
LONG_RUN: Final = re.compile(f"[^\x00-\u02ff]{{{MARKS_IN_A_ROW + 1}}}")  # the first combining mark is U+0300
SLICE_CHARS: Final = 65_536  # what is folded at once while the size is still in doubt


def fold(text: str, *, max_chars: int, place: str = "") -> str:
    """The NFKC view. BoundaryError: it has more than `max_chars` (one character may unfold to 18) or is no Unicode."""
    if len(text) > max_chars:
        raise _too_long(place)
    if text.isascii():
        return text
    text = _stream_safe(text, place)
    if unicodedata.is_normalized("NFKC", text):
        return text
    if len(text) > SLICE_CHARS:
        _check_unfolded_size(text, max_chars, place)
    folded = unicodedata.normalize("NFKC", text)
    if len(folded) > max_chars:
        raise _too_long(place)
    return folded


def _check_unfolded_size(text: str, max_chars: int, place: str) -> None:
    """Stop early on a text that would unfold far past the limit (a cut between two marks changes the size by a few)."""
    slack = len(text) // SLICE_CHARS * MARKS_IN_A_ROW
    size = 0
    for start in range(0, len(text), SLICE_CHARS):
        size += len(unicodedata.normalize("NFKC", text[start : start + SLICE_CHARS]))
        if size > max_chars + slack:
            raise _too_long(place)


def _too_long(place: str) -> BoundaryError:
    return BoundaryError("the text is longer than this gateway takes", place=place, too_large=True)


def _stream_safe(text: str, place: str) -> str:
    """The text with a joiner after each 30 combining marks in a row; the same object if there is no such run."""
    if not LONG_RUN.search(text):
        return text
    import numpy as np  # noqa: PLC0415  few texts need it

    try:
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)  # [chars]
    except UnicodeEncodeError:
        raise BoundaryError("the text holds a lone surrogate, which is not valid Unicode", place=place) from None
    marks = np.flatnonzero(_combining()[np.minimum(points, LAST_MARK)])  # [marks] positions
    if not (marks[MARKS_IN_A_ROW:] - marks[:-MARKS_IN_A_ROW] == MARKS_IN_A_ROW).any():
        return text
    order = np.arange(len(marks))
    starts = np.concatenate(([True], np.diff(marks) != 1))  # a run begins where the position jumps
    in_run = order - np.maximum.accumulate(np.where(starts, order, 0))
    cuts = marks[(in_run > 0) & (in_run % MARKS_IN_A_ROW == 0)]
    return np.insert(points, cuts, JOINER).tobytes().decode("utf-32-le")


@cache
def _combining() -> "NDArray[np.bool_]":
    """For each code point below LAST_MARK whether it, or its decomposition, begins with a combining mark; 0.1 MB."""
    import numpy as np  # noqa: PLC0415

    table = np.zeros(LAST_MARK + 1, dtype=np.bool_)
    for point in range(0x300, LAST_MARK):
        first = unicodedata.normalize("NFKD", chr(point))[:1]
        table[point] = unicodedata.combining(first) != 0
    return table
