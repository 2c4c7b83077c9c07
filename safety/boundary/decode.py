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
from functools import cache
from itertools import islice
from string import ascii_lowercase
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from conclave.safety.boundary.cipher import unshifted

if TYPE_CHECKING:
    from re2 import Pattern, Set

DEPTH: Final = 2
MOST_CHARS: Final = 65_536  # of all readings of one text
MOST_READINGS: Final = 16
MOST_RUNS: Final = 32  # encoded runs of one kind that are looked at in one text
LEAST_PRINTABLE: Final = 0.9
LEAST_CHARS: Final = 6  # of a decoded run: shorter ones say nothing
LEAST_SPACED: Final = 4  # letters written apart, in a row

BASE64: Final = re.compile(r"(?<![\w+/-])(?:[A-Za-z0-9+/_-]{60,76}\r?\n)*[A-Za-z0-9+/_-]{12,}={0,2}")
BASE32: Final = re.compile(r"(?<![A-Z0-9])[A-Z2-7]{16,}={0,6}")
B32_TAIL: Final = (0, 0, 2, 2, 4, 5, 5, 7)  # letters of a last group, by how many there are, that make whole bytes
HEX: Final = re.compile(r"(?<![0-9A-Za-z])(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[ :,-]?){6,}(?![0-9A-Za-z])")
BINARY: Final = re.compile(r"(?<!\d)(?:[01]{8}[ ,]?){4,}(?!\d)")
PERCENT: Final = re.compile(r"(?:[^\s%]{0,64}%[0-9A-Fa-f]{2}){3,}[^\s%]{0,64}")
ENTITIES: Final = re.compile(r"(?:[^\s&;]{0,8}&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,31});){2,}")
ESCAPES: Final = re.compile(r"(?:\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\[0-7]{3}){4,}")
DECIMAL: Final = re.compile(r"(?<!\d)(?:\d{2,3}[ ,;]{1,2}){7,}\d{2,3}(?!\d)")
NUMBERED: Final = re.compile(r"(?<![\w.-])(?:\d{1,2}[ ,/-]{1,3}){11,}\d{1,2}(?![\w-])")
DUMPED: Final = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}:? {1,2}((?:[0-9A-Fa-f]{2} {0,2}){1,16})[^\n]{0,20}\n?")
DUMP: Final = re.compile(rf"(?:{DUMPED.pattern.replace('((?', '(?:(?')}){{2,4096}}")
ASCII85: Final = re.compile(r"<~[!-uz\s]{10,}~>")
CAMEL: Final = re.compile(r"(?<![A-Za-z])[A-Z][a-z]{0,19}(?:[A-Z][a-z]{0,19}){7,}(?![A-Za-z])")  # longer than names are
CAMEL_LETTERS: Final = 2.5  # of a word, in the mean: English has 4.5
SPACED: Final = re.compile(r"(?<![^\W_])[^\W_](?:([ .*_|/~-])[^\W_]){3,}(?:\1{2,3}[^\W_](?:\1[^\W_])*)*(?![^\W_])")
LEET: Final = re.compile(r"(?<![^\s\"'(\[/-])(?=[A-Za-z]*[0-9@$!|+])[A-Za-z0-9@$!|+]{2,24}")
MEASURE: Final = re.compile(r"\d+[A-Za-z]{1,3}|[A-Za-z]{1,4}\d+")  # 3rd, 10px, utf8
LEET_TO: Final = str.maketrans("013457@$!|+", "oieastasilt")
LEET_LIKE: Final = re.compile(r"[A-Za-z][013457@$!|+][A-Za-z]|(?<![^\s\"'(\[/-])[013457@$!|+][A-Za-z]")
LEAST_LEET: Final = 3  # words written so: one alone is a version number
LEET_SHARE: Final = 0.25  # of a text's words: then its short numbers are words too (`70` is `to`)
LEET_NUMBER: Final = re.compile(r"\b[013457]{1,4}\b")


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
    data = text.encode("latin-1", "replace")
    shapes = set(_automaton(SHAPES).Match(data) or ())
    if BASE64_SHAPE in shapes and not _automaton((CAPITAL,)).Match(data):
        shapes.remove(BASE64_SHAPE)  # a long word; of readable text, one base64 letter in three is a capital
    for number, run in enumerate(RUNS):
        if number not in shapes:
            continue
        matches = _base64_runs(text, data) if number == BASE64_SHAPE else run.pattern.finditer(text)
        for match in islice(matches, MOST_RUNS):
            said = run.decode(match[0])
            if len(said) >= LEAST_CHARS and said != match[0]:
                yield Reading(run.name, said, *match.span())
    if SPACED_SHAPE in shapes and (spaced := despaced(text)):
        yield Reading("spaced letters", spaced, 0, len(text))
    if LEET_SHAPE in shapes and _looks_leet(text) and (plain := unleeted(text)):
        yield Reading("leet", plain, 0, len(text))
    if shifted := unshifted(text):
        yield Reading(*shifted, 0, len(text))


