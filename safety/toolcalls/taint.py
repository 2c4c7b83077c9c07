"""Where a value of a tool call comes from: whose text it stands in, and whether that text orders something there.

Untrusted are the results of tools, files, images, looked-up and remembered texts, in every view; trusted are the
user's and the application's own words. Texts are read once per call and only when a call is judged. Bounded, linear.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from conclave.safety.api import DATA, Origin, Segment, View
from conclave.safety.boundary.views import looks
from conclave.safety.toolcalls.words import asked_verbs, stems

MOST_DECODED: Final = 16_384  # characters of untrusted text whose decoded views are read, too
MOST_CHARS: Final = 400_000  # of untrusted texts; beyond it the newest count
SHINGLE: Final = 40  # characters of a long value that must stand in a text to come from there
MOST_SHINGLES: Final = 64
LONG: Final = 60  # characters from which on a value is compared by parts
MOST_HITS: Final = 24  # places of one value that are looked at
AROUND: Final = 320  # characters of a sentence before and after a place
ORDERS: Final = 64  # sentences of untrusted text that are read as orders
LEAST_DIGITS: Final = 4
FEWEST_BLANKS: Final = 2  # in a sentence that orders something

EMAIL: Final = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}")
URL: Final = re.compile(r"(?i)\b(?:https?|ftp)://[^\s\"'<>\\)\]}]{3,2000}|\bwww\.[^\s\"'<>\\)\]}]{3,500}")
NUMBER: Final = re.compile(r"\+?\d(?:[\d,. /-]{0,40}\d)?")
SPECIFIC: Final = re.compile(r"[\d@/#_~:\\]|[a-z][A-Z]")
SENTENCE: Final = re.compile(  # ends of sentences, of lines, and of the values of JSON and of what looks like it
    r"[.!?;](?=[\s\"'\\}\]]|$)|\n|\\n|['\"](?:[}\]]|,(?=\s{0,4}['\"][\w -]{1,40}['\"]\s?:))|['\"]: *['\"{\[]"
)
AFFIRMS: Final = re.compile(
    r"(?i)^\W*(?:yes|yep|yeah|ok|okay|sure|go ahead|do it|please do|confirmed?|correct|right|proceed|sounds good|"
    r"exactly|approved?|ja|oui|si)\b"
)
AFFIRM_CHARS: Final = 160

ViewsOf = Callable[[Segment], Sequence[View]]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value stands in untrusted text; `ordered` if a sentence there tells somebody to do something."""

    segment: Segment
    start: int
    end: int
    sentence: str
    view: str = "written"


@dataclass(frozen=True, slots=True)
class Order:
    """A sentence of untrusted text that tells somebody to do something, with the next one, which may have the values.

    `verbs` are its verbs with their groups, `words` the stems of all its words.
    """

    segment: Segment
    start: int
    end: int
    text: str  # as values are compared
    verbs: frozenset[str]
    roots: frozenset[str]
    words: frozenset[str]


@dataclass(slots=True)
class Text:
    """One text that is looked into: `folded` for values, lengths as in the segment where `exact`."""

    segment: Segment
    folded: str
    exact: bool
    view: str = "written"
    digits: str | None = field(default=None)


class Texts:
    """What a request says, by whom; made once per answer, read lazily."""

    def __init__(self, segments: Sequence[Segment], views_of: ViewsOf) -> None:
        self.untrusted: list[Text] = []
        room, decoded = MOST_CHARS, MOST_DECODED
        for segment in reversed([one for one in segments if one.origin in DATA]):
            if room <= 0:
                break
            room -= len(segment.text)
            self.untrusted.append(_text(segment, segment.folded))
            if len(segment.text) <= decoded:
                decoded -= len(segment.text)
                self.untrusted += [
                    _text(segment, view.text, name=view.name) for view in views_of(segment) if view.is_decoded
                ]
        self.asked = "\n".join(_wishes(segments))
        own = [one.folded for one in segments if one.origin in {Origin.SYSTEM, Origin.DEVELOPER}]
        self.trusted = normal("\n".join([self.asked, *own]))
        self._trusted_digits: str | None = None
        self._orders: list[Order] | None = None
        self._known: dict[str, bool] = {}
        self._verbs: dict[str, frozenset[str]] = {}
        if not asked_verbs(self.asked) and len(self.asked) < AFFIRM_CHARS:
            self.asked = "\n".join([self.asked, *own])  # who only says `go` means what the application was set up for

    @property
    def orders(self) -> Sequence[Order]:
        """The sentences of untrusted text that order something."""
        if self._orders is None:
            self._orders = list(_orders(self.untrusted))
        return self._orders

    def verbs_of(self, sentence: str) -> frozenset[str]:
        """The groups of the verbs that a sentence orders something with."""
        if sentence not in self._verbs:
            self._verbs[sentence] = frozenset[str]().union(*asked_verbs(sentence).values())
        return self._verbs[sentence]

    def is_trusted(self, value: str) -> bool:
        """Whether the user or the application said it."""
        if value not in self._known:
            self._known[value] = self._is_trusted(value)
        return self._known[value]

    def _is_trusted(self, value: str) -> bool:
        plain = normal(value).strip()
        if _within(plain, self.trusted):
            return True
        digits = _digits(value)
        if not digits:
            return False
        if self._trusted_digits is None:
            self._trusted_digits = all_digits(self.trusted)
        return f" {digits} " in self._trusted_digits

    def sources(self, value: str) -> Iterator[Source]:
        """Where it stands in untrusted text, the newest first."""
        plain = normal(value).strip()
        if len(plain) < 2:  # noqa: PLR2004  a letter stands everywhere
            return
        wanted = _shingles(plain) if len(plain) > LONG else [plain]
        digits = _digits(value)
        found = 0
        for text in self.untrusted:
            for start, end in _places(text, wanted, digits):
                yield _source(text, start, end)
                found += 1
                if found >= MOST_HITS:
                    return


