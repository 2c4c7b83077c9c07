"""A line as it reads, for checks that look for commands and addresses: where each character stood is known.

Forms that look alike are made one (NFKC), characters that nobody sees are left out, a line that is continued is one.
Linear; a line that needs none of that stays the same object.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from conclave.safety.boundary.invisible import bare

CONTINUED: Final = re.compile(r"(?P<sign>[\\`^][ \t]*+)?(?:\r\n|[\n\r\u0085\u2028\u2029])")
BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
LINE_ENDS: Final = frozenset("\n\r\u0085\u2028\u2029")


class Change(NamedTuple):
    """`start` to `end` of a text are read as `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Reading:
    """`text` is how it reads; `places` has where each of its characters stood, None: at its own index."""

    text: str
    places: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where `start` to `end` stood."""
        if self.places is None or start >= end:
            return start, end
        return self.places[start], self.places[end - 1] + 1

    def changed(self, changes: Iterable[Change]) -> "Reading":
        """With some of it read otherwise; what is new stands where the old began, its last character where that ended.

        The changes are in order and apart.
        """
        parts: list[str] = []
        places: list[int] = []
        old = range(len(self.text)) if self.places is None else self.places
        at = 0
        for change in changes:
            parts += (self.text[at : change.start], change.text)
            places += old[at : change.start]
            if change.text:
                places += [old[change.start]] * (len(change.text) - 1)
                places.append(old[max(change.start, change.end - 1)])
            at = change.end
        if not parts:
            return self
        parts.append(self.text[at:])
        places += old[at:]
        return Reading("".join(parts), places)

    def replaced(self, pattern: re.Pattern[str], by: Callable[[re.Match[str]], str]) -> "Reading":
        """With each match read as `by` says."""
        return self.changed(Change(*match.span(), by(match)) for match in pattern.finditer(self.text))


def read(text: str) -> Reading:
    """How a line of an answer reads."""
    if text.isascii() or all(_folded(character) == character for character in set("".join(BEYOND_ASCII.findall(text)))):
        reading = Reading(text)
    else:
        folded = [_folded(character) for character in text]
        places = [at for at, shown in enumerate(folded) for _ in shown]
        said = "".join(folded)
        reading = Reading(said, places)
    if "\n" in text or not LINE_ENDS.isdisjoint(text):
        reading = reading.replaced(CONTINUED, lambda end: "" if end["sign"] else " ")
    return reading


@lru_cache(maxsize=4_096)  # characters: a text uses some hundreds
def _folded(character: str) -> str:
    return character if character.isascii() else bare(unicodedata.normalize("NFKC", character))
