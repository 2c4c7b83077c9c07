"""Many patterns at once: which rules of a file a text matches, and where. For the checks on secrets and personal data.

RE2 reads a text once for all patterns together, in time linear in its length whatever the text; only rules whose
pattern is in it are then asked for their spans. A rule stands in `safety/rules/*.yaml` and is data: this module knows
none by name. What a match is worth (a checksum, a placeholder) is for the checks to say.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from conclave.safety.api import Finding, Severity, View
from conclave.safety.runner import MOST_FINDINGS

RULES: Final = Path(__file__).parent.parent / "rules"
MEMORY_BYTES: Final = 32 << 20  # of one set's automaton; RE2's own 8 MiB is refilled too often on random bytes
BEFORE_CHARS: Final = 64  # in which a word that a rule wants near may stand
AFTER_CHARS: Final = 24
AGAIN_CHARS: Final = 64  # of a match that was none, in which a later start is tried; longer would not be linear
ESCAPES: Final = frozenset({"\\n", "\\r", "\\t"})  # as JSON and source code write them: no letters of a word
SEVERITIES: Final = {one.name.lower(): one for one in Severity}
WORD: Final = re.compile(rb"[^0-9A-Za-z]*[0-9A-Za-z]*")  # from a match's start behind its first word


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One pattern. Its first group, if it has one, is what counts; `kind` is the label of what is found.

    `near` is a pattern of words of which one must stand close by; `entropy` is in bits per character; `check` names a
    function of the check that has the rules. `mark` is a part that every match has: where a pattern may begin anywhere,
    looking for its mark first is quicker. `weak` shapes count only in a text as written, never in a decoded one.
    `example` must be found and `counter` must not: a test holds every rule to it. They may be written in pieces, so
    that scanners of repositories do not take them for leaks.
    """

    name: str
    kind: str
    pattern: str
    severity: Literal["low", "medium", "high"]
    example: str | list[str]
    counter: str | list[str]
    near: str = ""
    mark: str = ""
    entropy: float = 0.0
    check: str = ""
    weak: bool = False
    confidence: float = 1.0


class RuleFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of rules; `placeholders` are parts of what stands for a value, `published` values that are nobody's."""

    rules: list[Rule]
    placeholders: list[str] = []
    published: list[str] = []


class Span(NamedTuple):
    """Characters `start` to `end` of a text."""

    start: int
    end: int


class Hit(NamedTuple):
    """A rule's match: where what counts of it stands."""

    rule: Rule
    start: int
    end: int

    def finding(self, check: str, kind: str, view: View, *, place: Span, remedy: str) -> Finding:
        """As a check tells it; `place` is where in the text as written, `kind` how its kinds begin."""
        return Finding(
            check=check,
            kind=f"{kind}.{self.rule.kind}",
            severity=SEVERITIES[self.rule.severity],
            confidence=self.rule.confidence,
            place=view.segment.place,
            start=place.start,
            end=place.end,
            view=view.name,
            evidence=masked(view.text[self.start : self.end]),
            remedy=remedy,
        )


Judge = Callable[[str, int, int], Span | None]  # text, start, end -> the span that is really meant, or None


class Match(Protocol):
    """RE2's match, as far as it is used."""

    def span(self, group: int = 0) -> tuple[int, int]: ...


class Regexp(Protocol):
    """RE2's compiled pattern, as far as it is used."""

    @property
    def groups(self) -> int: ...
    def search(self, text: bytes, pos: int = 0) -> Match | None: ...


@dataclass(frozen=True, slots=True)
class Compiled:
    """A rule, its patterns, the group that counts, and the place in the set of what must be in a text first."""

    rule: Rule
    regexp: Regexp
    near: Regexp | None
    group: int
    place: int

    def is_near(self, data: bytes, start: int, end: int) -> bool:
        """Whether a word that the rule wants stands close by."""
        return not self.near or self.near.search(data[max(0, start - BEFORE_CHARS) : end + AFTER_CHARS]) is not None


def read_rules(name: str) -> RuleFile:
    """The rules of `safety/rules/<name>.yaml`; raises msgspec.ValidationError for a malformed file."""
    return msgspec.yaml.decode((RULES / f"{name}.yaml").read_bytes(), type=RuleFile)


