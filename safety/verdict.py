"""From findings to what becomes of a request: the strictest action of any rule, and the text that is left.

Pure. It knows no policy document and no HTTP: who is told what is decided by the caller.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Literal

from conclave.safety.api import Action, Finding, Segment

OnError = Literal["allow", "block"]


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
    others). `ran` says how each check went.
    """

    action: Action
    findings: tuple[Finding, ...]
    acted: tuple[Finding, ...]
    ran: tuple[Ran, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The kinds of what was acted on, each once, in order."""
        return tuple(dict.fromkeys(finding.kind for finding in self.acted))


NOTHING = Verdict(Action.ALLOW, (), (), ())


def redacted(segments: Sequence[Segment], findings: Iterable[Finding], marks: Mapping[str, str]) -> tuple[Segment, ...]:
    """The segments with each finding's span replaced by the mark of its check; overlapping spans are merged."""
    spans: dict[str, list[tuple[int, int, str]]] = {}
    for place, found in groupby(sorted(findings, key=attrgetter("place", "start", "end")), key=attrgetter("place")):
        for finding in found:
            merged = spans.setdefault(place, [])
            if merged and finding.start < merged[-1][1]:
                start, end, mark = merged[-1]
                merged[-1] = (start, max(end, finding.end), mark)
            else:
                merged.append((finding.start, finding.end, marks[finding.check]))
    return tuple(_cut(segment, spans[segment.place]) if segment.place in spans else segment for segment in segments)


def _cut(segment: Segment, spans: Sequence[tuple[int, int, str]]) -> Segment:
    kept: list[str] = []
    at = 0
    for start, end, mark in spans:
        kept += (segment.text[at:start], mark)
        at = end
    text = "".join((*kept, segment.text[at:]))
    return replace(segment, text=text, folded=text)
