"""Disturbances of training texts: the typing, the case and the cuts of real prompts. All are seeded by the caller."""

import re
from random import Random
from typing import Final

_OPTIONS: Final = re.compile(r"\n\(?[A-J][.)] .*", re.DOTALL)
_NEIGHBOURS: Final = {
    "a": "sqz", "b": "vn", "c": "xv", "d": "sfe", "e": "wrd", "f": "dgr", "g": "fht", "h": "gjy", "i": "uok",
    "j": "hku", "k": "jli", "l": "ko", "m": "n", "n": "bm", "o": "ipl", "p": "o", "q": "wa", "r": "etf", "s": "adw",
    "t": "ryg", "u": "yij", "v": "cb", "w": "qes", "x": "zc", "y": "tu", "z": "xa",
}  # fmt: skip
_SHORTHAND: Final = {
    "you": "u", "are": "r", "please": "pls", "because": "cuz", "what is": "whats", "don't": "dont", "I'm": "im",
    "because of": "bc of", "and": "&", "with": "w/", "without": "w/o", "people": "ppl", "really": "rly",
}  # fmt: skip


def disturb(text: str, draw: Random) -> str:
    """The text after one or two disturbances."""
    for change in draw.sample((typos, casing, punctuation, shorten, shorthand), k=draw.choice((1, 1, 2))):
        text = change(text, draw)
    return text


def typos(text: str, draw: Random, *, rate: float | None = None) -> str:
    """Letters swapped, dropped, doubled or replaced by a neighbouring key."""
    share = draw.choice((0.01, 0.03, 0.06)) if rate is None else rate
    letters = list(text)
    for place in range(len(letters) - 1, 0, -1):
        letter = letters[place]
        if not ("a" <= letter <= "z") or draw.random() >= share:
            continue
        kind = draw.randrange(4)
        if kind == 0:
            letters[place - 1 : place + 1] = [letter, letters[place - 1]]
        elif kind == 1:
            del letters[place]
        elif kind == 2:  # noqa: PLR2004  the third of four kinds
            letters.insert(place, letter)
        else:
            letters[place] = draw.choice(_NEIGHBOURS[letter])
    return "".join(letters)


def casing(text: str, draw: Random) -> str:
    """All lower case mostly, sometimes all capitals."""
    return text.lower() if draw.random() < 0.85 else text.upper()  # noqa: PLR2004


def punctuation(text: str, draw: Random) -> str:
    """Final marks dropped or repeated, apostrophes lost."""
    bare = text.rstrip("?.! ").replace("'", "" if draw.random() < 0.5 else "'")  # noqa: PLR2004
    return bare + draw.choice(("", "", "??", "...", "!!"))


def shorten(text: str, draw: Random) -> str:
    """Cut at a word: the end is missing, or the answer options of an examination question."""
    bare = _OPTIONS.sub("", text)
    if bare != text:
        return bare
    words = text.split(" ")
    if len(words) < 8:  # noqa: PLR2004  too short to lose anything
        return text
    return " ".join(words[: draw.randrange(len(words) * 2 // 3, len(words))])


def shorthand(text: str, draw: Random) -> str:
    """Chat abbreviations."""
    for word, short in _SHORTHAND.items():
        if draw.random() < 0.7:  # noqa: PLR2004
            text = re.sub(rf"\b{word}\b", short, text)
    return text
