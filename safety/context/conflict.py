"""Two conflicts (after Dialectical Alignment, Yang et al. 2024, arXiv 2404.00486): among passages, and with memory.

The rule: context that agrees, with itself and with what the expert says without it -> answer. Passages that disagree
without a majority -> show both, or abstain. Passages that agree against the expert's memory -> accept only from a
trusted source or for a question whose answer changes with time; else flag, and prefer a memory that is sure. Where we
differ: values are compared by rules (`claims.py`), and nobody is asked again. Where most voices lie and look trusted,
no vote helps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from conclave.safety.context.claims import answer_values, claims, question_of, same
from conclave.safety.context.provenance import Evidence, Trust, share, voices, weights_of
from conclave.safety.context.words import WORD, Read, names, plain, read

MAJORITY: Final = 0.5  # of the voices' weight: more than this
SURE: Final = 2 / 3  # the agreement from which memory is preferred: two samples of three
TIME_WORDS: Final = frozenset(
    """
    now today tonight tomorrow yesterday current currently latest newest recent recently still nowadays present
    upcoming so-far
    """.split()  # noqa: SIM905  a column of strings is not easier to read
)


class Kind(StrEnum):
    NONE = "none"
    INTER_CONTEXT = "inter_context"
    CONTEXT_MEMORY = "context_memory"
    BOTH = "both"


class Action(StrEnum):
    """What to do: ANSWER from the context, ACCEPT it against memory, prefer MEMORY, show BOTH sides, FLAG, ABSTAIN."""

    ANSWER = "answer"
    ACCEPT = "accept"
    MEMORY = "memory"
    BOTH = "both"
    FLAG = "flag"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True)
class Memory:
    """What the expert says without any context; `agreement` is the share of its samples that say so."""

    answer: str
    agreement: float = 1.0


@dataclass(frozen=True, slots=True)
class Side:
    """Passages that agree on a value; `share` is their voices' part of the weight of all that answer."""

    value: str
    share: float
    passages: tuple[int, ...]
    trusted: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """What the passages say, and what follows. `sides` are ordered by share; passages without an answer have none."""

    kind: Kind
    action: Action
    reason: str
    sides: tuple[Side, ...] = ()

    @property
    def outvoted(self) -> frozenset[int]:
        """The passages of the sides that a majority speaks against; none without a majority."""
        if not self.sides or self.sides[0].share <= MAJORITY:
            return frozenset()
        return frozenset(place for side in self.sides[1:] for place in side.passages)


def weigh(  # noqa: PLR0913  what is known, by name
    question: str,
    passages: Sequence[Evidence],
    memory: Memory | None = None,
    *,
    reads: Sequence[Read] | None = None,
    time_sensitive: bool | None = None,
    abstain: bool = False,
) -> Conflict:
    """Hold the passages against each other and against memory.

    Where some have a name of the question, the others speak of something else, and have no voice. `reads` are the
    passages as they were read, if they were. `time_sensitive` None: the question's own words say.
    `abstain`: where it would show both sides, say nothing.
    """
    wanted = question_of(question)
    reads = [read(passage.text) for passage in passages] if reads is None else reads
    asked = names(question)
    named = {place for place, one in enumerate(reads) if asked & one.words}
    stated = [claims(wanted, one) if not named or place in named else () for place, one in enumerate(reads)]
    sides = _sides(stated, passages)
    if not sides:
        return Conflict(Kind.NONE, Action.ANSWER, "no passage states an answer that can be compared")
    known = answer_values(wanted, memory.answer) if memory is not None else ()
    agreeing = {place for place, side in enumerate(sides) if any(same(side.value, value) for value in known)}
    against = memory is not None and bool(known) and 0 not in agreeing
    among = len(sides) > 1
    kind = Kind.BOTH if among and against else Kind.INTER_CONTEXT if among else _alone(against=against)
    first = sides[0]
    if among and first.share <= MAJORITY:
        action, reason = Action.ABSTAIN if abstain else Action.BOTH, "independent sources disagree without a majority"
    elif not against:
        action, reason = Action.ANSWER, "most sources agree" if among else "the sources agree"
    elif first.trusted:
        action, reason = Action.ACCEPT, "a trusted source speaks against the expert's memory"
    elif not among and (changes_with_time(question) if time_sensitive is None else time_sensitive):
        action, reason = Action.ACCEPT, "the answer changes with time, and the sources agree"
    elif memory is not None and memory.agreement >= SURE:
        action, reason = Action.MEMORY, "the sources speak against a memory that is sure, and none is trusted"
    else:
        action, reason = Action.FLAG, "the sources speak against the expert's memory, and none is trusted"
    return Conflict(kind, action, reason, sides)


def _alone(*, against: bool) -> Kind:
    return Kind.CONTEXT_MEMORY if against else Kind.NONE


def changes_with_time(question: str) -> bool:
    """Whether the question's own words ask for what is so now."""
    return not TIME_WORDS.isdisjoint(WORD.findall(plain(question)))


def _sides(stated: Sequence[tuple[str, ...]], passages: Sequence[Evidence]) -> tuple[Side, ...]:
    """Values that passages agree on, by the weight of their voices: the heaviest first, then among the others."""
    spoken = voices(passages)
    left = [place for place, values in enumerate(stated) if values]
    weights = weights_of([passages[place] for place in left], [spoken[place] for place in left])
    found = []
    while left:
        backing = {
            value: [place for place in left if any(same(value, other) for other in stated[place])]
            for place in left
            for value in stated[place]
        }
        value, agreed = max(
            backing.items(), key=lambda item: sum(weights[voice] for voice in {spoken[place] for place in item[1]})
        )
        trusted = any(passages[place].trust is Trust.TRUSTED for place in agreed)
        found.append(Side(value, share(weights, [spoken[place] for place in agreed]), tuple(agreed), trusted))
        left = [place for place in left if place not in agreed]
    return tuple(sorted(found, key=lambda side: -side.share))
