"""Signatures: an admin's own rules, and the shipped ones for what no honest text holds (a forged turn of a chat).

A rule is a pattern or a list of literals; `packs.py` reads them from files. All are looked for at once, by RE2, in time
linear in the text whatever text or pattern. What follows from a find is for policy to say.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from conclave.safety.api import FOLDED, WRITTEN, Finding, Origin, Severity, View
from conclave.safety.boundary.views import looks
from conclave.safety.detect.patterns import Regexp
from conclave.safety.runner import MOST_FINDINGS

if TYPE_CHECKING:
    from conclave.safety.output.api import Excerpt, Unit

NAME: Final = "signatures"
MOST_RULES: Final = 1_000
MOST_PROGRAM: Final = 1_000  # instructions of one pattern: at worst 20 us a character; the shipped ones have 40 to 764
SET_BYTES: Final = 64 << 20
MOST_HITS: Final = 1_000  # of one rule in one text; from the last one on the rest of the text counts
UNLESS_BYTES: Final = 256  # on each side of a match, in its own line, where an `unless` counts
EVIDENCE_CHARS: Final = 40
TRIGGER_CHARS: Final = 64  # that a stream is looked through for
SURROGATE: Final = re.compile("[\ud800-\udfff]")
NO_TEXT: Final = "holds a lone surrogate, which no text has"
PROBE: Final = b"\x00\x01\x00"  # in no pattern of anybody: whether the automaton works at all

Direction: TypeAlias = Literal["request", "answer"]
REQUEST: Final = frozenset[Direction]({"request"})


class SignatureError(ValueError):
    """A rule that cannot be used; `key` is the field that is wrong."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


@dataclass(frozen=True, slots=True)
class Signature:
    """One rule. Literals match whatever their case, a pattern as it is written (RE2's syntax).

    A match does not count where one of `unless` stands in the same line. `begins`, in answers: literals of which each
    match of the pattern has one before anything that must be held back.
    """

    name: str
    severity: Severity = Severity.MEDIUM
    pattern: str = ""
    literals: tuple[str, ...] = ()
    origins: frozenset[Origin] = frozenset(Origin)
    directions: frozenset[Direction] = REQUEST
    unless: tuple[str, ...] = ()
    begins: tuple[str, ...] = ()
    message: str = ""

    @property
    def kind(self) -> str:
        """Its label in findings."""
        return f"signature.{self.name}"

    def check(self) -> "Signature":
        """The rule itself; raises SignatureError for one that cannot be used."""
        if not (self.pattern or self.literals):
            raise SignatureError("pattern", "is missing; a rule needs a pattern, literals, or both")
        for literal in self.literals:
            if len(literal.strip()) < 2:  # noqa: PLR2004  one character is in every text
                raise SignatureError("literals", f"{literal!r} is too short; write two characters at least")
            if SURROGATE.search(literal):
                raise SignatureError("literals", NO_TEXT)
        if self.pattern:
            _compiled("pattern", self.pattern)
        for pattern in self.unless:
            _compiled("unless", pattern)
        if "answer" in self.directions and self.pattern and not self.begins:
            raise SignatureError("begins", "is missing; a pattern for answers needs literals from which they are held")
        _compiled("literals" if self.literals else "pattern", self.expression)
        return self

    @property
    def expression(self) -> str:
        """The pattern and the literals as one pattern."""
        import re2  # noqa: PLC0415  20 ms, and only where a policy looks for patterns

        parts = [f"(?:{self.pattern})"] if self.pattern else []
        if self.literals:
            parts.append(f"(?i:{'|'.join(map(re2.escape, self.literals))})")
        return "|".join(parts)


class Hit(NamedTuple):
    """Bytes `start` to `end` of a text in UTF-8, and the rule that they match."""

    start: int
    end: int
    rule: Signature


@dataclass(frozen=True, slots=True)
class _Compiled:
    rule: Signature
    regexp: Regexp
    unless: tuple[Regexp, ...]

    def hits(self, data: bytes) -> Iterator[Hit]:
        """Its matches, without overlap; if there are very many, the last reaches to the end."""
        at = 0
        for _ in range(MOST_HITS):
            match = self.regexp.search(data, at)
            if match is None:
                return
            start, at = match.span()
            if not self._excused(data, start, at):
                yield Hit(start, at, self.rule)
        yield Hit(at, len(data), self.rule)

    def _excused(self, data: bytes, start: int, end: int) -> bool:
        if not self.unless:
            return False
        first = data.rfind(b"\n", max(0, start - UNLESS_BYTES), start) + 1 or max(0, start - UNLESS_BYTES)
        last = data.find(b"\n", end, end + UNLESS_BYTES)
        line = data[first : last if last >= 0 else end + UNLESS_BYTES]
        return any(one.search(line) is not None for one in self.unless)


class Signatures:
    """Rules compiled together. Raises SignatureError for one that cannot be used, ValueError for all of them."""

    def __init__(self, rules: Iterable[Signature]) -> None:
        import re2  # noqa: PLC0415

        listed = [rule.check() for rule in rules]
        if len(listed) > MOST_RULES:
            raise ValueError(f"{len(listed)} rules; {MOST_RULES} at most may be used together")
        options = _options(SET_BYTES)
        found = re2.Set.SearchSet(options)
        self._compiled: list[_Compiled] = []
        try:
            for rule in listed:
                found.Add(rule.expression.encode())
                excuses = tuple(re2.compile(one.encode(), _options()) for one in rule.unless)
                self._compiled.append(_Compiled(rule, re2.compile(rule.expression.encode(), _options()), excuses))
            self._probe = found.Add(re2.escape(PROBE.decode()).encode())
            found.Compile()
        except re2.error:
            raise ValueError(TOO_LARGE) from None
        self._set = found
        if self._probe not in (found.Match(PROBE) or ()):  # RE2 answers "nothing" where its memory is too small
            raise ValueError(TOO_LARGE)

    @property
    def rules(self) -> Sequence[Signature]:
        """In the order in which they were given."""
        return [one.rule for one in self._compiled]

    def hits(self, data: bytes) -> Iterator[Hit]:
        """All matches of all rules, rule by rule."""
        for place in self._set.Match(data) or ():
            if place != self._probe:
                yield from self._compiled[place].hits(data)


