"""Takes out of data whatever could be read as one of our own markers, or as the end of a message.

The markers carry the word `conclave-quoted`. Data that holds it, however it is written, gets `[marker]` in its place:
in other case, apart, padded, with characters that nobody sees, in look-alikes or leet, in escapes of JSON, HTML and
URLs, twice escaped. What is encoded as a whole (base64) is no marker to anybody who reads. Control words of chat
templates (`<|im_end|>`) get a space, so that no tokenizer takes them for what they say. Linear; the same object if
nothing changes. Nothing here decides what is data.
"""

import html
import re
import string
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from conclave.safety.boundary.views import confusables

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORD: Final = "conclave-quoted"
LETTERS: Final = WORD.replace("-", "").encode()
REMOVED: Final = "[marker]"  # has letters that the word has not, so that no cut can make a new word
LAST: Final = 0x20000  # letters of styled alphabets and look-alikes lie below
TAGS: Final = 0xE0000  # their characters are those of ASCII, unseen
TAG: Final = re.compile("[\U000e0020-\U000e007e]")
ENCLOSED: Final = (0x1F130, 0x1F150, 0x1F170, 0x1F1E6)  # alphabets of squares, discs and flags, which do not unfold
LOOKS: Final = {  # what Unicode's table of look-alikes leaves out: letters with strokes, Greek, Armenian, Georgian, IPA
    "a": "\u0251\u0250\u03b1\u2c65\u1d00\u237a",
    "c": "\u00a2\u023c\u0188\u03f2\u1d04\u2ca5\ua793\u03c2",
    "d": "\u0111\u00f0\u0256\u0257\u0501\u1d05\u0221",
    "e": "\u20ac\u0247\u0259\u025b\u03b5\u1d07\u212e\u0454\u0465\u0435",
    "l": "\u0142\u026b\u026d\u04cf\u01c0\u0131\u0269\u03b9\u0456\u2113\u2502\u2223",
    "n": "\u0578\u057c\u03b7\u043f\u0272\u0273\u014b\u0274\u0438",
    "o": "\u00f8\u0275\u03c3\u0585\u1d0f\u25cb\u25ef\u2b58\u3007\u0ae6\u10ff\u25cf",
    "q": "\u0566\u051b\u024b\u02a0\u0563\u03d9",
    "t": "\u0167\u03c4\u0442\u01ad\u0288\u1d1b\u2020",
    "u": "\u057d\u03c5\u028b\u0289\u00b5\u03bc\u1d1c\u0446\u10fe",
    "v": "\u03bd\u0475\u1d20\u028c\u2228\u2c71\u05d8",
}
LEET: Final = {"0": "o", "1": "l", "3": "e", "4": "a", "7": "t", "9": "q", "i": "l", "I": "l"}
ALPHABETS: Final[tuple[dict[str, str], ...]] = (  # what shows a letter beside styled ones, and is nothing in the others
    {},
    {},  # look-alikes of other alphabets
    LEET,  # and digits
    LEET | {"@": "a", "|": "l", "!": "l"},  # and signs, which may as well be padding
)
ALIKE: Final = 1  # from here on look-alikes count
JSON: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\u\{[0-9a-fA-F]{1,6}\}"
    r"|\\x[0-9a-fA-F]{2}|\\[0-7]{3}|\\\\"
)
URL: Final = re.compile(
    r"%[0-7][0-9a-fA-F]|%[cCdD][0-9a-fA-F]%[89abAB][0-9a-fA-F]|%[eE][0-9a-fA-F](?:%[89abAB][0-9a-fA-F]){2}"
    r"|%[fF][0-7](?:%[89abAB][0-9a-fA-F]){3}|%[89a-fA-F][0-9a-fA-F]"
)
HTML: Final = re.compile(
    r"&#[0-9]{1,16};?|&#[xX][0-9a-fA-F]{1,16};?|&[A-Za-z][A-Za-z0-9]{1,31};|&(?:amp|lt|gt|nbsp|shy)"
)
SEVERAL: Final = re.compile(
    "[\u2100-\u214f\u3250\u32cc-\u32cf\u3371-\u33df\u01c4-\u01f3\ufb00-\ufb06]"
)  # letters in one
ESCAPES: Final = ((JSON, "\\"), (URL, "%"), (HTML, "&"), (SEVERAL, "")) * 3  # as they are undone, and a sign of each
CONTROL: Final = re.compile(
    r"<(?=[|\uff5c][^\s<>|\uff5c]{2,32}[|\uff5c]>|</?SYS>>|(?:start|end)_of_turn>|/?tool_(?:response|call)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|TOOL_CONTENT)\])"
)


