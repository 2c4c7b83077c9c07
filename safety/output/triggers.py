"""Literals in a text as it reads: case, compatibility forms and characters that nobody sees make no difference.

A text is folded character by character, so that how it arrives makes no difference either, and every place in the
folded text is known in the text as written.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from conclave.safety.boundary.invisible import bare

if TYPE_CHECKING:
    from conclave.safety.detect.patterns import Regexp

LONGEST: Final = 64  # characters of a trigger, and of the beginning of a word that is looked at before it
OTHER: Final = b"\xff"  # stands for what is not ASCII when folded


@lru_cache(maxsize=4_096)  # characters: a text uses some hundreds
def _folded(character: str) -> bytes:
    folded = unicodedata.normalize("NFKC", character).casefold()
    return b"".join(c.encode() if c.isascii() else OTHER for c in bare(folded))


class Folded:
    """The folded view of a text that grows at its end and is cut at its beginning; places are counted from `base`."""

    __slots__ = ("_places", "base", "data")

    def __init__(self, base: int = 0) -> None:
        self.base = base
        self.data = b""
        self._places: list[int] | None = None  # of each byte of `data`, from `base`; None: they are its indices

    def add(self, piece: str, at: int) -> None:
        """Append a piece that stands at the place `at`."""
        if piece.isascii():
            if self._places is not None:
                self._places.extend(range(at - self.base, at - self.base + len(piece)))
            self.data += piece.lower().encode()
            return
        if self._places is None:
            self._places = list(range(len(self.data)))
        parts = []
        for place, character in enumerate(piece, at - self.base):
            folded = _folded(character)
            parts.append(folded)
            self._places.extend([place] * len(folded))
        self.data += b"".join(parts)

    def place_of(self, index: int) -> int:
        """Where in the text the byte stands."""
        return self.base + (index if self._places is None else self._places[index])

    def index_of(self, place: int) -> int:
        """The first byte at or after a place in the text."""
        place -= self.base
        return max(0, place) if self._places is None else bisect_left(self._places, place)


@dataclass(frozen=True, slots=True)
class Triggers:
    """Literals that are looked for together. `everywhere`: one of them is the empty one."""

    regexp: "Regexp | None"
    everywhere: bool
    prefixes: frozenset[bytes]
    longest: int

    @classmethod
    def of(cls, literals: Iterable[str]) -> "Triggers":
        """Raises ValueError for a literal that no folded text could hold."""
        found = sorted(set(literals))
        for literal in found:
            if not literal.isascii() or literal != literal.lower() or len(literal) > LONGEST:
                raise ValueError(f"a trigger is ASCII in lower case, {LONGEST} characters at most, not {literal!r}")
        written = [literal.encode() for literal in found if literal]
        prefixes = frozenset(literal[:size] for literal in written for size in range(1, len(literal)))
        return cls(_compiled(tuple(written)), "" in found, prefixes, max(map(len, written), default=0))

    def find(self, text: Folded, start: int, end: int) -> int | None:
        """The place of the first one that begins at or after `start`; None: there is none yet. `end` is the text's."""
        if self.everywhere:
            return start if start < end else None
        if self.regexp is None:
            return None
        match = self.regexp.search(text.data, text.index_of(start))
        return None if match is None else text.place_of(match.span()[0])

    def unfinished(self, text: Folded, start: int) -> int | None:
        """The first place at or after `start` where the text's end may be the beginning of one."""
        data = text.data
        for index in range(max(text.index_of(start), len(data) - self.longest + 1), len(data)):
            if data[index:] in self.prefixes:
                return text.place_of(index)
        return None


class Finder:
    """Finds triggers in a text that grows, and remembers the next one: a text is read once, however it is asked."""

    __slots__ = ("_from", "_next", "_until", "triggers")

    def __init__(self, triggers: Triggers) -> None:
        self.triggers = triggers
        self._from = self._until = -1  # where was looked
        self._next: int | None = None  # what came of it

    def next(self, text: Folded, start: int, end: int) -> int | None:
        """The place of the first trigger at or after `start`; None: there is none yet. `end` is the text's."""
        if self._from <= start and (self._next >= start if self._next is not None else self._until == end):
            return self._next
        self._from, self._until = start, end
        self._next = self.triggers.find(text, start, end)
        return self._next


@cache
def _compiled(literals: tuple[bytes, ...]) -> "Regexp | None":
    import re2  # noqa: PLC0415  20 ms, and only where a policy looks at answers

    if not literals:
        return None
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    regexp: Regexp = re2.compile(b"|".join(map(re2.escape, literals)), options)
    return regexp


def edge(text: str, at: int, floor: int) -> int:
    """The first place of what may be covered of the word around a trigger at `at`, of `floor` and after it."""
    start = at
    floor = max(floor, at - LONGEST, 0)
    while start > floor and not text[start - 1].isspace():
        start -= 1
    while start < at and text[start].isalpha():
        start += 1
    return start