class SignatureCheck:
    """Looks for the signatures of requests in all views of a text. `name` is `signatures`."""

    name = NAME
    decodes = True

    def __init__(self, rules: Iterable[Signature]) -> None:
        self._signatures = Signatures(rule for rule in rules if "request" in rule.directions)

    @cached_property
    def origins(self) -> frozenset[Origin]:
        """Those that any rule reads."""
        return frozenset().union(*(rule.origins for rule in self._signatures.rules))

    def inspect(self, view: View) -> Sequence[Finding]:
        """Each match with its place; what a view says that stands in the text as written, too, is found there."""
        data = _raw(view.text)
        found = [hit for hit in self._signatures.hits(data) if view.segment.origin in hit.rule.origins]
        if not found:
            return ()
        written = view.segment.text
        if view.name != WRITTEN:
            raw = _raw(written)
            found = [hit for hit in found if data[hit.start : hit.end] not in raw]
        exact = view.name == WRITTEN or (view.name == FOLDED and len(view.text) == len(written))
        if not exact:  # one of each rule, over all that the view was made from
            found = list({hit.rule.name: hit for hit in found}.values())
        return _findings(found, data, view, exact=exact)


class AnswerSignatures:
    """Looks for the signatures of answers in an answer's lines: an OutputCheck."""

    name = NAME
    unit: "Unit" = "line"

    def __init__(self, rules: Iterable[Signature]) -> None:
        self._signatures = Signatures(rule for rule in rules if "answer" in rule.directions)

    @cached_property
    def triggers(self) -> Sequence[str]:
        """From where a stream is held back."""
        said = (text for rule in self._signatures.rules for text in (*rule.literals, *rule.begins))
        shown = (looks(unicodedata.normalize("NFKC", text)).lower()[:TRIGGER_CHARS] for text in said)
        return sorted({text if text.isascii() else "" for text in shown})  # "": every line is looked at

    def inspect(self, excerpt: "Excerpt") -> Sequence[Finding]:
        """Each match with its place in the excerpt."""
        data = _raw(excerpt.text)
        found = list(self._signatures.hits(data))
        return _findings(found, data, None, exact=True) if found else ()


def _findings(found: Sequence[Hit], data: bytes, view: View | None, *, exact: bool) -> list[Finding]:
    """In order of place; if there are too many, the last one covers all that are left over."""
    hits = sorted(found, key=lambda hit: (hit.start, -hit.end))
    if len(hits) > MOST_FINDINGS:
        rest = hits[MOST_FINDINGS - 1 :]
        worst = max(rest, key=lambda hit: hit.rule.severity).rule
        hits[MOST_FINDINGS - 1 :] = [Hit(rest[0].start, max(hit.end for hit in rest), worst)]
    places = _characters(data, {at for hit in hits for at in hit[:2]})
    return [
        Finding(
            check=NAME,
            kind=hit.rule.kind,
            severity=hit.rule.severity,
            confidence=1.0,
            place=view.segment.place if view is not None else "",
            start=places[hit.start] if exact or view is None else view.start,
            end=places[hit.end] if exact or view is None else view.end,
            view=view.name if view is not None else WRITTEN,
            evidence=data[hit.start : hit.end].decode("utf-8", "replace")[:EVIDENCE_CHARS],
            remedy=hit.rule.message,
        )
        for hit in hits
    ]


def _characters(data: bytes, positions: set[int]) -> dict[int, int]:
    """Byte positions as character positions, in one pass."""
    if data.isascii():
        return {at: at for at in positions}
    places: dict[int, int] = {}
    last = characters = 0
    for at in sorted(positions):
        characters += len(data[last:at].decode("utf-8", "surrogatepass"))
        last = at
        places[at] = characters
    return places


def _raw(text: str) -> bytes:
    """In UTF-8; a lone surrogate is three bytes that no pattern matches."""
    return text.encode("utf-8", "surrogatepass")


def _compiled(key: str, pattern: str) -> None:
    import re2  # noqa: PLC0415

    try:
        regexp = re2.compile(pattern.encode(), _options())
    except UnicodeEncodeError:
        raise SignatureError(key, NO_TEXT) from None
    except re2.error as error:
        said = error.args[0]
        words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise SignatureError(
            key, f"RE2 does not take it ({words}); it has no look-around and no back-reference"
        ) from None
    if key != "literals" and regexp.programsize > MOST_PROGRAM:
        raise SignatureError(
            key, f"is too large ({regexp.programsize} steps, {MOST_PROGRAM} at most); shorten its repeats"
        )
    if regexp.search(b"") is not None:
        raise SignatureError(key, "matches the empty text, so it would be found everywhere")


def _options(memory_bytes: int = 8 << 20) -> Any:
    import re2  # noqa: PLC0415

    options = re2.Options()
    options.log_errors = False
    options.max_mem = memory_bytes
    return options


TOO_LARGE: Final = "the rules are too large together; shorten their repeats or use fewer of them"
