"""Literals in a text as it reads: case, compatibility forms and characters that nobody sees make no difference.

A text is folded character by character, so that how it arrives makes no difference either, and every place in the
folded text is known in the text as written.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from conclave.safety.boundary.invisible import bare

if TYPE_CHECKING:
    from re2 import Set

    from conclave.safety.detect.patterns import Regexp

LONGEST: Final = 64  # characters of a trigger, and of the beginning of a word that is looked at before it
BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
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
        place, done = at - self.base, 0
        for run in BEYOND_ASCII.finditer(piece):
            parts.append(piece[done : run.start()].lower().encode())
            self._places.extend(range(place + done, place + run.start()))
            for index, character in enumerate(run[0], place + run.start()):
                folded = _folded(character)
                parts.append(folded)
                self._places.extend([index] * len(folded))
            done = run.end()
        parts.append(piece[done:].lower().encode())
        self._places.extend(range(place + done, place + len(piece)))
        self.data += b"".join(parts)

    def place_of(self, index: int) -> int:
        """Where in the text the byte stands."""
        return self.base + (index if self._places is None else self._places[index])

    def between(self, start: int, end: int) -> bytes:
        """What the text from one place to another is folded to."""
        if self._places is None:
            return self.data[start - self.base : end - self.base]
        return self.data[self.index_of(start) : self.index_of(end)]

    def index_of(self, place: int) -> int:
        """The first byte at or after a place in the text."""
        place -= self.base
        return max(0, place) if self._places is None else bisect_left(self._places, place)


@dataclass(frozen=True, slots=True)
class Triggers:
    """Literals that are looked for together. `everywhere`: one of them is the empty one.

    `pattern` says the same. `behind`: it is one of leads (`Led`), and what is looked for is the last character of each.
    """

    pattern: bytes
    regexp: "Regexp | None"
    everywhere: bool = False
    prefixes: frozenset[bytes] = frozenset()
    longest: int = 0
    behind: bool = False

    @classmethod
    def of(cls, literals: Iterable[str]) -> "Triggers":
        """Raises ValueError for a literal that no folded text could hold."""
        found = sorted(set(literals))
        for literal in found:
            if not literal.isascii() or literal != literal.lower() or len(literal) > LONGEST:
                raise ValueError(f"a trigger is ASCII in lower case, {LONGEST} characters at most, not {literal!r}")
        written = tuple(literal.encode() for literal in found if literal)
        prefixes = frozenset(literal[:size] for literal in written for size in range(1, len(literal)))
        pattern = _escaped(written)
        return cls(pattern, _compiled(pattern), "" in found, prefixes, max(map(len, written), default=0))

    @classmethod
    def leading(cls, leads: str) -> "Triggers":
        """Raises ValueError for a pattern that is none."""
        pattern = leads.encode()
        return cls(pattern, _compiled(pattern), behind=True)

    @classmethod
    def joined(cls, groups: Iterable["Triggers"]) -> "Triggers":
        """Where any of them begins, but for the empty trigger."""
        pattern = b"|".join(dict.fromkeys(group.pattern for group in groups if group.pattern))
        return cls(pattern, _compiled(pattern))

    def find(self, text: Folded, start: int, end: int) -> int | None:
        """The place of the first one that begins at or after `start`; None: there is none yet. `end` is the text's."""
        if self.everywhere:
            return start if start < end else None
        if self.regexp is None:
            return None
        if self.behind:
            return self._find_behind(self.regexp, text, start)
        match = self.regexp.search(text.data, text.index_of(start))
        return None if match is None else text.place_of(match.span()[0])

    @staticmethod
    def _find_behind(regexp: "Regexp", text: Folded, start: int) -> int | None:
        """A lead may begin before `start`: what is looked for is where it ends."""
        least = text.index_of(start)
        at = max(0, least - LONGEST)
        while (match := regexp.search(text.data, at)) is not None:
            first, last = match.span()[0], match.span()[1] - 1
            if last >= least:
                return text.place_of(last)
            at = first + 1
        return None

    def unfinished(self, text: Folded, start: int) -> int | None:
        """The first place at or after `start` where the text's end may be the beginning of one."""
        data = text.data
        for index in range(max(text.index_of(start), len(data) - self.longest + 1), len(data)):
            if data[index:] in self.prefixes:
                return text.place_of(index)
        return None


@dataclass(frozen=True, slots=True)
class Groups:
    """The triggers of several checks: one pass says whose are in a stretch of text, not where. 1 us for a line.

    `everywhere` are the groups with the empty trigger; `numbers` are those of the others, as the set counts them.
    """

    everywhere: frozenset[int]
    numbers: tuple[int, ...]
    automaton: "Set | None"

    @classmethod
    def of(cls, groups: Sequence[Triggers]) -> "Groups":
        """Groups are known by their number."""
        looked_for = [at for at, group in enumerate(groups) if group.pattern and not group.everywhere]
        return cls(
            frozenset(at for at, group in enumerate(groups) if group.everywhere),
            tuple(looked_for),
            _automaton(tuple(groups[at].pattern for at in looked_for)),
        )

    def within(self, data: bytes) -> frozenset[int]:
        """Which groups have a trigger in a folded text, or one that is everywhere."""
        found = self.automaton.Match(data) if self.automaton is not None else None
        return self.everywhere.union([self.numbers[at] for at in found]) if found else self.everywhere


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


def _escaped(literals: tuple[bytes, ...]) -> bytes:
    if not literals:
        return b""
    import re2  # noqa: PLC0415  20 ms, and only where a policy looks at answers

    return b"|".join(map(re2.escape, literals))


@cache
def _compiled(pattern: bytes) -> "Regexp | None":
    import re2  # noqa: PLC0415  20 ms, and only where a policy looks at answers

    if not pattern:
        return None
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    try:
        regexp: Regexp = re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"leads are a pattern of RE2, not {pattern.decode()!r}: {error}") from error
    return regexp


@cache
def _automaton(groups: tuple[bytes, ...]) -> "Set | None":
    import re2  # noqa: PLC0415  20 ms, and only where a policy looks at answers

    if not groups:
        return None
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    automaton = re2.Set.SearchSet(options)
    for pattern in groups:
        automaton.Add(pattern)
    automaton.Compile()
    return automaton


def edge(text: str, at: int, floor: int) -> int:
    """The first place of what may be covered of the word around a trigger at `at`, of `floor` and after it."""
    start = at
    floor = max(floor, at - LONGEST, 0)
    while start > floor and not text[start - 1].isspace():
        start -= 1
    while start < at and text[start].isalpha():
        start += 1
    return start
