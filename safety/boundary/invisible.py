"""Characters that nobody sees: which of them a script needs, which only hide, and what is written with them.

`strip` is for what an expert is sent: it takes away what only hides (tags, runs of variation selectors, overrides of
direction, what parts a word unseen) and keeps what a script or an emoji needs, or what parts nothing. `bare` takes all
of them away, for detectors. `hidden` reads the messages that people write with them. Linear; the same object if nothing
changes.
"""

import re
from collections.abc import Iterator
from typing import Final

_ZERO: Final = "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff"
_BIDI: Final = "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"
_FILLERS: Final = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u206a-\u206f\u3164\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a"
)
_SELECTORS: Final = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_TAGS: Final = "\U000e0000-\U000e007f"

INVISIBLE: Final = re.compile(f"[{_ZERO}{_BIDI}{_FILLERS}{_SELECTORS}{_TAGS}]+")
FLAG: Final = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f")  # England, Texas
TAGS: Final = re.compile("[\U000e0020-\U000e007e]{2,}")
SELECTORS: Final = re.compile(f"[{_SELECTORS}]{{4,}}")
BITS: Final = re.compile("[\u200b\u200c\u200d\u2060]{16,}")

RIGHT_TO_LEFT: Final = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]")
SPACERS: Final = frozenset("\u200b\u200c\u200d\u2060\ufeff")  # left by editors and web pages, once in a thousand texts
FEW: Final = 2
JOINERS: Final = frozenset("\u200c\u200d")
DIRECTIONS: Final = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u2066\u2067\u2068\u2069")  # overrides are none
FILLERS: Final = frozenset("\u00ad\u034f\u115f\u1160\u180b\u180c\u180d\u180e\u180f")  # scripts use them
SHAPES: Final = re.compile("[\u0600-\u1cff\ua800-\uabff\U00010a00-\U00011fff\U0001e900-\U0001e95f]")  # joiners matter
PICTURES: Final = re.compile("[\ufe0f\u00a9\u00ae\u2190-\u2bff\U0001f000-\U0001faff]")
BREAKS: Final = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3000-\u9fff]")  # no spaces: a break is marked
IDEOGRAPH: Final = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
SELECTOR: Final = re.compile("[\ufe00-\ufe0f]")
VARIES: Final = re.compile(
    r"\W|[0-9]|[\u1000-\U0010ffff]"
)  # what has variants: no letter of Europe or of the Near East
SUPPLEMENT: Final = 0xE0100  # the selectors 17 to 256; the first 16 begin at U+FE00
LEAST_BITS: Final = 16  # two characters
LEAST_PRINTABLE: Final = 0.9  # of what a hidden message must be


def strip(text: str) -> str:
    """The text without what only hides."""
    if text.isascii() or not INVISIBLE.search(text):
        return text
    flags = {at for match in FLAG.finditer(text) for at in range(match.start() + 1, match.end())}
    turns = bool(RIGHT_TO_LEFT.search(text))
    kept: list[str] = []
    at = 0
    for match in INVISIBLE.finditer(text):
        kept.append(text[at : match.start()])
        keeps = _is_harmless(text, *match.span())
        for i in range(match.start(), match.end()):
            if (keeps and text[i] in SPACERS) or i in flags or _needed(text, i, turns=turns):
                kept.append(text[i])
        at = match.end()
    stripped = "".join((*kept, text[at:]))
    return text if len(stripped) == len(text) else stripped


def bare(text: str) -> str:
    """The text without any of them."""
    return text if text.isascii() else INVISIBLE.sub("", text)


def hidden(text: str) -> Iterator[tuple[str, int, int, str]]:
    """Messages written in invisible characters: the way they are hidden, where (start, end), and what they say."""
    if text.isascii() or not INVISIBLE.search(text):
        return
    flags = [match.span() for match in FLAG.finditer(text)]
    for match in TAGS.finditer(text):
        if not any(start < match.start() < end for start, end in flags):
            yield "tags", *match.span(), "".join(chr(ord(character) - 0xE0000) for character in match[0])
    for match in SELECTORS.finditer(text):
        if said := _readable(bytes(_selected(character) for character in match[0])):
            yield "variation selectors", *match.span(), said
    for match in BITS.finditer(text):
        for zero, one in (("\u200b", "\u200c"), ("\u200c", "\u200b"), ("\u200b", "\u200d"), ("\u200c", "\u200d")):
            digits = "".join("0" if c == zero else "1" if c == one else "" for c in match[0])
            whole = len(digits) // 8 * 8
            if whole >= LEAST_BITS and (said := _readable(int(digits[:whole], 2).to_bytes(whole // 8, "big"))):
                yield "zero-width bits", *match.span(), said
                break


def _selected(character: str) -> int:
    """The byte that a variation selector stands for where they are used to carry bytes."""
    point = ord(character)
    return point - SUPPLEMENT + 16 if point >= SUPPLEMENT else point - 0xFE00


def _readable(found: bytes) -> str:
    """The bytes as text; empty if they are none."""
    try:
        said = found.decode()
    except UnicodeDecodeError:
        return ""
    printable = sum(character.isprintable() or character.isspace() for character in said)
    return said if said and printable >= LEAST_PRINTABLE * len(said) else ""


def _is_harmless(text: str, start: int, end: int) -> bool:
    """Whether one or two in a row stand where they part no word: at its edge, or where words have no edges."""
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    within = before.isalnum() and after.isalnum() and not (BREAKS.match(before) or BREAKS.match(after))
    return end - start <= FEW and not within


def _needed(text: str, at: int, *, turns: bool) -> bool:
    """Whether a script or an emoji needs the invisible character at this place; `turns`: some of it runs leftward."""
    character, before, after = text[at], text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    if character in JOINERS:  # letters shape each other; pictures become one picture
        return bool(SHAPES.match(before) or (PICTURES.match(before) and PICTURES.match(after)))
    if character in DIRECTIONS:
        return turns
    if SELECTOR.match(character):  # one at most, and none after a Latin, Greek or Cyrillic letter
        return bool(VARIES.match(before)) and not INVISIBLE.match(before)
    if ord(character) >= SUPPLEMENT:
        return bool(IDEOGRAPH.match(before))
    return character in FILLERS
