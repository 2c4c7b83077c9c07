"""Joins two halves of an answer: what one expert had said when it failed, and what the next one says to continue it.

Drops what the second half says again, be it the end of the first (an overlap) or all of it from its beginning (a
restart). A short repetition is no repetition but chance, and so is one of a single sign: numbers, tables and
indentation repeat themselves. It never changes a word, and holds text back only while it could still be a repetition.
"""

from typing import Final

TAIL_CHARS: Final = 160  # of the first half are looked at: models that repeat, repeat a sentence
LEAST_CHARS: Final = 24  # of a repetition: " and the" ends and begins many texts
LEAST_SIGNS: Final = 6  # different ones in it: a table's rule has three


class Seam:
    """`feed` the second half piece by piece, then `finish`; together they give what is to be shown of it."""

    __slots__ = ("_pending", "_shown", "_tail")

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._tail = shown[-TAIL_CHARS:]
        self._pending: str | None = "" if len(shown) >= LEAST_CHARS else None  # None once the halves are joined

    def feed(self, text: str) -> str:
        """What may be shown now; empty while the text may be a repetition."""
        if self._pending is None:
            return text
        self._pending += text
        return "" if self._may_repeat(self._pending) else self.finish()

    def finish(self) -> str:
        """What is still held back, less what it repeats."""
        pending, self._pending = self._pending, None
        return pending[self._repeated(pending) :] if pending else ""

    def _may_repeat(self, pending: str) -> bool:
        """Whether more text could make a longer repetition of it."""
        return len(pending) < len(self._shown) and (pending in self._tail or self._shown.startswith(pending))

    def _repeated(self, pending: str) -> int:
        """How many characters at its beginning were shown before."""
        if pending.startswith(self._shown):
            return len(self._shown) if _is_text(self._shown) else 0
        longest = min(len(pending), len(self._tail))
        ends = (n for n in range(longest, LEAST_CHARS - 1, -1) if self._tail.endswith(pending[:n]))
        repeated = next(ends, 0)
        return repeated if _is_text(pending[:repeated]) else 0


def _is_text(repeated: str) -> bool:
    return len(set(repeated)) >= LEAST_SIGNS