def defused(text: str) -> str:
    """The text without anything that reads as a marker."""
    said, idle = text, 0
    for step in range(len(ESCAPES) + 1):
        for way in _ways(said) if idle == 0 else ():
            if _holds_it(said, way):
                text = _cut(text, step, way)
                said = _undone(text, step)
        if step == len(ESCAPES) or idle == len(ESCAPES) // 3:
            break
        before, said = said, _once_undone(said, step)
        idle = idle + 1 if said == before else 0
    return CONTROL.sub(r"\g<0> ", text) if "<" in text or "[" in text else text


def _ways(text: str) -> Iterable[tuple[int, bool]]:
    """How a text is to be read: with which alphabet, and whether tags are letters or nothing; none if it is no use."""
    if text.isascii():  # a quick look for the letters that have no look-alike: most short texts lack one
        small = text.lower()
        if not (("q" in small or "9" in small) and all(letter in small for letter in "vudcn")):
            return ()
    tags = (False, True) if TAG.search(text) else (False,)
    alphabets = [at for at in range(len(ALPHABETS)) if at != ALIKE or not text.isascii()]
    return [(alphabet, seen) for alphabet in alphabets for seen in tags]


def _holds_it(text: str, way: tuple[int, bool]) -> bool:
    if not text.isascii():
        return LETTERS in _letters(text, way)[0]
    shown, nothing = _ascii(way[0])
    return LETTERS in text.encode("ascii").translate(shown, nothing)  # ten times as fast


def _undone(text: str, steps: int) -> str:
    for step in range(steps):
        text = _once_undone(text, step)
    return text


def _once_undone(text: str, step: int) -> str:
    pattern, sign = ESCAPES[step]
    return pattern.sub(_unescaped, text) if (sign in text if sign else not text.isascii()) else text


def _unescaped(match: re.Match[str]) -> str:
    """What an escape stands for; an escape that stands for nothing is nothing."""
    escape = match[0]
    kind, size = escape[:2], len(escape)
    if kind == "\\u" and size == 12:  # noqa: PLR2004  a pair of surrogates
        return (bytes.fromhex(escape[2:6]) + bytes.fromhex(escape[8:])).decode("utf-16-be")
    if kind in {"\\u", "\\x"}:
        point = int(escape[2:].strip("{}"), 16)
        return chr(point) if point <= 0x10FFFF else ""  # noqa: PLR2004  the last one of Unicode
    if kind[0] == "%":
        return unquote(escape, errors="ignore")
    if kind[0] == "&":
        return html.unescape(escape)
    if kind[0] == "\\":
        return "\\" if size == 2 else chr(int(escape[1:], 8))  # noqa: PLR2004  a backslash that is escaped itself
    return unicodedata.normalize("NFKC", escape)


def _letters(text: str, way: tuple[int, bool]) -> "tuple[bytes, NDArray[np.intp]]":
    """The Latin letters that a text shows, in small ones, and where each stands in it."""
    import numpy as np  # noqa: PLC0415

    alphabet, tags = way
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)  # [chars]
    if tags:
        points = np.where((points >= TAGS) & (points < TAGS + 0x80), points - TAGS, points)
    codes = _table(alphabet)[np.minimum(points, LAST)]  # [chars]
    at = np.flatnonzero(codes)  # [letters]
    return codes[at].tobytes(), at


