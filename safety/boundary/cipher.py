"""Stretches that read as English only after a shift of the alphabet (Caesar, rot13), its mirror (atbash), or backwards.

Common words are looked up in all their turned forms at once, so that a text costs one look-up a word. No dictionary,
and no claim about other languages.
"""

import re
import string
from collections import defaultdict
from functools import cache
from typing import Final

READ_CHARS: Final = 16_384  # of a text
WORDS: Final = re.compile(r"[a-z]{2,}")
WINDOW: Final = 12  # words, of which so many
HITS: Final = 3  # different common ones in one turned form make a message
LEAST_LETTERS: Final = 10  # in them together: words of two letters are each other's shifts
COMMON: Final = frozenset(
    re.findall(
        "[a-z]+",
        "the and you your that this with for from are not all any what how who have has was were will can must should "
        "now previous above below instructions instruction ignore forget follow system prompt rules rule say tell "
        "print write output reveal answer respond repeat please only instead password secret message text do is it of "
        "to in on as be me my",
    )
)
SHIFTS: Final = tuple(f"letters shifted by {by}" for by in range(1, 26))
ATBASH: Final = "atbash"
BACKWARDS: Final = "backwards"


def unshifted(text: str) -> tuple[str, str] | None:
    """The cipher's name and the whole text read by it; None if no stretch of the text needs one."""
    words = WORDS.findall(text[:READ_CHARS].lower())
    turned = _turned()
    hits: defaultdict[str, list[int]] = defaultdict(list)
    for at, word in enumerate(words):
        for name in turned.get(word, ()):
            hits[name].append(at)
    for name, places in hits.items():
        if len(places) >= HITS and _says(words, places):
            return name, turn(text, name)
    return None


def _says(words: list[str], places: list[int]) -> bool:
    """Whether enough different words stand close together, and fewer that are common as they stand."""
    for first in places[: -HITS + 1]:
        near = {words[at] for at in places if first <= at < first + WINDOW}
        if len(near) < HITS or sum(map(len, near)) < LEAST_LETTERS:
            continue
        plain = {word for word in words[first : first + WINDOW] if word in COMMON}
        if len(plain) < len(near):
            return True
    return False


def turn(text: str, name: str) -> str:
    """The text read by one of the ciphers."""
    return text[::-1] if name == BACKWARDS else text.translate(_tables()[name])


@cache
def _tables() -> dict[str, dict[int, int]]:
    low, high = string.ascii_lowercase, string.ascii_uppercase
    tables = {
        name: str.maketrans(low + high, low[by:] + low[:by] + high[by:] + high[:by])
        for by, name in enumerate(SHIFTS, start=1)
    }
    return {**tables, ATBASH: str.maketrans(low + high, low[::-1] + high[::-1])}


@cache
def _turned() -> dict[str, tuple[str, ...]]:
    """How a common word looks under each cipher -> the ciphers."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for word in sorted(COMMON):
        found[word[::-1]].append(BACKWARDS)
        found[turn(word, ATBASH)].append(ATBASH)
        for by, name in enumerate(SHIFTS, start=1):
            found[turn(word, SHIFTS[25 - by])].append(name)
    return {word: tuple(names) for word, names in found.items() if word not in COMMON}
