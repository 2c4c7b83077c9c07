"""From findings to what becomes of a request: the strictest action of any rule, and the text that is left.

Pure. It knows no policy document and no HTTP: who is told what is decided by the caller.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal, TypeAlias

from conclave.safety.api import Action, Finding, Segment, Severity

OnError = Literal["allow", "block"]
Mark: TypeAlias = Callable[[Segment, Sequence[Finding], str], str]  # findings that overlap, and the text they cover


def consequence(action: Action, finding: Finding, *, from_severity: Severity) -> Action:
    """What follows from a finding of a check that policy gave an action: milder ones are annotated at most."""
    return action if finding.severity >= from_severity else min(action, Action.ANNOTATE)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a check went over one request: `ms` of time, `late` if that was over its limit, `error` if it failed."""

    check: str
    ms: float
    late: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checks say of one request.

    `action` is what happens; `findings` are all that were made, by checks that only observe, too (`acted` are the
    others). `ran` says how each check went. `confirmed` are the kinds of what a person has let pass.
    """

    action: Action
    findings: tuple[Finding, ...]
    acted: tuple[Finding, ...]
    ran: tuple[Ran, ...]
    confirmed: tuple[str, ...] = ()
    would: Action = Action.ALLOW  # what would happen if nothing were only observed

    @property
    def reasons(self) -> tuple[str, ...]:
        """The kinds of what was acted on, each once, in order."""
        return tuple(dict.fromkeys(finding.kind for finding in self.acted))


NOTHING = Verdict(Action.ALLOW, (), (), ())


def joined(first: Verdict, second: Verdict) -> Verdict:
    """What two stages say of one request, as one."""
    if first is NOTHING:
        return second
    return Verdict(
        max(first.action, second.action),
        first.findings + second.findings,
        first.acted + second.acted,
        first.ran + second.ran,
        first.confirmed + second.confirmed,
        max(first.would, second.would),
    )


def redacted(segments: Sequence[Segment], findings: Iterable[Finding], mark: Mark) -> tuple[Segment, ...]:
    """The segments with what each finding covers replaced by its mark; findings that overlap are replaced as one."""
    found: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=attrgetter("start", "end")):
        found.setdefault(finding.place, []).append(finding)
    return tuple(
        _cut(segment, found[segment.place], mark) if segment.place in found else segment for segment in segments
    )


def _cut(segment: Segment, findings: Sequence[Finding], mark: Mark) -> Segment:
    kept: list[str] = []
    at = 0
    for start, end, group in _merged(findings):
        kept += (segment.text[at:start], mark(segment, group, segment.text[start:end]))
        at = end
    text = "".join((*kept, segment.text[at:]))
    return replace(segment, text=text, folded=text)


def _merged(findings: Sequence[Finding]) -> Iterable[tuple[int, int, Sequence[Finding]]]:
    """Spans in order, each with the findings that lie in it."""
    group: list[Finding] = []
    end = 0
    for finding in findings:
        if group and finding.start >= end:
            yield group[0].start, end, group
            group, end = [], 0
        group.append(finding)
        end = max(end, finding.end)
    if group:
        yield group[0].start, end, group
