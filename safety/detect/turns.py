"""What a user said over several turns, read as one: for an order that was cut into harmless pieces.

A client sends its history again with every turn, so the pieces are all in the request. The last short turns are joined
in a few ways, each another text for the checks that judge what users say; a finding there counts only if no turn alone
had it. Bounded: so many turns, so many characters, three readings. It never looks at what an assistant or a tool said,
and never says what follows.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

from conclave.safety.api import FOLDED, WRITTEN, Action, Finding, Origin, Segment, View
from conclave.safety.boundary.caps import BoundaryError
from conclave.safety.boundary.normalise import fold
from conclave.safety.boundary.views import looks, views_of
from conclave.safety.runner import Runner
from conclave.safety.verdict import Ran, Verdict

if TYPE_CHECKING:
    import re2

MOST_TURNS: Final = 6
MOST_CHARS: Final = 1_200  # of the joined text: about 0.3 ms for all learned checks
TURN_CHARS: Final = 400  # longer turns are whole texts, which the checks judge by themselves
LEAST_TURNS: Final = 2
FOLDS_TO: Final = 18  # characters, at most, that one unfolds to
JOINED: Final = "joined turns"  # the view's name in a finding
SPACED, GLUED = "joined with spaces", "joined"
TURNS: Final = "turns"  # whose time it is, in the record
SPLIT: Final = "split."  # before the kind of what was found so
# What marks a piece as a piece: `Part 2/3:`, `(2)`, `b =`, `step 2 -`
LABEL: Final = (
    r"(?i)^[\s\-*>#]*(?:(?:part|piece|chunk|fragment|half|step|line|bit|segment|token|word|message|msg)\s*"
    r"(?:no\.?\s*|#\s*)?(?:\d{1,2}|[a-z]|one|two|three|four|five|six)\s*(?:(?:/|of)\s*\w{1,5})?\s*[:.)\]=,\-]*\s*|"
    r"[(\[]?\d{1,2}\s*(?:(?:/|of)\s*\d{1,2})?\s*[:.)\]\-]+\s*|"
    r"(?:let\s+|set\s+|var\s+|define\s+|\$)?[a-z]\w{0,11}\s*:?=\s*)"
)
QUOTED: Final = (
    r"\"([^\"\n]+)\"",
    r"“([^”\n]+)”",
    r"«([^»\n]+)»",
    r"`([^`\n]+)`",
    r"(?:^|[\s=:(+])'([^'\n]+)'",  # no apostrophe within a word
)
PIECE_CHARS: Final = 80  # a code, or a word, is cut in turns that are little more than the pieces
SURE: Final = 0.95  # what joined turns must score: three readings of six turns are more chances to err than one text


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the user's turns: its text, the place where it ends, and how long the text there is."""

    text: str
    place: str
    chars: int


class Course(Protocol):
    """Looks at the course of a conversation: all turns of a user together."""

    @property
    def name(self) -> str: ...

    def inspect(self, segments: Sequence[Segment]) -> Sequence[Finding]: ...


@dataclass(frozen=True, slots=True)
class TurnRunner:
    """A runner whose checks also read the last turns as one text; it takes the place of `whole`.

    `joint` has those checks that judge what users say as a whole. `course` looks at where the conversation goes, and
    `course_action` follows; with `observe` it is noted only.
    """

    whole: Runner
    joint: Runner | None = None
    most_turns: int = MOST_TURNS
    course: Course | None = None
    course_action: Action = Action.ANNOTATE
    observe: bool = False
    now_s: Callable[[], float] = time.perf_counter

    def action_of(self, finding: Finding) -> Action:
        """What policy does about a finding."""
        if self.course is not None and finding.check == self.course.name:
            return self.course_action
        return self.whole.action_of(finding)

    def screen(self, segments: Sequence[Segment], *, tenant: str) -> Verdict:
        """What the checks say of each text, and of the turns together."""
        verdict = self.whole.screen(segments, tenant=tenant)
        found: list[Finding] = []
        acted: list[Finding] = []
        ran: list[Ran] = []
        texts = joined(segments, most_turns=self.most_turns) if self.joint is not None else ()
        if self.joint is not None and texts:
            started_s = self.now_s()
            joint = self.joint.screen(texts, tenant=tenant)
            found += findings_of(joint.findings, verdict.findings, segments)
            acting = {one.check for one in joint.acted}
            acted += [one for one in found if one.check in acting]
            ran.append(Ran(TURNS, ms=1e3 * (self.now_s() - started_s)))
        if self.course is not None:
            seen, went = self._course(self.course, segments)
            found += seen
            acted += () if self.observe else seen
            ran.append(went)
        action = max((verdict.action, *map(self.action_of, acted)))
        would = max((verdict.would, *map(self.action_of, found)))
        return Verdict(action, (*verdict.findings, *found), (*verdict.acted, *acted), (*verdict.ran, *ran), would=would)

    def _course(self, course: Course, segments: Sequence[Segment]) -> tuple[Sequence[Finding], Ran]:
        """It advises: where it cannot look, the call goes on, and the record says so."""
        started_s = self.now_s()
        error, found = None, tuple[Finding, ...]()
        try:
            found = tuple(course.inspect(segments))
        except Exception as failure:  # noqa: BLE001  a check's own edge, as in the runner
            error = type(failure).__name__
        return found, Ran(course.name, ms=1e3 * (self.now_s() - started_s), error=error)


