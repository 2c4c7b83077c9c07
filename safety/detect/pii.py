"""Personal data in a text: cards, bank accounts, social security numbers, e-mail, phones, addresses, documents.

The shapes stand in `rules/pii.yaml`. Where a number has a checksum, that decides; where it has none, a word near it
must say what it is. Names and postal addresses have no shape and are not looked for.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from conclave.safety.api import Finding, Origin, View
from conclave.safety.detect.patterns import ESCAPES, Judge, Patterns, Span, bounded, read_rules

NAME: Final = "pii"
KINDS: Final = frozenset({"card", "iban", "ssn", "email", "phone", "ip", "passport", "driving_licence"})
USUAL: Final = KINDS - {"ip"}  # a text about networks is full of them, and most belong to nobody
REMEDY: Final = "Leave it out or write a placeholder for it."

# Issuer by first digits, and how many digits its cards have: ISO/IEC 7812 as the networks publish their ranges.
ISSUERS: Final = (
    (range(4, 5), (16, 19)),  # Visa
    (range(51, 56), (16,)),  # Mastercard
    (range(2221, 2721), (16,)),
    (range(34, 35), (15,)),  # American Express
    (range(37, 38), (15,)),
    (range(300, 306), (14, 16)),  # Diners Club
    (range(36, 37), (14,)),
    (range(38, 40), (14, 16)),
    (range(6011, 6012), (16, 19)),  # Discover
    (range(644, 660), (16, 19)),
    (range(3528, 3590), (16,)),  # JCB
    (range(62, 63), (16, 17, 18, 19)),  # UnionPay
    (range(50, 51), (16, 19)),  # Maestro, of the lengths in use
    (range(56, 59), (16, 19)),
    (range(67, 68), (16, 19)),
)
BEFORE: Final = re.compile(r"[0-9A-Z]{2}\d\d[ -]")  # a group like the card's own: an IBAN, a table of numbers
AFTER: Final = re.compile(r"(?:[ -]\d{4}){2}")  # one group may be the month and year

# Characters of an IBAN by country: the registry that SWIFT keeps for ISO 13616.
IBAN_COUNTRIES: Final = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
IBAN_CHARS: Final = {country: size for size, line in IBAN_COUNTRIES.items() for country in line.split()}
LETTERS: Final = {ord("A") + at: str(10 + at) for at in range(26)}  # ISO 7064's numbers for them
# What a number can begin with: ITU-T E.164's list of country codes, as far as they are assigned.
CALLING: Final = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2[1235689]\d|2[46][0-9]|29[01789]|35\d|37\d|38[0-35-79]|"
    r"42[013]|50\d|59\d|67\d|68\d|69[0-2]|80[08]|85[02356]|87[08]|88[0168]|96\d|97\d|99[2-68]"
)
AREA: Final = re.compile(r"\(?[2-9]\d\d\)?[ .-]?[2-9]\d\d[ .-]?\d{4}")  # United States and Canada
NO_DIGIT: Final = re.compile(r"[^0-9]+")
FICTION: Final = re.compile(r"55501\d\d$")  # 555-0100 to 555-0199 are kept for stories
FILES: Final = re.compile(r".*\.(?:png|jpe?g|gif|webp|svg|js|ts|css|json|py|md|ya?ml|so|dll)", re.IGNORECASE)
SERVICES: Final = re.compile(r"(?:git|hg|svn)@", re.IGNORECASE)


class PiiCheck:
    """Finds personal data in texts of every origin, as written. `kinds` are those that count."""

    def __init__(self, kinds: Collection[str] = USUAL) -> None:
        unknown = sorted(set(kinds) - KINDS)
        if unknown or not kinds:
            raise ValueError(f"no such kind of personal data: {unknown}; known are {', '.join(sorted(KINDS))}")
        file = read_rules(NAME)
        self._patterns = Patterns((rule for rule in file.rules if rule.kind in kinds), JUDGES)
        self._published = frozenset(file.published)

    @property
    def name(self) -> str:
        return NAME

    @property
    def origins(self) -> frozenset[Origin]:
        return frozenset(Origin)

    @property
    def decodes(self) -> bool:
        return False

    def inspect(self, view: View) -> Sequence[Finding]:
        """Each piece of personal data with its place; numbers that are published as nobody's are none."""
        hits = self._patterns.hits(view.text)
        counted = bounded(hit for hit in hits if digits_of(view.text[hit.start : hit.end]) not in self._published)
        return [hit.finding(NAME, NAME, view, place=Span(hit.start, hit.end), remedy=REMEDY) for hit in counted]


def digits_of(text: str) -> str:
    """The ASCII digits alone."""
    return NO_DIGIT.sub("", text)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    doubled = (2 * int(digit) for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(value - 9 * (value > 9) for value in doubled)) % 10 == 0  # noqa: PLR2004


