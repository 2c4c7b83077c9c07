"""How far a caller, or a conversation, is trusted just now: a number that falls fast and rises slowly.

Pure: values, update rules and a clock that is handed in. The rules are Countermind's trust engine (Schwarz, 2025,
arXiv 2510.11837, L3) with the constants of our own page: a clean call adds 0.02; a finding takes a share that depends
on its severity; what is left moves back to `BASE` within a day. It never decides what follows from a band: policy does.

We differ in two ways. A finding in a request that policy let pass takes less than one that was refused, because
a learned check errs once in a hundred honest texts. And only attacks count: a key or an address that a user pasted by
mistake (`secrets`, `pii`) says nothing about what they are up to, nor does a question about something else (`topics`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from conclave.safety.api import Action, Origin, Segment, Severity
from conclave.safety.detect.turns import JOINED
from conclave.safety.verdict import Verdict

BASE: Final = 0.8  # of whom nothing is known: open, and below those who have earned more
CLEAN_STEP: Final = 0.02  # 16 clean calls from where one high finding leads to `watch`, 15 more to `open`
DAY_S: Final = 86_400.0  # to come back to BASE from anywhere
REFUSED: Final[Mapping[Severity, float]] = MappingProxyType(  # a medium one, a guess, leads to `watch` and not below,
    {Severity.LOW: 0.3, Severity.MEDIUM: 0.5, Severity.HIGH: 0.9}  # a high one to `restricted` at once
)
LET_PASS: Final[Mapping[Severity, float]] = MappingProxyType(
    {Severity.LOW: 0.15, Severity.MEDIUM: 0.3, Severity.HIGH: 0.45}
)
NO_ATTACK: Final = frozenset({"secrets", "pii", "topics", "shift"})  # checks whose findings honest people cause
CHECK_FAILED: Final = "check_failed"  # the kind that the runner gives to a failure
OPEN_ABOVE, WATCH_FROM = 0.7, 0.4
CALLERS: Final = frozenset({Origin.SYSTEM, Origin.DEVELOPER, Origin.USER})  # whose words are the caller's own


class Band(IntEnum):
    """What a number means, the stricter the higher."""

    OPEN = 0
    WATCH = 1
    RESTRICTED = 2

    @classmethod
    def of(cls, trust: float) -> "Band":
        if trust > OPEN_ABOVE:
            return cls.OPEN
        return cls.WATCH if trust >= WATCH_FROM else cls.RESTRICTED


@dataclass(frozen=True, slots=True)
class Standing:
    """`trust`, 0..1, as it was at `at_s` (any monotonic clock)."""

    trust: float = BASE
    at_s: float = 0.0

    def trust_at(self, now_s: float) -> float:
        """The trust now: it moves towards BASE by one a day, so that looking at it changes nothing."""
        back = max(0.0, now_s - self.at_s) / DAY_S
        if self.trust < BASE:
            return min(BASE, self.trust + back)
        return max(BASE, self.trust - back)

    def after_clean(self, now_s: float) -> "Standing":
        """After a call in which nothing was found."""
        return Standing(min(1.0, self.trust_at(now_s) + CLEAN_STEP), now_s)

    def after(self, blame: float, now_s: float) -> "Standing":
        """After a call that took the share `blame`, 0..1."""
        return Standing(self.trust_at(now_s) * (1 - blame), now_s)


@dataclass(frozen=True, slots=True)
class Seen:
    """An attack that a check saw: what it costs, in which text, and whether the call was refused for it.

    `text` names the text (a digest): a client sends its whole history again, and one attack counts once. `by_caller`:
    it is the caller's own word, and not that of a tool's result or a file, which is in the conversation all the same.
    """

    blame: float
    text: str
    refused: bool
    by_caller: bool


def seen_in(verdict: Verdict, segments: Sequence[Segment], name_of: Callable[[str], str]) -> tuple[Seen, ...]:
    """The attacks of a verdict that policy acted on; `name_of` makes a text's name.

    What several turns show together is named by the conversation's first: the next turn shows it again.
    """
    if not verdict.acted:
        return ()
    began = next((segment.text for segment in segments if segment.origin is Origin.USER), "")
    refused = verdict.action is Action.BLOCK
    by_place = {segment.place: segment for segment in segments}
    found: list[Seen] = []
    for one in verdict.acted:
        segment = by_place.get(one.place)
        if segment is not None and counts(one.check, one.kind):
            text = f"{one.check} {name_of(began if one.view == JOINED else segment.text)}"
            found.append(Seen(blame_of(one.severity, refused=refused), text, refused, segment.origin in CALLERS))
    return tuple(found)


def counts(check: str, kind: str) -> bool:
    """Whether a finding is an attack: what a check could not look at is nobody's fault."""
    return check not in NO_ATTACK and kind != CHECK_FAILED


def blame_of(severity: Severity, *, refused: bool) -> float:
    """The share of the trust that a finding takes."""
    return (REFUSED if refused else LET_PASS)[severity]


def worst(seen: Iterable[Seen]) -> float:
    """The blame of one call is that of its worst attack: many findings in one text are one try."""
    return max((one.blame for one in seen), default=0.0)