def joined(segments: Sequence[Segment], *, most_turns: int = MOST_TURNS) -> tuple[Segment, ...]:
    """The last turns read as one, in the ways in which pieces are put together again; none where there is one turn.

    Each segment stands at the place of the last turn; its `source` says how it was put together.
    """
    turns = last_turns(segments, most_turns)
    if len(turns) < LEAST_TURNS:
        return ()
    last = turns[-1].place
    try:
        return tuple(
            Segment(Origin.USER, text, fold(text, max_chars=FOLDS_TO * len(text), place=last), last, kind)
            for text, kind in dict(_readings([turn.text for turn in turns])).items()
        )
    except BoundaryError:  # a lone surrogate: the boundary refuses such a text before
        return ()


def last_turns(segments: Sequence[Segment], most: int) -> list[Turn]:
    """The last short user turns, oldest first; together no longer than `MOST_CHARS`. A long last turn joins nothing."""
    turns: list[Turn] = []
    room = MOST_CHARS
    for message in _messages(segments):
        text = "\n".join(one.text for one in message).strip()
        if not text:
            continue
        if len(text) > TURN_CHARS:
            if not turns:
                return []
            continue
        room -= len(text)
        if room < 0 or len(turns) == most:
            break
        turns.append(Turn(text, message[-1].place, len(message[-1].text)))
    return turns[::-1]


def findings_of(joint: Sequence[Finding], alone: Sequence[Finding], segments: Sequence[Segment]) -> tuple[Finding, ...]:
    """What only the joined turns show: one finding a check, over the last turn; what a turn shows alone is not new."""
    known = {one.check for one in alone}
    chars = {segment.place: len(segment.text) for segment in segments}
    found: dict[str, Finding] = {}
    for one in joint:
        if one.check in known or one.confidence < SURE:
            continue
        if one.confidence > getattr(found.get(one.check), "confidence", 0.0):
            end = chars.get(one.place, 0)
            found[one.check] = replace(one, kind=f"{SPLIT}{one.kind}", start=0, end=end, view=JOINED)
    return tuple(found.values())


def _messages(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """The user's messages, the last one first."""
    message: list[Segment] = []
    place = None
    for segment in reversed(segments):
        if segment.origin is not Origin.USER:
            continue
        at = segment.place.partition(".")[0]
        if message and at != place:
            yield message[::-1]
            message = []
        place = at
        message.append(segment)
    if message:
        yield message[::-1]


def views_of_joined(segment: Segment) -> Sequence[View]:
    """The views of a joined text. What is joined with spaces is not decoded: each turn was, and a code in pieces has
    none.
    """
    if segment.source == GLUED:
        return views_of(segment)
    look = looks(segment.folded)
    written = View(segment, WRITTEN, segment.text, 0, len(segment.text))
    return [written] if look == segment.text else [written, View(segment, FOLDED, look, 0, len(segment.text))]


def _readings(turns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pieces of sentences, pieces of words, and what stands between quotation marks; each with how it was joined."""
    label, quoted = _patterns()
    bare = [_without_label(turn, label) for turn in turns]
    yield " ".join(bare), SPACED
    if all(len(turn) <= PIECE_CHARS for turn in bare) and any(len(turn.split()) == 1 for turn in bare):
        yield "".join(bare), GLUED  # most honest turns are several words: a reading less, 0.4 ms
    pieces = [match[1] for turn in turns for pattern in quoted for match in pattern.finditer(turn)]
    if len(pieces) >= LEAST_TURNS:
        yield " ".join(pieces), SPACED
        yield "".join(pieces), GLUED


def _without_label(turn: str, label: "re2.Pattern") -> str:
    found = label.match(turn)
    rest = turn[found.end() :] if found is not None else turn
    return rest.strip() or turn


@cache
def _patterns() -> "tuple[re2.Pattern, tuple[re2.Pattern, ...]]":
    import re2  # noqa: PLC0415  20 ms, and only where a policy looks at turns

    return re2.compile(LABEL), tuple(map(re2.compile, QUOTED))