def _cut(text: str, steps: int, way: tuple[int, bool]) -> str:
    """The text with every marker replaced that is seen after so many steps of undoing its escapes."""
    import numpy as np  # noqa: PLC0415

    said, starts = text, np.arange(len(text))  # starts: where in `text` each character of `said` begins
    for step in range(steps):
        said, starts = _once_undone_at(said, step, starts)
    ends = np.append(starts, len(text))
    letters, at = _letters(said, way)
    kept: list[str] = []
    done, found = 0, letters.find(LETTERS)
    while found >= 0:
        begin, last = int(starts[at[found]]), int(starts[at[found + len(LETTERS) - 1]])
        kept += (text[done:begin], REMOVED)
        done = int(ends[np.searchsorted(starts, last, side="right")])
        found = letters.find(LETTERS, found + len(LETTERS))
    return "".join((*kept, text[done:]))


def _once_undone_at(text: str, step: int, starts: "NDArray[np.intp]") -> "tuple[str, NDArray[np.intp]]":
    """A text after one step, and where its characters began; `starts` says that of this text's."""
    import numpy as np  # noqa: PLC0415

    found = [(match.start(), match.end(), len(_unescaped(match))) for match in ESCAPES[step][0].finditer(text)]
    if not found:
        return text, starts
    begins, ends, sizes = np.array(found, dtype=np.intp).T  # [escapes] each
    edges = np.zeros(len(text) + 1, dtype=np.int8)
    edges[begins] += 1
    np.subtract.at(edges, ends, 1)  # one may begin where another ends
    plain = np.flatnonzero(np.cumsum(edges[:-1]) == 0)  # [characters that are no part of one]
    at = np.sort(np.concatenate((plain, np.repeat(begins, sizes))))
    return _once_undone(text, step), starts[at]


@cache
def _table(alphabet: int) -> "NDArray[np.uint8]":
    """For each code point below LAST the small Latin letter that it shows, 0 for none; 0.1 MB."""
    import numpy as np  # noqa: PLC0415

    more = ALPHABETS[alphabet]
    table = np.zeros(LAST + 1, dtype=np.uint8)
    for character, shown in (_shown(alike=alphabet >= ALIKE) | more).items():
        letter = more.get(shown, shown)
        table[ord(character)] = ord(letter) if letter.isalpha() else 0
    return table


@cache
def _ascii(alphabet: int) -> tuple[bytes, bytes]:
    """The same of ASCII for `bytes.translate`: what each byte shows, and those that show nothing."""
    shown = _table(alphabet)[:256].tobytes()
    return shown, bytes(byte for byte in range(128) if not shown[byte])


@cache
def _shown(*, alike: bool) -> dict[str, str]:
    """The characters below LAST that show one Latin letter or digit, or with `alike` are known to look like one."""
    found = {one: one.lower() for one in string.ascii_letters + string.digits}
    for first in ENCLOSED:
        found |= {chr(first + at): letter for at, letter in enumerate(string.ascii_lowercase)}
    if alike:
        found |= {chr(point): plain.lower() for point, plain in confusables().items()}
        for letter, looks in LOOKS.items():
            found |= dict.fromkeys((*looks, *(one for one in looks.upper() if not one.isascii())), letter)
    for point in range(0x80, LAST):
        character = chr(point)
        if unicodedata.decomposition(character):
            base = [one for one in unicodedata.normalize("NFKD", character) if one.isalnum()]
            if len(base) == 1:
                found.setdefault(character, found.get(base[0], base[0]).lower())
    return {character: shown for character, shown in found.items() if shown.isascii() and shown.isalnum()}


def warm() -> None:
    """Make the tables, so that the first request need not wait for them."""
    for alphabet in range(len(ALPHABETS)):
        _table(alphabet)
