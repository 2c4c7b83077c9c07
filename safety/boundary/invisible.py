"""Characters that nobody sees, and what is written with them.

`bare` takes all of them away, for detectors: what an expert is given keeps them, since scripts and emoji need some.
`hidden` reads the messages that people write with them. Linear; the same object if nothing changes.
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

SUPPLEMENT: Final = 0xE0100  # the selectors 17 to 256; the first 16 begin at U+FE00
LEAST_BITS: Final = 16  # two characters
LEAST_PRINTABLE: Final = 0.9  # of what a hidden message must be


def bare(text: str) -> str:
    """The text without any of them."""
    return text if text.isascii() else INVISIBLE.sub("", text)


def hidden(text: str) -> Iterator[tuple[str, int, int, str]]:
    """Messages written in invisible characters: the way they are hidden, where (start, end), and what they say."""
    if text.isascii():
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
