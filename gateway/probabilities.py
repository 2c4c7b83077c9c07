"""The probabilities of an answer's tokens, which wait with their text and go when all of it goes.

Decides which entries of a choice's `logprobs` belong to which text, and tells an entry once the text of its token was
let go as it was written. What was cut out takes its tokens along, since their names, bytes and alternatives say it,
too. Entries whose text cannot be told apart go together, or not at all. Never judges a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Entry: TypeAlias = Mapping[str, Any]  # of one token
Placed: TypeAlias = dict[tuple[str, ...], tuple[str, list[Entry]]]  # by their text: the name of their list, and they
Spans: TypeAlias = list[tuple[int, int]]

LISTS: Final = ("content", "refusal")  # of `logprobs`, by the text that they are about
MOST_AHEAD_BYTES: Final = 3  # of a character whose last byte is still to come
COLUMNS: Final = "tokens"  # the older completions have a list a column, this one of the tokens themselves


@dataclass(slots=True)
class _Unit:
    """Entries that go together, when the text from `start` to `end` goes."""

    entries: list[Entry]
    start: int
    end: int


class Tokens:
    """The entries of one text: `add` what comes with each piece, `told` are those that may go."""

    __slots__ = ("_began", "_covered", "_cut", "_loose", "_units", "name")

    def __init__(self, name: str) -> None:
        self.name = name  # of their list in `logprobs`
        self._units: list[_Unit] = []
        self._loose: list[
            Entry
        ] = []  # whose text is still to come, or the rest of it: two tokens may share a character
        self._covered = 0  # bytes of the first of them that came already
        self._began = 0  # where these stand
        self._cut = False

    def add(self, entries: Sequence[Entry], piece: str, at: int) -> None:
        """Entries that came with a piece of the text, which begins at `at`."""
        self._loose += entries
        if not piece or not self._loose:
            return
        written = piece.encode("utf-8", "replace")
        said = [_bytes_of(entry) for entry in self._loose]
        all_said = b"".join(said)[self._covered :]
        if not all_said.startswith(written) or len(all_said) - len(written) > MOST_AHEAD_BYTES:
            start = self._began if self._covered else at
            self._units.append(_Unit(self._loose, start, at + len(piece)))
            self._loose, self._covered = [], 0
            return
        first = -self._covered
        loose, self._loose, self._covered = self._loose, [], 0
        for number, (entry, own) in enumerate(zip(loose, said, strict=True)):
            last = first + len(own)
            start = self._began if first < 0 else at + len(written[:first].decode("utf-8", "ignore"))
            if last > len(written):
                self._loose, self._covered, self._began = loose[number:], max(0, len(written) - first), start
                return
            self._units.append(_Unit([entry], start, at + len(written[:last].decode("utf-8", "replace"))))
            first = last

    def told(self, out: int, removed: Spans, *, whole: bool = False) -> list[Entry]:
        """Those of the text up to `out` but for the spans that were `removed`; it may forget spans."""
        self._cut = self._cut or bool(removed)
        found: list[Entry] = []
        count = 0
        for unit in self._units:
            if unit.end > out:
                break
            count += 1
            if not any(start < unit.end and unit.start < end for start, end in removed):
                found += unit.entries
        del self._units[:count]
        if whole and not self._cut:
            found += self._loose
        if whole:
            self._loose, self._covered = [], 0
        if not self._units and not self._covered:
            removed[:] = [(start, end) for start, end in removed if end > out]
        return found

    def drop(self) -> None:
        """Somebody else goes on from what was let go."""
        self._units, self._loose, self._covered = [], [], 0


def entries_of(choice: Mapping[str, Any], no_text: frozenset[str]) -> Placed | None:
    """A choice's entries, by the text that they are about; None where that cannot be said."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return None
    if isinstance(logprobs.get(COLUMNS), list):
        rows = _rows(logprobs)
        return None if rows is None or not isinstance(choice.get("text"), str) else {("text",): (COLUMNS, rows)}
    holder = "message" if isinstance(choice.get("message"), dict) else "delta"
    said = choice.get(holder) or {}
    if not isinstance(said, dict):
        return None
    found: Placed = {}
    for name, entries in logprobs.items():
        if not entries:
            continue
        if name not in LISTS or not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            return None
        text = _text_of(entries, name, said, no_text)
        if text is None or (holder, text) in found:
            return None
        found[holder, text] = (name, entries)
    return found


def _text_of(entries: Sequence[Entry], name: str, said: Mapping[str, Any], no_text: frozenset[str]) -> str | None:
    """Which of a message's texts the entries are about: some servers list those of the reasoning as `content`, too."""
    own = said.get(name)
    if isinstance(own, str) and own and b"".join(map(_bytes_of, entries)) == own.encode("utf-8", "replace"):
        return name
    texts = [key for key, value in said.items() if value and key not in no_text]
    if len(texts) > 1 or not all(isinstance(said[key], str) for key in texts):
        return None
    return texts[0] if texts else name


def put_in(logprobs: object, told: Mapping[str, Sequence[Entry]]) -> dict[str, Any] | None:
    """A choice's `logprobs` with the entries that may go; None if there are none."""
    if not any(told.values()):
        return None
    old = logprobs if isinstance(logprobs, dict) else {}
    if COLUMNS in told:
        columns = dict.fromkeys(name for entry in told[COLUMNS] for name in entry)
        return {**old, **{name: [entry.get(name) for entry in told[COLUMNS]] for name in columns}}
    return {**dict.fromkeys(LISTS), **old, **{name: list(told[name]) if told.get(name) else None for name in LISTS}}


def _rows(logprobs: Mapping[str, Any]) -> list[Entry] | None:
    columns = {name: column for name, column in logprobs.items() if isinstance(column, list)}
    if len({len(column) for column in columns.values()}) != 1:
        return None
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _bytes_of(entry: Entry) -> bytes:
    """What a token says; some servers name one by its number and say it in bytes alone."""
    written = entry.get("bytes")
    try:
        if isinstance(written, list):
            return bytes(written)
    except (TypeError, ValueError):
        return b""
    name = entry.get("token", entry.get(COLUMNS))
    return name.encode("utf-8", "replace") if isinstance(name, str) else b""
