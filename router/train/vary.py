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
_BEFORE: Final = (
    "ok so ", "hi there, ", "um ", "Good morning! ", "quick one: ", "not sure if this is the right place but ",
    "Greetings. ", "so basically ", "hey chat ", "listen, ", "Dear assistant, ", "I was wondering: ", "yo ", "pls ",
    "Thanks for earlier! ", "No that's wrong. Again: ", "hmm, ", "could you help? ", "help!! ", "[URGENT] ", "1. ",
    "re: ", "Hello ChatGPT, ", "please ", "@bot ", "Let's move on. ", "New question. ", "my friend asks: ",
    "fyi I'm new here. ",
)  # fmt: skip
_AFTER: Final = (
    " thanks in advance", " please and thank you", " any help appreciated", " (short answer please)", " asap",
    " thx a lot", " I've been stuck on this for hours.", " Be honest.", " lol", " Please be as detailed as possible.",
    "\n\n--\nSent from my phone", " No need to explain.", " Give me your best answer.", " idk", " right?",
    " Take your time.", " Use simple words.", " Explain why.", " Format the answer nicely.", " go", " ok?",
    " Please don't repeat the question.", " TIA",
)  # fmt: skip
_EMOJI: Final = (
    "\U0001f642", "\U0001f605", "\U0001f64f", "\U0001f914", "\u2728", "\U0001f602", "\U0001f44d", "\U0001f525",
    "\u2764\ufe0f", "\U0001f629", "\U0001f440", ":)", ":(", "xD",
)  # fmt: skip
_HEADINGS: Final = (
    "# Question",
    "## Task",
    "**Prompt**",
    "### Instructions",
    "# Request",
    "**Input:**",
    "---",
    "## Q1",
)


def disturb(text: str, draw: Random) -> str:
    """The text after one or two disturbances."""
    for change in draw.choices(_CHANGES, weights=_CHANGE_WEIGHTS, k=draw.choice((1, 1, 2))):
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


def chatter(text: str, draw: Random) -> str:
    """Words before or after the request that say nothing about it."""
    before, after = draw.choice(_BEFORE), draw.choice(_AFTER)
    return draw.choice((before + text, text + after, before + text + after))


def emoji(text: str, draw: Random) -> str:
    """One or more pictures at either end."""
    signs = "".join(draw.choices(_EMOJI, k=draw.choice((1, 1, 2, 3))))
    return draw.choice((f"{text} {signs}", f"{text}{signs}", f"{signs} {text}"))


def markup(text: str, draw: Random) -> str:
    """Markdown round the text: a quotation, a fence, a heading, bold words, a list."""
    kind = draw.randrange(5)
    if kind == 0:
        return "\n".join(f"> {line}" for line in text.split("\n"))
    if kind == 1:
        return f"```\n{text}\n```"
    if kind == 2:  # noqa: PLR2004  the third of five kinds
        return f"{draw.choice(_HEADINGS)}\n\n{text}"
    if kind == 3:  # noqa: PLR2004
        words = text.split(" ")
        place = draw.randrange(len(words))
        return " ".join([*words[:place], f"**{words[place]}**", *words[place + 1 :]])
    return re.sub(r"(?<=[.?!]) (?=[A-Z])", "\n- ", f"- {text}")


def spacing(text: str, draw: Random) -> str:
    """Blanks lost, doubled or turned into line breaks, as pasting from a page does."""
    kind = draw.randrange(4)
    if kind == 0:
        return re.sub(r"(?<=[,.?!]) ", lambda blank: "" if draw.random() < 0.5 else blank[0], text)  # noqa: PLR2004
    if kind == 1:
        return re.sub(r" ", lambda blank: "  " if draw.random() < 0.1 else blank[0], text)  # noqa: PLR2004
    if kind == 2:  # noqa: PLR2004  the third of four kinds
        return re.sub(r" ", lambda blank: "\n" if draw.random() < 0.07 else blank[0], text)  # noqa: PLR2004
    return f"{draw.choice(('', ' ', chr(10)))}{text}{draw.choice((' ', chr(10), chr(10) * 3))}"


def learner(text: str, draw: Random) -> str:
    """English as a second language: articles lost, endings dropped."""
    text = re.sub(r"\b(?:the|a|an) ", lambda word: "" if draw.random() < 0.6 else word[0], text)  # noqa: PLR2004
    return re.sub(r"(?<=[a-z]{3})(?:s|ed)\b", lambda end: "" if draw.random() < 0.15 else end[0], text)  # noqa: PLR2004


def behead(text: str, draw: Random) -> str:
    """The beginning is missing: what is pasted from the middle of a page."""
    words = text.split(" ")
    return text if len(words) < 12 else " ".join(words[draw.randrange(1, len(words) // 3) :])  # noqa: PLR2004


_CHANGES: Final = (typos, casing, punctuation, shorten, shorthand, chatter, emoji, markup, spacing, learner, behead)
_CHANGE_WEIGHTS: Final = (4, 4, 4, 4, 3, 4, 1, 2, 2, 2, 1)