def is_card(text: str, start: int, end: int) -> Span | None:
    """A known issuer, its length and Luhn's check digit; no part of a longer number or of a table of numbers.

    Three digits more after a separator may be the card's, or the code on its back.
    """
    if _in_number(text, start, end) or BEFORE.match(text, max(0, start - 5), start) or AFTER.match(text, end):
        return None
    shown = text[start:end]
    for cut in (shown, shown[:-4]) if shown[-4] in " -" else (shown,):
        digits = digits_of(cut)
        size = len(digits)
        known = any(int(digits[: len(str(first[0]))]) in first and size in sizes for first, sizes in ISSUERS)
        if known and len(set(digits)) > 2 and luhn(digits):  # noqa: PLR2004  0000 and 0101 are no card's
            return Span(start, start + len(cut))
    return None


def is_iban(text: str, start: int, end: int) -> Span | None:
    """As many characters as its country has, and 97's remainder 1 (ISO 7064). What follows is left off."""
    left = IBAN_CHARS.get(text[start : start + 2], 0)
    if not left:
        return None
    at = start
    while left and at < end:
        left -= text[at] not in " -"
        at += 1
    bare = text[start:at].replace(" ", "").replace("-", "")
    if left or text[at : at + 1].isalnum():
        return None
    number = int(f"{bare[4:]}{bare[:4]}".translate(LETTERS))
    return Span(start, at) if number % 97 == 1 else None


def is_ssn(text: str, start: int, end: int) -> Span | None:
    """A number that the Social Security Administration can have given out."""
    digits = digits_of(text[start:end])
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    given = area not in {"000", "666"} and area < "900" and group != "00" and serial != "0000"
    return Span(start, end) if given and not _in_number(text, start, end) else None


def is_email(text: str, start: int, end: int) -> Span | None:
    """An address that a mail server would take (RFC 5321's lengths), no remote of a repository and no file's name."""
    if text[max(0, start - 1) : start + 1] in ESCAPES:
        start += 1
    local, _, domain = text[start:end].partition("@")
    if not 0 < len(local) <= 64 or len(domain) > 253 or ".." in local or local.endswith("."):  # noqa: PLR2004  RFC 5321
        return None
    if FILES.fullmatch(domain) or SERVICES.match(text, start):
        return None
    return None if text[end : end + 1] == ":" and text[max(0, start - 6) : start] == "ssh://" else Span(start, end)


def is_international(text: str, start: int, end: int) -> Span | None:
    """E.164: a country code and 8 to 15 digits in all, `+` not after a number (a sum), grouped or of full length."""
    digits = digits_of(text[start:end])
    before = text[max(0, start - 2) : start]
    if before not in ESCAPES and (before[-1:].isalnum() or before[-1:] in {"+", ")"}):
        return None
    shown = text[start:end]
    long_enough = len(digits) >= 10 or any(mark in shown for mark in " -()/")  # noqa: PLR2004
    if text[end : end + 1].isdigit() or text[end : end + 2].lstrip().startswith("%") or not long_enough:
        return None
    return Span(start, end) if 8 <= len(digits) <= 15 and CALLING.match(digits) else None  # noqa: PLR2004  E.164


def is_national(text: str, start: int, end: int) -> Span | None:
    """Begins with the trunk's 0 and has 9 to 12 digits, or is North American; not 555-01xx, no part of a number."""
    digits = digits_of(text[start:end])
    if _in_number(text, start, end) or FICTION.search(digits):
        return None
    trunk = digits.startswith("0") and 9 <= len(digits) <= 12  # noqa: PLR2004
    return Span(start, end) if trunk or AREA.fullmatch(text, start, end) else None


def is_address(text: str, start: int, end: int) -> Span | None:
    """An address of the public internet; four numbers with more dots around them are a version."""
    if _in_number(text, start, end):
        return None
    try:
        public = ipaddress.ip_address(text[start:end]).is_global
    except ValueError:
        return None
    return Span(start, end) if public else None


def is_document(text: str, start: int, end: int) -> Span | None:
    """Letters and at least five digits: what the word near it is about, and no other word in capitals."""
    if _in_number(text, start, end):
        return None
    return Span(start, end) if len(digits_of(text[start:end])) >= 5 else None  # noqa: PLR2004


def _in_number(text: str, start: int, end: int) -> bool:
    """Whether digits go on before or after it, with a dot, a comma or a hyphen between."""
    before = text[start - 1 : start] in {".", ",", "-", "+", "#"} and text[start - 2 : start - 1].isalnum()
    after = text[end : end + 1] in {".", ",", "-"} and text[end + 1 : end + 2].isdigit()
    return before or after


JUDGES: Final[Mapping[str, Judge]] = {
    "card": is_card,
    "document": is_document,
    "email": is_email,
    "iban": is_iban,
    "international": is_international,
    "ip": is_address,
    "national": is_national,
    "ssn": is_ssn,
}
