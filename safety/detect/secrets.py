"""Secrets in a text: keys of vendors by their shape, private keys, passwords in addresses and in assignments.

The shapes stand in `rules/secrets.yaml`. What says that it is a placeholder, or has too little entropy for its shape,
is no secret. Nothing here asks a vendor whether a key is alive, and no finding holds more than four of its characters.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from conclave.safety.api import FOLDED, WRITTEN, Finding, Origin, View
from conclave.safety.detect.patterns import Hit, Judge, Patterns, Span, bounded, read_rules

NAME: Final = "secrets"
KIND: Final = "secret"
REMEDY: Final = "Leave it out, and replace the key where it is valid: it has been written down."
# Readings that programs make. Letters apart, leet and shifted alphabets make keys of nothing.
ENCODINGS: Final = frozenset({"base64", "base32", "hex", "percent", "entities", "escapes"})

BLOCK_CHARS: Final = 65_536  # a 16,384 bit RSA key has 13,000
BLOCK_EDGE: Final = re.compile(r"(-----END [A-Z0-9 ]{0,64}-----|Private-MAC: [0-9a-f]+)|-----BEGIN |PuTTY-User-Key")
BLOCK_LINE: Final = re.compile(r"(?:\s|\\+[nr])*(?:[A-Za-z-]{2,30}: [^\n\\]{0,200}|[A-Za-z0-9+/=]{16,})")
SAME: Final = re.compile(r"(.)\1{7}")  # eight alike in a row: about one in 10^12 random keys
REFERENCE: Final = re.compile(r"[A-Za-z_]+(?:[._-][A-Za-z_]+)*\d?")  # settings.api_key, my-token-2
WORDS: Final = re.compile(
    r"pass(?:word|wd|phrase)?|pwd|secret|token|user(?:name)?|admin|root|guest|test|postgres|mysql|redis|null|none|true|"
    r"false|undefined|string|optional|required|hidden|empty|default|value|changeit",
    re.IGNORECASE,
)
STRONG: Final = frozenset("0123456789!@#$%^&*+=?~|")


class SecretsCheck:
    """Finds secrets in texts of every origin, as written and as programs encode them (base64, hex, URLs, ...)."""

    def __init__(self) -> None:
        file = read_rules(NAME)
        self._patterns = Patterns(file.rules, JUDGES)
        self._placeholders = tuple(file.placeholders)

    @property
    def name(self) -> str:
        return NAME

    @property
    def origins(self) -> frozenset[Origin]:
        return frozenset(Origin)

    @property
    def decodes(self) -> bool:
        return True

    def inspect(self, view: View) -> Sequence[Finding]:
        """Each secret with its place in the text as written; of an encoded one, the place of the encoded run."""
        reading = _Reading.of(view)
        if not reading.counts:
            return ()
        found = {}
        for hit in bounded(self._counted(view.text, reading)):
            place = Span(hit.start, hit.end) if reading.exact else Span(view.start, view.end)
            found[hit.rule.kind, place] = hit.finding(NAME, KIND, view, place=place, remedy=REMEDY)
        return list(found.values())

    def _counted(self, text: str, reading: "_Reading") -> Iterator[Hit]:
        for hit in self._patterns.hits(text):
            value = text[hit.start : hit.end]
            if not self._is_placeholder(value) and reading.adds(value, weak=hit.rule.weak):
                yield hit

    def _is_placeholder(self, value: str) -> bool:
        if value.startswith("-----"):
            return False  # of a key's block the letters say nothing: an SSH key is full of A
        lowered = value.lower()
        for part in self._placeholders:  # a loop: a generator in `any` takes three times as long, for each find
            if part in lowered:
                return True
        return SAME.search(value) is not None


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a view is read: at all, and with places that are those of the text as written (`exact`)."""

    counts: bool
    exact: bool
    written: str = field(repr=False)

    @classmethod
    def of(cls, view: View) -> "_Reading":
        text = view.segment.text
        if view.name == WRITTEN:
            return cls(counts=True, exact=True, written="")
        if view.name == FOLDED:
            return cls(counts=True, exact=len(view.text) == len(text), written=text)
        return cls(counts=ENCODINGS.issuperset(view.name.split(" in ")), exact=False, written=text)

    def adds(self, value: str, *, weak: bool) -> bool:
        """Whether a find says something that the text as written did not; a weak shape in a decoded text does not."""
        return not self.written or (not weak and value not in self.written)


def whole_block(text: str, start: int, end: int) -> Span:
    """From the first line of a private key to its last; if that is missing, as far as lines look like a key's."""
    edge = BLOCK_EDGE.search(text, end, end + BLOCK_CHARS)
    if edge and edge[1]:
        return Span(start, edge.end())
    last = end + BLOCK_CHARS
    while end < last and (line := BLOCK_LINE.match(text, end, last)):
        end = line.end()
    return Span(start, end)


def is_jwt(text: str, start: int, end: int) -> Span | None:
    """The first part is JSON that names an algorithm."""
    head = text[start : text.index(".", start)]
    try:
        fields = msgspec.json.decode(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):  # too deep for msgspec
        return None
    return Span(start, end) if isinstance(fields, dict) and "alg" in fields else None


def is_discord(text: str, start: int, end: int) -> Span | None:
    """The first part is a number, the bot's."""
    head = text[start : text.index(".", start)]
    try:
        number = base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))
    except (binascii.Error, ValueError):
        return None
    return Span(start, end) if number.isdigit() else None


def is_password(text: str, start: int, end: int) -> Span | None:
    """Not the word itself, not a variable; in an assignment with a digit or a mark, as labels of a form have none."""
    value = text[start:end]
    if WORDS.fullmatch(value) or value[0] in "%{$<[":
        return None
    in_address = text[end : end + 1] == "@"
    return Span(start, end) if in_address or not STRONG.isdisjoint(value) else None


def is_mixed(text: str, start: int, end: int) -> Span | None:
    """Digits and letters, and neither an address, a date nor the name of something; marks at the end are left off."""
    value = text[start:end].rstrip(".,:;?!")
    if "://" in value or "$" in value or REFERENCE.fullmatch(value) or re.match(r"\d{4}-\d\d", value):
        return None
    digits = sum(character.isdigit() for character in value)
    letters = sum(character.isalpha() for character in value)
    return Span(start, start + len(value)) if digits and letters else None


JUDGES: Final[Mapping[str, Judge]] = {
    "block": whole_block,
    "discord": is_discord,
    "jwt": is_jwt,
    "mixed": is_mixed,
    "password": is_password,
}
