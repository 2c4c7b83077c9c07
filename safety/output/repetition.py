"""Whether an answer runs away: it says the same again and again, or it is longer than anyone wanted.

A model that is caught in a loop writes until its token limit, and every token is paid. Fed with one answer, in whatever
pieces it comes, it says at which one enough was heard. Linear time, 8 KB of memory; it knows nothing of what is said.
Loops whose rounds differ (a counter in each line) are not seen; the limit of length is for them.
"""

from dataclasses import dataclass
from typing import Final

PERIOD_CHARS: Final = 2048  # of the longest unit whose repetition is seen
PROBE_CHARS: Final = 48  # of the end, looked for further up: short units repeat within it
LOOK_CHARS: Final = 512  # between two looks for a loop, while there is none
KEPT_CHARS: Final = 2 * PERIOD_CHARS


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """`repeated_chars`: of one unit repeated without a pause; `chars`: of the whole answer. None: no limit."""

    repeated_chars: int | None = None
    chars: int | None = None

    def or_none(self) -> "AnswerLimits | None":
        """None if there is no limit: then nobody need listen."""
        return None if self.repeated_chars is None and self.chars is None else self


class Runaway:
    """One answer, or one choice of it: text, reasoning and a tool's arguments alike."""

    __slots__ = ("_chars", "_limits", "_period", "_repeated", "_since_look", "_tail")

    def __init__(self, limits: AnswerLimits) -> None:
        self._limits = limits
        self._chars = 0
        self._tail = ""
        self._period = 0  # of the loop that it is in; 0: none
        self._repeated = 0
        self._since_look = 0

    def feed(self, text: str) -> bool:
        """Whether the answer should end here, with this piece; once it is so, it stays so."""
        self._chars += len(text)
        if self._limits.chars is not None and self._chars > self._limits.chars:
            return True
        most = self._limits.repeated_chars
        if most is None:
            return False
        if self._repeated > most:
            return True
        for start in range(0, len(text), LOOK_CHARS):
            self._take(text[start : start + LOOK_CHARS])
            if self._repeated > most:
                return True
        return False

    def _take(self, piece: str) -> None:
        before = self._tail
        self._tail = (before + piece)[-KEPT_CHARS:]
        if self._period:
            if self._goes_on(len(piece)):
                self._repeated += len(piece)
                return
            self._period = self._repeated = 0
        self._since_look += len(piece)
        if self._since_look >= LOOK_CHARS:
            self._since_look = 0
            self._look()

    def _goes_on(self, added: int) -> bool:
        """Whether the newest characters are those of one unit before."""
        tail, period = self._tail, self._period
        return tail[-added:] == tail[-added - period : -period]

    def _look(self) -> None:
        """For a unit that the end repeats twice at least."""
        tail = self._tail
        at = tail.rfind(tail[-PROBE_CHARS:], 0, len(tail) - 1)
        if at < 0 or len(tail) < PROBE_CHARS:
            return
        period = len(tail) - PROBE_CHARS - at
        if period <= PERIOD_CHARS and tail[-period:] == tail[-2 * period : -period]:
            self._period, self._repeated = period, 2 * period
