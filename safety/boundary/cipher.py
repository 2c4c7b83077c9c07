"""Stretches that read as English only after a shift of the alphabet (Caesar, rot13), its mirror (atbash), backwards, or
with every two characters swapped.

Common words are looked up in all their turned forms at once, so that a text costs one look-up a word. No dictionary,
and no claim about other languages.
"""

import re
import string
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import re2

READ_CHARS: Final = 16_384  # of a text
WORDS: Final = re.compile(r"[a-z]{2,}")
LETTERS: Final = bytes(
    byte if chr(byte) in string.ascii_lowercase else ord(" ") for byte in range(256)
)  # bytes to these
WINDOW: Final = 12  # words, of which so many
HITS: Final = 3  # different common ones in one turned form make a message,
SHORT: Final = 10  # and two are enough in a text of so few words
LEAST_LETTERS: Final = 10  # in them together: words of two letters are each other's shifts
COMMON: Final = frozenset(
    re.findall(
        "[a-z]+",
        "the and you your that this with for from are not all any what how who have has was were will can must should "
        "now previous above below instructions instruction ignore forget follow system prompt rules rule say tell "
        "print write output reveal answer respond repeat please only instead password secret message text do is it of "
        "to in on as be me my or an by if so we he at can get give make write about which when where why who into out "
        "use create build explain describe provide list show step steps without people someone they them their his her "
        "story act like new want need should would could now then here there one two first last some more other than",
    )
)
SHIFTS: Final = tuple(f"letters shifted by {by}" for by in range(1, 26))
ATBASH: Final = "atbash"
BACKWARDS: Final = "backwards"
SWAPPED: Final = "swapped pairs"
PAIR: Final = re.compile("(.)(.)", re.DOTALL)
LEAST_SWAPPED: Final = 6  # letters of a swapped word that are looked for: fewer stand in other words


def unshifted(text: str) -> tuple[str, str] | None:
    """The cipher's name and the whole text read by it; None if no stretch of the text needs one."""
    small = text[:READ_CHARS].lower()
    data = small.encode("ascii", "replace")
    if len(set(_swapped().findall(data))) >= HITS - 1:
        return SWAPPED, turn(text, SWAPPED)
    turned = _turned()
    found = _turned_bytes().intersection(data.translate(LETTERS).split())
    if len(found) < HITS - 1:
        return None  # nearly every text, at a tenth of the cost
    words = WORDS.findall(small)
    least = HITS if len(words) > SHORT else HITS - 1
    if len(found) < least:
        return None
    hits: defaultdict[str, list[int]] = defaultdict(list)
    for at, word in enumerate(words):
        for name in turned.get(word, ()):
            hits[name].append(at)
    for name, places in hits.items():
        if len(places) >= least and _says(words, places, least):
            return name, turn(text, name)
    return None


def _says(words: list[str], places: list[int], least: int) -> bool:
    """Whether enough different words stand close together, and fewer that are common as they stand."""
    for first in places[: -least + 1]:
        near = {words[at] for at in places if first <= at < first + WINDOW}
        if len(near) < least or sum(map(len, near)) < LEAST_LETTERS:
            continue
        plain = {word for word in words[first : first + WINDOW] if word in COMMON}
        if len(plain) < len(near):
            return True
    return False


def turn(text: str, name: str) -> str:
    """The text read by one of the ciphers."""
    if name == BACKWARDS:
        return text[::-1]
    return unswapped(text) if name == SWAPPED else text.translate(_tables()[name])


def unswapped(text: str) -> str:
    """The text with every two characters swapped, from its first or second one on: as more common words appear."""
    ways = (PAIR.sub(r"\2\1", text), text[:1] + PAIR.sub(r"\2\1", text[1:]))
    return max(ways, key=lambda way: len(COMMON.intersection(WORDS.findall(way[:READ_CHARS].lower()))))


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


@cache
def _turned_bytes() -> frozenset[bytes]:
    return frozenset(word.encode() for word in _turned())


@cache
def _swapped() -> "re2.Pattern":
    """Long common words with every two characters swapped, as far as no neighbour's are in it."""
    import re2  # noqa: PLC0415  an import that only a policy with checks pays

    parts = (word[at:] for word in COMMON for at in (0, 1))
    forms = {PAIR.sub(r"\2\1", part[: len(part) // 2 * 2]) for part in parts}
    return re2.compile("|".join(sorted(form for form in forms if len(form) >= LEAST_SWAPPED)).encode())