def _base64_runs(text: str, data: bytes) -> Iterator[re.Match[str]]:
    """BASE64's matches; `data` is the text as Latin-1. RE2 says where they can begin: a tenth of the pattern's cost."""
    end = 0
    for run in _letters_in_a_row().finditer(data):
        if run.start() >= end and (match := BASE64.match(text, run.start())):
            end = match.end()
            yield match


@cache
def _letters_in_a_row() -> "Pattern":
    """A whole run of base64's letters: no match of BASE64 begins anywhere else."""
    import re2  # noqa: PLC0415  an import that only a policy with checks pays

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(f"{_B64}{{12,}}".encode(), options)


def _looks_leet(text: str) -> bool:
    """Whether there are enough places where a digit or mark may stand for a letter."""
    return sum(1 for _ in islice(LEET_LIKE.finditer(text), LEAST_LEET)) == LEAST_LEET


def _printable(found: bytes) -> str:
    """Bytes as text; empty if they read as none."""
    even = found[: len(found) // 2 * 2]
    try:
        if found[1::2].count(0) > len(found) // 3:  # UTF-16, as PowerShell's -EncodedCommand has it
            said = even.decode("utf-16-le")
        elif found[::2].count(0) > len(found) // 3:
            said = even.decode("utf-16-be")
        else:
            said = found.decode()
    except UnicodeDecodeError:
        return ""
    if said.replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        return said  # most that is meant to be read, at a fiftieth of the cost
    good = sum(character.isprintable() or character in "\n\r\t" for character in said)
    return said if good >= LEAST_PRINTABLE * len(said) else ""


def _base64(run: str) -> str:
    if run.islower() and run.isalpha():
        return ""  # a long word; of readable text, one base64 letter in three is a capital
    bare = "".join(run.split()).rstrip("=").replace("-", "+").replace("_", "/")
    bare = bare[: len(bare) // 4 * 4 + (len(bare) % 4 if len(bare) % 4 > 1 else 0)]
    try:
        return _printable(base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True))
    except (binascii.Error, ValueError):
        return ""


def _base32(run: str) -> str:
    bare = run.rstrip("=")
    bare = bare[: len(bare) - len(bare) % 8 + B32_TAIL[len(bare) % 8]]
    try:
        return _printable(base64.b32decode(bare + "=" * (-len(bare) % 8)))
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


def _numbered(run: str) -> str:
    """Letters by their number in the alphabet; words are parted by another sign than letters are."""
    if any(not 1 <= int(number) <= len(ascii_lowercase) for number in re.findall(r"\d+", run)):
        return ""
    words = re.split("[ ,/]+" if "-" in run else "[ ,/]{2,}|[,/]" if " " in run else "[ /]+", run)
    return " ".join("".join(ascii_lowercase[int(n) - 1] for n in re.findall(r"\d+", word)) for word in words)


def _dump(run: str) -> str:
    return _printable(bytes.fromhex("".join(row[1].replace(" ", "") for row in DUMPED.finditer(run))))


def _ascii85(run: str) -> str:
    try:
        return _printable(base64.a85decode(run, adobe=True))
    except ValueError:
        return ""


def _camel(run: str) -> str:
    if len(run) < CAMEL_LETTERS * sum(map(str.isupper, run)):
        return ""  # base64's letters: every other one is a capital
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", run)


def _escapes(run: str) -> str:
    try:
        return _printable(
            codecs.decode(run, "unicode_escape").encode("utf-16", "surrogatepass").decode("utf-16").encode()
        )
    except UnicodeError:
        return ""


@dataclass(frozen=True, slots=True)
class Run:
    """An encoding of runs of characters: what it looks like, how it decodes, and what a text that has it must have.

    `shape` is RE2's and reads a text as Latin-1, anything beyond it as `?`. It may be wider than `pattern`.
    """

    name: str
    pattern: re.Pattern[str]
    decode: Callable[[str], str]
    shape: str


_B64: Final = "[A-Za-z0-9+/_-]"
RUNS: Final = (
    Run("base64", BASE64, _base64, f"{_B64}{{12}}"),
    Run("base32", BASE32, _base32, "[A-Z2-7]{16}"),
    Run("hex", HEX, _hex, r"(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[ :,-]?){6}"),
    Run("binary", BINARY, _binary, "(?:[01]{8}[ ,]?){4}"),
    Run("decimal codes", DECIMAL, _decimal, r"(?:[0-9]{2,3}[ ,;]{1,2}){7}[0-9]{2}"),
    Run("numbered letters", NUMBERED, _numbered, "(?:[0-9]{1,2}[ ,/-]{1,3}){11}[0-9]"),
    Run("hex dump", DUMP, _dump, "[0-9A-Fa-f]{8}:? {1,2}(?:[0-9A-Fa-f]{2} {0,2}){4}"),
    Run("ascii85", ASCII85, _ascii85, r"<~[!-uz\s]{10}"),
    Run("camel case", CAMEL, _camel, "[A-Z][a-z]{0,19}(?:[A-Z][a-z]{0,19}){7}"),
    Run("percent", PERCENT, unquote, r"(?:%[0-9A-Fa-f]{2}[^\s%]{0,64}){2}%[0-9A-Fa-f]{2}"),
    Run("entities", ENTITIES, html.unescape, "&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,31});"),
    Run("escapes", ESCAPES, _escapes, r"(?:\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\[0-7]{3}){4}"),
)
_LETTER: Final = r"0-9A-Za-z\x80-\xff"
CAPITAL: Final = "|".join(f"{_B64}{{{11 - at}}}[A-Z0-9]{_B64}{{{at}}}" for at in range(11))  # base64 has one
BASE64_SHAPE: Final = 0
SPACED_SHAPE: Final = len(RUNS)
LEET_SHAPE: Final = SPACED_SHAPE + 1
SHAPES: Final = (  # in a text that is no Latin-1, `?` may have been any letter, mark or blank
    *(run.shape for run in RUNS),
    rf"(?:^|[^{_LETTER}])[{_LETTER}?](?:[ .*_|/~-][{_LETTER}?]){{3}}(?:[^{_LETTER}]|$)",
    r"[A-Za-z][013457@$!|+][A-Za-z]|(?:^|[\x09-\x0d\x1c-\x20\"'(\[/\x85\xa0?-])[013457@$!|+][A-Za-z]",
)


@cache
def _automaton(shapes: tuple[str, ...]) -> "Set":
    """Says in one pass which shapes a text has, and so which decoders have anything to look at: 0.01 ms a KB, they 0.3.

    CAPITAL stands alone: it has to know which of the last letters were capitals, and its thousand states times those of
    the other shapes cost 4 ms a KB of base64.
    """
    import re2  # noqa: PLC0415  an import that only a policy with checks pays

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    found = re2.Set.SearchSet(options)
    for shape in shapes:
        found.Add(shape.encode())
    found.Compile()
    return found


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
    words = [word for word in LEET.findall(text) if _letters(word)]
    sure = sum(not MEASURE.fullmatch(word) for word in words)
    mostly = len(words) > LEAST_LEET and len(words) >= LEET_SHARE * len(text.split())
    if sure < LEAST_LEET and not (sure and mostly):
        return ""
    read = LEET.sub(_as_letters, text)
    if not mostly:
        return read
    return LEET_NUMBER.sub(lambda match: match[0].translate(LEET_TO), read)


def _as_letters(match: re.Match[str]) -> str:
    word = match[0]
    read = _letters(word)
    return read + word[len(read) :] if read else word


def _letters(word: str) -> str:
    """A word of letters, digits and marks as letters; empty if it has none of one or of the other."""
    word = word.rstrip("!")
    read = word.translate(LEET_TO)
    return read if read != word and read.isalpha() and any(map(str.isalpha, word)) else ""