class Patterns:
    """Rules compiled together. Raises ValueError for a pattern that RE2 does not take, naming the rule.

    A text is read as Latin-1, anything beyond it as `?`: each character is one byte, so positions need no translation,
    lone surrogates are harmless, and the automaton stays small. Patterns are therefore ASCII and Latin-1.
    """

    def __init__(self, rules: Iterable[Rule], judges: Mapping[str, Judge]) -> None:
        import re2  # noqa: PLC0415  20 ms, and only where a policy looks for patterns

        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.max_mem = MEMORY_BYTES
        self._set = re2.Set.SearchSet(options)
        self._judges = judges
        self._compiled: list[Compiled] = []
        for rule in rules:
            if rule.check and rule.check not in judges:
                raise ValueError(f"rule {rule.name}: no check is called {rule.check!r}; known: {', '.join(judges)}")
            try:
                pattern, near, first = (
                    part.encode("latin-1") for part in (rule.pattern, rule.near, rule.near or rule.mark or rule.pattern)
                )
                regexp = re2.compile(pattern, options)
                beside = re2.compile(near, options) if near else None
                place = self._set.Add(first)
            except (re2.error, UnicodeEncodeError) as error:
                raise ValueError(f"rule {rule.name}: RE2 does not take its pattern ({error})") from None
            self._compiled.append(Compiled(rule, regexp, beside, group=min(regexp.groups, 1), place=place))
        self._set.Compile()

    def hits(self, text: str) -> Iterator[Hit]:
        """What matches, rule by rule in their order, but nothing that lies within an earlier hit."""
        data = text.encode("latin-1", "replace")
        matched = frozenset(self._set.Match(data) or ())
        if not matched:
            return
        taken = bytearray(len(data))
        for compiled in self._compiled:
            if compiled.place in matched:
                for span in self._spans(compiled, text, data):
                    if taken.find(0, *span) >= 0:
                        taken[span.start : span.end] = b"\1" * (span.end - span.start)
                        yield Hit(compiled.rule, *span)

    def _spans(self, compiled: Compiled, text: str, data: bytes) -> Iterator[Span]:
        rule = compiled.rule
        judge = self._judges.get(rule.check)
        at = 0
        while match := compiled.regexp.search(data, at):
            first, last = start, end = match.span()
            if compiled.group:
                start, end = match.span(compiled.group)
            span = None
            alone = stands_alone(text, start, end) and compiled.is_near(data, start, end)
            if alone and (not rule.entropy or entropy(text[start:end]) >= rule.entropy):
                span = judge(text, start, end) if judge else Span(start, end)
            if span:
                yield span
                at = last if span.end == end else span.end
            else:  # it may have begun too early: look again behind its first word, if it is short enough for that
                word = WORD.match(data, first, last)
                at = word.end() if word and last - first <= AGAIN_CHARS else last


def stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a span is no part of a longer word; `\\n` and `%3D` before it are no letters of a word."""
    if end < len(text) and _of_word(text[end]) and _of_word(text[end - 1]):
        return False
    if not start or not (_of_word(text[start]) and _of_word(text[start - 1])):
        return True
    before = text[max(0, start - 3) : start]
    return before[-2:] in ESCAPES or (len(before) == 3 and before[0] == "%")  # noqa: PLR2004  %3D


def _of_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")


def entropy(text: str) -> float:
    """Shannon's entropy of the characters, in bits per character: 4 at most for hex, 4.8 for 40 random letters."""
    size = len(text)
    return -sum(count / size * math.log2(count / size) for count in Counter(text).values())


def masked(value: str) -> str:
    """Enough of a value to know it again: a quarter, four characters at most."""
    return f"{value[: min(4, len(value) // 4)]}…"


def bounded(hits: Iterable[Hit]) -> Sequence[Hit]:
    """The hits in order of place. If there are too many, the last one (kind `many`) covers all that are left over.

    What is cut off would not be redacted; the text between the last ones is the price.
    """
    ordered = sorted(hits, key=lambda hit: (hit.start, -hit.end))
    if len(ordered) <= MOST_FINDINGS:
        return ordered
    kept, rest = ordered[: MOST_FINDINGS - 1], ordered[MOST_FINDINGS - 1 :]
    worst = max(rest, key=lambda hit: SEVERITIES[hit.rule.severity]).rule
    many = msgspec.structs.replace(worst, kind="many")
    return [*kept, Hit(many, rest[0].start, max(hit.end for hit in rest))]
