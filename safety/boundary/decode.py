"""Readings of a text that a person or a model would decode: base64, hex, percent, entities, escapes, leet.

Each decoder looks for its own shape with one linear pattern, decodes what it finds, and gives up on what does not read
as text. `readings` applies them to what they found once more (base64 within hex), within a cap on all characters made.
Nothing here judges what a text says; shifted alphabets are cipher.py's.
"""

import base64
import binascii
import codecs
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final
from urllib.parse import unquote

from conclave.safety.boundary.cipher import unshifted

DEPTH: Final = 2
MOST_CHARS: Final = 65_536  # of all readings of one text
MOST_READINGS: Final = 16
MOST_RUNS: Final = 32  # encoded runs of one kind that are looked at in one text
LEAST_PRINTABLE: Final = 0.9
LEAST_CHARS: Final = 6  # of a decoded run: shorter ones say nothing
LEAST_SPACED: Final = 4  # letters written apart, in a row

BASE64: Final = re.compile(r"(?<![\w+/-])(?:[A-Za-z0-9+/_-]{60,76}\r?\n)*[A-Za-z0-9+/_-]{12,}={0,2}")
BASE32: Final = re.compile(r"(?<![A-Z0-9])[A-Z2-7]{16,}={0,6}")
HEX: Final = re.compile(r"(?<![0-9A-Za-z])(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[ :,-]?){6,}(?![0-9A-Za-z])")
BINARY: Final = re.compile(r"(?<!\d)(?:[01]{8}[ ,]?){4,}(?!\d)")
PERCENT: Final = re.compile(r"(?:[^\s%]{0,64}%[0-9A-Fa-f]{2}){3,}[^\s%]{0,64}")
ENTITIES: Final = re.compile(r"(?:[^\s&;]{0,8}&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,31});){2,}")
ESCAPES: Final = re.compile(r"(?:\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\[0-7]{3}){4,}")
DECIMAL: Final = re.compile(r"(?<!\d)(?:\d{2,3}[ ,;]{1,2}){7,}\d{2,3}(?!\d)")
SPACED: Final = re.compile(r"(?<![^\W_])[^\W_](?:([ .*_|/~-])[^\W_]){3,}(?:\1{2,3}[^\W_](?:\1[^\W_])*)*(?![^\W_])")
LEET: Final = re.compile(r"(?<![^\s\"'(\[])[A-Za-z0-9@$!|+]{2,24}")
MEASURE: Final = re.compile(r"\d+[A-Za-z]{1,3}|[A-Za-z]{1,4}\d+")  # 3rd, 10px, utf8
LEET_TO: Final = str.maketrans("013457@$!|+", "oieastasilt")
LEET_LIKE: Final = re.compile(r"[A-Za-z][013457@$!|+][A-Za-z]|(?<![^\s\"'(\[])[013457@$!|+][A-Za-z]")
WITHOUT_DIGITS: Final = dict.fromkeys(map(ord, "0123456789"))
LEAST_LEET: Final = 3  # words written so: one alone is a version number


@dataclass(frozen=True, slots=True)
class Reading:
    """What a part of a text (characters `start` to `end`) says when it is decoded as `name`."""

    name: str
    text: str
    start: int
    end: int


def readings(text: str) -> list[Reading]:
    """All readings of a text, those of readings too; `start` and `end` are always positions in `text`."""
    found: list[Reading] = []
    room = MOST_CHARS
    level = [Reading("", text, 0, len(text))]
    for _ in range(DEPTH):
        below: list[Reading] = []
        for outer in level:
            for inner in _once(outer.text):
                if len(found) >= MOST_READINGS or len(inner.text) > room:
                    return found
                room -= len(inner.text)
                name = f"{inner.name} in {outer.name}" if outer.name else inner.name
                start, end = (outer.start, outer.end) if outer.name else (inner.start, inner.end)
                found.append(Reading(name, inner.text, start, end))
                below.append(found[-1])
        level = below
    return found


def _once(text: str) -> Iterator[Reading]:
    text = text[:MOST_CHARS]
    digits = len(text) - len(text.translate(WITHOUT_DIGITS))
    longest = max(map(len, text.split()), default=0)
    for run in RUNS:
        if not run.may_be_in(text, digits, longest):
            continue
        for match in islice(run.pattern.finditer(text), MOST_RUNS):
            said = run.decode(match[0])
            if len(said) >= LEAST_CHARS and said != match[0]:
                yield Reading(run.name, said, *match.span())
    if spaced := despaced(text):
        yield Reading("spaced letters", spaced, 0, len(text))
    if len(LEET_LIKE.findall(text)) >= LEAST_LEET and (plain := unleeted(text)):
        yield Reading("leet", plain, 0, len(text))
    if shifted := unshifted(text):
        yield Reading(*shifted, 0, len(text))


