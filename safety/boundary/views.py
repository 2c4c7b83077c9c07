"""Every way in which a segment can be read: as written, as it looks, and as it decodes.

A detector that reads only what is written is passed by anything that is written otherwise. The views are for detectors
alone: the expert gets what the user wrote.
"""

import re
import unicodedata
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from conclave.safety.api import FOLDED, WRITTEN, Segment, View
from conclave.safety.boundary.decode import MOST_READINGS, readings
from conclave.safety.boundary.invisible import bare, hidden

CONFUSABLES: Final = Path(__file__).parent.parent / "rules" / "confusables.json"
WORD: Final = re.compile(r"(?<![^\W_])[A-Za-z0-9]*[^\W_\x00-\x7f][^\W_]*")  # with a letter beyond ASCII
MARKED: Final = re.compile("([A-Za-z])[\u0300-\u036f\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")


def views_of(segment: Segment) -> list[View]:
    """The views of a segment, the written one first; no two of them have the same text."""
    written = segment.text
    whole = len(written)
    views = [View(segment, WRITTEN, written, 0, whole)]
    look = looks(segment.folded)
    if look != written:
        views.append(View(segment, FOLDED, look, 0, whole))
    found = [View(segment, name, said, start, end) for name, start, end, said in islice(hidden(written), MOST_READINGS)]
    same_length = len(look) == whole
    for one in readings(look):
        start, end = (one.start, one.end) if same_length else (0, whole)
        found.append(View(segment, one.name, one.text, start, end))
    seen = {view.text for view in views}
    for view in found:
        if view.text not in seen:
            seen.add(view.text)
            views.append(view)
    return views


def looks(folded: str) -> str:
    """What a NFKC text looks like to a reader of Latin letters: no invisible characters, no marks, no look-alikes.

    A word is read so only if all of it can be: Cyrillic and Greek words keep their letters.
    """
    if folded.isascii():
        return folded
    shown = MARKED.sub(r"\1", unicodedata.normalize("NFD", bare(folded)))
    return WORD.sub(_plain, unicodedata.normalize("NFC", shown))


def _plain(match: re.Match[str]) -> str:
    word = match[0]
    if len(word) == 1 or not (word[-1].isascii() or ord(word[-1]) in confusables()):
        return word  # most words of other alphabets
    plain = word.translate(confusables())
    return plain if plain.isascii() else word


@cache
def confusables() -> dict[int, str]:
    """Characters of other alphabets that look like a Latin letter or a digit, by code point."""
    pairs = msgspec.json.decode(CONFUSABLES.read_bytes(), type=dict[str, str])
    return {ord(character): letter for character, letter in pairs.items()}