def is_specific(value: str) -> bool:
    """Whether a value says where it is from: no `true`, `red` or `2`, which stand in every text."""
    value = value.strip()
    if len(value) < 3:  # noqa: PLR2004  too short for any of it
        return False
    if value.replace(".", "", 1).isdigit():
        return len(value) >= LEAST_DIGITS - 1
    return bool(SPECIFIC.search(value)) or len(value) >= 8 or " " in value  # noqa: PLR2004  one long word


def normal(text: str) -> str:
    """As values are compared: folded case, no escapes of JSON, blanks as spaces. The same length, mostly."""
    return looks(text).replace("\\n", "  ").replace('\\"', ' "').replace("\\'", " '").replace("\n", " ").lower()


def all_digits(text: str) -> str:
    """All numbers of a text in digits alone, between blanks."""
    return " ".join(["", *(_bare(match[0]) for match in NUMBER.finditer(text)), ""])


def _digits(value: str) -> str:
    """The digits of a number, phone or account; empty for anything else."""
    value = value.strip().lstrip("$€£").strip()
    return _bare(value) if NUMBER.fullmatch(value) and sum(map(str.isdigit, value)) >= 3 else ""  # noqa: PLR2004


def _bare(number: str) -> str:
    number = re.sub(r"[.,]0{1,2}$", "", number)
    return "".join(filter(str.isdigit, number))


def _text(segment: Segment, text: str, *, name: str = "written") -> Text:
    folded = normal(text)
    return Text(segment, folded, len(folded) == len(segment.text) and name == "written", name)


def _wishes(segments: Sequence[Segment]) -> Iterator[str]:
    """What the user said, and what the assistant proposed where the user then said yes."""
    proposed = ""
    for segment in segments:
        if segment.origin is Origin.USER:
            if proposed and len(segment.folded) <= AFFIRM_CHARS and AFFIRMS.match(segment.folded):
                yield proposed
            yield segment.folded
            proposed = ""
        elif segment.origin is Origin.ASSISTANT and segment.place.endswith(("content", "]")):
            proposed = segment.folded
        elif segment.origin in DATA:
            proposed = ""


def _within(plain: str, text: str) -> bool:
    at = text.find(plain)
    while at >= 0:
        end = at + len(plain)
        if not ((at and text[at - 1].isalnum() and plain[:1].isalnum()) or _goes_on(plain, text, end)):
            return True
        at = text.find(plain, at + 1)
    return False


def _goes_on(plain: str, text: str, end: int) -> bool:
    """Whether the word that ends there goes on: `bob@a.com` is not in `bob@a.community`."""
    if end >= len(text) or not plain[-1:].isalnum():
        return False
    return text[end].isalnum() or (text[end] in "@_" or (text[end] in ".-" and text[end + 1 : end + 2].isalnum()))


def _shingles(plain: str) -> list[str]:
    step = max(1, (len(plain) - SHINGLE) // MOST_SHINGLES)
    return [plain[at : at + SHINGLE] for at in range(0, len(plain) - SHINGLE + 1, max(step, 8))][:MOST_SHINGLES]


def _places(text: Text, wanted: Sequence[str], digits: str) -> Iterator[tuple[int, int]]:
    any_found = False
    for plain in wanted:
        at = text.folded.find(plain)
        while at >= 0:
            end = at + len(plain)
            before = at and text.folded[at - 1].isalnum() and plain[:1].isalnum()
            if len(wanted) > 1 or not (before or _goes_on(plain, text.folded, end)):
                any_found = True
                yield at, end
                if len(wanted) > 1:
                    return
            at = text.folded.find(plain, at + 1)
    if digits and not any_found:
        if text.digits is None:
            text.digits = all_digits(text.folded)
        if f" {digits} " in text.digits:
            for match in NUMBER.finditer(text.folded):
                if _bare(match[0]) == digits:
                    yield match.span()


def _source(text: Text, start: int, end: int) -> Source:
    low, high = max(0, start - AROUND), min(len(text.folded), end + AROUND)
    cuts = [match.end() + low for match in SENTENCE.finditer(text.folded[low:start])]
    first = cuts[-1] if cuts else low
    after = SENTENCE.search(text.folded, end, high)
    last = after.start() if after else high
    sentence = text.folded[first:last]
    if not text.exact:
        start, end = 0, len(text.segment.text)
    return Source(text.segment, start, end, sentence, text.view)


def _orders(texts: Sequence[Text]) -> Iterator[Order]:
    left = ORDERS
    for text in texts:
        raw = text.segment.folded if text.exact else text.folded
        bounds = [0, *(match.end() for match in SENTENCE.finditer(raw)), len(raw)]
        spans = [(a, b) for a, b in pairwise(bounds) if b - a > 6]  # noqa: PLR2004  no sentence
        for number, (start, end) in enumerate(spans):
            sentence = raw[start : min(end, start + 2 * AROUND)]
            verbs = asked_verbs(sentence) if sentence.count(" ") >= FEWEST_BLANKS else None
            if not verbs:
                continue
            if left <= 0:
                return
            left -= 1
            until = spans[number + 1][1] if number + 1 < len(spans) else end
            whole = raw[start : min(until, start + 4 * AROUND)]
            groups = frozenset[str]().union(*verbs.values())
            span = (start, min(until, start + 4 * AROUND)) if text.exact else (0, len(text.segment.text))
            yield Order(text.segment, *span, normal(whole), groups, frozenset(verbs), frozenset(stems(whole)))