def _printable(found: bytes) -> str:
    """Bytes as text; empty if they read as none."""
    wide = found[1::2].count(0) > len(found) // 3  # UTF-16, as PowerShell's -EncodedCommand has it
    try:
        said = found[: len(found) // 2 * 2].decode("utf-16-le") if wide else found.decode()
    except UnicodeDecodeError:
        return ""
    good = sum(character.isprintable() or character in "\n\r\t" for character in said)
    return said if good >= LEAST_PRINTABLE * len(said) else ""


def _base64(run: str) -> str:
    bare = "".join(run.split()).rstrip("=").replace("-", "+").replace("_", "/")
    bare = bare[: len(bare) // 4 * 4 + (len(bare) % 4 if len(bare) % 4 > 1 else 0)]
    try:
        return _printable(base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True))
    except (binascii.Error, ValueError):
        return ""


def _base32(run: str) -> str:
    bare = run.rstrip("=")
    bare = bare[: len(bare) // 8 * 8]
    try:
        return _printable(base64.b32decode(bare))
    except (binascii.Error, ValueError):
        return ""


def _hex(run: str) -> str:
    digits = re.sub(r"0x|\\x|[^0-9A-Fa-f]", "", run)
    return _printable(bytes.fromhex(digits[: len(digits) // 2 * 2]))


def _binary(run: str) -> str:
    digits = re.sub(r"[^01]", "", run)
    return _printable(bytes(int(digits[at : at + 8], 2) for at in range(0, len(digits) // 8 * 8, 8)))


def _decimal(run: str) -> str:
    codes = [int(code) for code in re.findall(r"\d+", run)]
    return _printable(bytes(codes)) if all(9 <= code <= 126 for code in codes) else ""  # noqa: PLR2004  ASCII


def _escapes(run: str) -> str:
    try:
        return _printable(
            codecs.decode(run, "unicode_escape").encode("utf-16", "surrogatepass").decode("utf-16").encode()
        )
    except UnicodeError:
        return ""


@dataclass(frozen=True, slots=True)
class Run:
    """An encoding of runs of characters: what it looks like, how it decodes, and what a text that has it must have."""

    name: str
    pattern: re.Pattern[str]
    decode: Callable[[str], str]
    mark: str = ""
    marks: int = 0
    digits: int = 0
    longest: int = 0

    def may_be_in(self, text: str, digits: int, longest: int) -> bool:
        """A quick look: counts are ten times as fast as patterns."""
        enough = digits >= self.digits and longest >= self.longest
        return enough and (not self.mark or text.count(self.mark) >= self.marks)


RUNS: Final = (
    Run("base64", BASE64, _base64, longest=12),
    Run("base32", BASE32, _base32, longest=16),
    Run("hex", HEX, _hex, digits=6),
    Run("binary", BINARY, _binary, digits=32),
    Run("decimal codes", DECIMAL, _decimal, digits=16),
    Run("percent", PERCENT, unquote, mark="%", marks=3),
    Run("entities", ENTITIES, html.unescape, mark="&", marks=2),
    Run("escapes", ESCAPES, _escapes, mark="\\", marks=4),
)


def despaced(text: str) -> str:
    """The text with words that are written letter by letter (`i g n o r e`) closed up; empty if there are none."""
    found = False

    def close(match: re.Match[str]) -> str:
        nonlocal found
        mark = re.escape(match[1])
        words = re.split(f"{mark}{{2,3}}", match[0])
        found |= any(len(word) > 2 * LEAST_SPACED - 2 for word in words)
        return " ".join(word.replace(match[1], "") for word in words)

    closed = SPACED.sub(close, text)
    return closed if found else ""


def unleeted(text: str) -> str:
    """The text with digits and marks within words read as letters; empty if hardly any word has them."""
    words = sum(bool(_letters(word)) and not MEASURE.fullmatch(word) for word in LEET.findall(text))
    return LEET.sub(_as_letters, text) if words >= LEAST_LEET else ""


def _as_letters(match: re.Match[str]) -> str:
    word = match[0]
    read = _letters(word)
    return read + word[len(read) :] if read else word


def _letters(word: str) -> str:
    """A word of letters, digits and marks as letters; empty if it has none of one or of the other."""
    word = word.rstrip("!")
    read = word.translate(LEET_TO)
    return read if read != word and read.isalpha() and any(map(str.isalpha, word)) else ""
