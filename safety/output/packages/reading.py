r"""A line as a shell would read it: continuations joined, invisible characters gone, each place known in the text.

The lines of a tool call's arguments are JSON, so `\n` and `\"` stand for what they mean. Pure, linear.
"""

import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from conclave.safety.boundary.invisible import bare
from conclave.safety.output.api import Excerpt

CONTINUED: Final = re.compile("(?:\\\\|(?<=[ \t])[`^])[ \t]*(?:\r\n|[\n\r\u0085\u2028\u2029])[ \t]*")
ESCAPE: Final = re.compile(r"\\(.)")
MEANT: Final = {"n": "\n", "r": "\n", "t": " "}
TAG: Final = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]{0,9})(?:\s[^<>]{0,200})?/?>")
UNSEEN: Final = frozenset(  # tags that part no words
    ["b", "i", "u", "s", "em", "strong", "span", "wbr", "font", "mark", "small", "big", "sub", "sup", "a", "abbr"]
)
ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")
UNFOLDED: Final = 4  # characters that one may stand for, as ligatures do
MOST_CHARS: Final = 65_536  # of a line that are read


@dataclass(frozen=True, slots=True)
class Line:
    """`text` is what is read; the characters of the excerpt that made the one at `i` begin at `place(i)`."""

    text: str
    code: bool
    language: str
    places: tuple[int, ...] | None = None

    @classmethod
    def of(cls, excerpt: Excerpt) -> "Line":
        written = excerpt.text[:MOST_CHARS]
        text, places = (written, None) if written.isascii() else _folded(written)
        if excerpt.code and not excerpt.language and "\\" in text and text.lstrip()[:1] in {"{", "["}:
            text, places = _unescaped(text, places)
        if not excerpt.code and ("<" in text or "&" in text):
            text, places = _rendered(text, places)
        if "\n" in text or "\r" in text or not written.isascii():
            text = CONTINUED.sub(lambda match: " " * len(match[0]), text)
        return cls(text, excerpt.code, excerpt.language, places)

    def place(self, index: int) -> int:
        """Where in the excerpt a character of `text` begins."""
        return index if self.places is None else self.places[index]

    def end(self, index: int) -> int:
        """Where in the excerpt the character before `index` ends."""
        return index if self.places is None else self.places[index - 1] + 1


def _folded(written: str) -> tuple[str, tuple[int, ...]]:
    """Character by character, so that the places are known: what nobody sees is gone, wide letters are plain."""
    shown: list[str] = []
    places: list[int] = []
    for place, character in enumerate(written):
        if character < "\x80":
            shown.append(character)
            places.append(place)
            continue
        plain = bare(unicodedata.normalize("NFKC", character))
        if len(plain) > UNFOLDED:
            plain = character  # a phrase in one character is no part of a name
        shown.append(plain)
        places += [place] * len(plain)
    return "".join(shown), (*places, len(written))


def _rendered(text: str, places: tuple[int, ...] | None) -> tuple[str, tuple[int, ...] | None]:
    """Prose as it is shown: tags are gone or part words, entities are what they stand for."""
    for pattern, shown in ((TAG, _shown), (ENTITY, _meant)):
        if pattern.search(text) is not None:
            text, places = _replaced(text, places, pattern, shown)
    return text, places


def _shown(tag: re.Match[str]) -> str:
    return "" if tag[1].lower() in UNSEEN else " "


def _meant(entity: re.Match[str]) -> str:
    meant = html.unescape(entity[0])
    return meant if len(meant) == 1 and meant.isprintable() else " "


def _replaced(
    text: str, places: tuple[int, ...] | None, pattern: re.Pattern[str], by: Callable[[re.Match[str]], str]
) -> tuple[str, tuple[int, ...]]:
    shown: list[str] = []
    kept: list[int] = []
    at = 0
    for match in pattern.finditer(text):
        said = by(match)
        shown += (text[at : match.start()], said)
        kept += (*range(at, match.start()), *([match.start()] * len(said)))
        at = match.end()
    shown.append(text[at:])
    kept += range(at, len(text) + 1)
    return "".join(shown), tuple(kept if places is None else (places[place] for place in kept))


def _unescaped(text: str, places: tuple[int, ...] | None) -> tuple[str, tuple[int, ...]]:
    """JSON's escapes as what they mean."""
    return _replaced(text, places, ESCAPE, lambda match: MEANT.get(match[1], match[1]))
