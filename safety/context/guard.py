"""Which of the passages that were found may be believed, and why: the context guard.

It looks at provenance, at orders in data (a detector that is handed in), at floods, at echoes of the question and at
answers that contradict each other or the expert's memory. It asks nobody and changes no text. Modes: `off` looks at
nothing; `flag` keeps every passage and says what it saw; `isolate` keeps away what holds orders or floods the search;
`strict` also what a majority contradicts, and what echoes the question and is untrusted. Trusted passages are kept away
for orders alone: a true update may look like a flood.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from conclave.safety.context.conflict import Action, Conflict, Kind, Memory, weigh
from conclave.safety.context.duplicates import FloodModel, Likeness, flooded, likenesses, load
from conclave.safety.context.provenance import Evidence, Trust
from conclave.safety.context.words import WORD, names, plain, read

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_PASSAGES: Final = 64
ECHO: Final = 0.8  # of the question's content words, and
ECHOED_WORDS: Final = 5  # of a question that is repeated word by word; shorter ones stand in many texts
ECHO_DENSITY: Final = 0.25  # so much of the passage: of honest passages found for a question 0.3 % have both
Encode: TypeAlias = "Callable[[Sequence[str]], NDArray[np.float32]]"
Detect: TypeAlias = Callable[[str], float]  # how likely a text holds orders, 0..1


class Mode(StrEnum):
    OFF = "off"
    FLAG = "flag"
    ISOLATE = "isolate"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Judged:
    """One passage: whether an expert may be shown it, the reasons that speak against it, and each measure's score."""

    keep: bool
    reasons: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Guarded:
    """All passages in their order, and what those that are kept say together."""

    passages: tuple[Judged, ...]
    conflict: Conflict

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(place for place, judged in enumerate(self.passages) if judged.keep)


@dataclass(frozen=True, slots=True)
class ContextGuard:
    """The guard. `encode` makes vectors where none are handed in; without `orders` no passage is searched for orders."""  # noqa: E501

    encode: Encode
    mode: Mode = Mode.ISOLATE
    orders: Detect | None = None
    orders_from: float = 0.5
    model: FloodModel = field(default_factory=load)

    def look(  # noqa: PLR0913  what is known, by name
        self,
        question: str,
        passages: Sequence[Evidence],
        *,
        memory: Memory | None = None,
        asked: "NDArray[np.float32] | None" = None,
        vectors: "NDArray[np.float32] | None" = None,
        time_sensitive: bool | None = None,
    ) -> Guarded:
        """Judge the passages. Raises ValueError for too many, or for vectors of another number."""
        if len(passages) > MOST_PASSAGES:
            raise ValueError(
                f"{len(passages)} passages, and at most {MOST_PASSAGES} are judged together: hand in fewer"
            )
        if vectors is not None and len(vectors) != len(passages):
            raise ValueError(f"{len(vectors)} vectors for {len(passages)} passages: hand in one for each")
        if self.mode is Mode.OFF or not passages:
            said = "the guard is off" if self.mode is Mode.OFF else "there are no passages"
            return Guarded(tuple(Judged(keep=True) for _ in passages), Conflict(Kind.NONE, Action.ANSWER, said))
        asked = self.encode([question])[0] if asked is None else asked
        vectors = self.encode([passage.text for passage in passages]) if vectors is None else vectors
        reads = [read(passage.text) for passage in passages]
        cosines: list[list[float]] = (vectors @ vectors.T).tolist()  # [passages, passages]
        likes = likenesses(question, passages, reads, (vectors @ asked).tolist(), cosines)
        chances = [self.model.probability(like) for like in likes]
        asked_names = names(question)
        named = [asked_names & one.words for one in reads]
        floods = flooded(passages, chances, cosines, self.model.threshold, named)
        seen = [self._seen(question, *one) for one in zip(passages, likes, chances, floods, strict=True)]
        left = [place for place, one in enumerate(seen) if not one.bad]
        conflict = weigh(
            question,
            [passages[place] for place in left],
            memory,
            reads=[reads[place] for place in left],
            time_sensitive=time_sensitive,
            abstain=self.mode is Mode.STRICT,
        )
        outvoted = {left[place] for place in conflict.outvoted}
        judged = [self._judged(one, outvoted=place in outvoted) for place, one in enumerate(seen)]
        return Guarded(tuple(judged), _placed(conflict, left))

    def _seen(self, question: str, passage: Evidence, like: Likeness, chance: float, flood: bool) -> "_Seen":
        order = self.orders(passage.text) if self.orders is not None else None
        echo = like.echo >= ECHO and (like.density >= ECHO_DENSITY or _repeats(question, passage.text))
        orders = order is not None and order >= self.orders_from
        return _Seen(passage.trust, like, chance, order, flood=flood, echo=echo, orders=orders)

    def _judged(self, one: "_Seen", *, outvoted: bool) -> Judged:
        named = {"instruction": one.orders, "flood": one.flood, "echo": one.echo, "outvoted": outvoted}
        bad = one.bad
        if self.mode is Mode.STRICT:
            bad |= outvoted and one.trust is not Trust.TRUSTED
            bad |= one.echo and one.trust is Trust.UNTRUSTED
        scores = {"flood": one.chance, "echo": one.like.echo, "asked": one.like.asked, "near": one.like.near}
        if one.order is not None:
            scores["instruction"] = one.order
        reasons = tuple(name for name, is_so in named.items() if is_so)
        return Judged(keep=self.mode is Mode.FLAG or not bad, reasons=reasons, scores=scores)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was measured of one passage, and what of it counts."""

    trust: Trust
    like: Likeness
    chance: float
    order: float | None
    flood: bool
    echo: bool
    orders: bool

    @property
    def bad(self) -> bool:
        """Whether it has no voice: it holds orders, or is of a flood that nobody vouches for."""
        return self.orders or (self.flood and self.trust is not Trust.TRUSTED)


def _placed(conflict: Conflict, places: Sequence[int]) -> Conflict:
    """The conflict with its passages numbered as they were handed in."""
    sides = tuple(replace(side, passages=tuple(places[at] for at in side.passages)) for side in conflict.sides)
    return replace(conflict, sides=sides)


def _flat(text: str) -> str:
    return " ".join(WORD.findall(plain(text)))


def _repeats(question: str, text: str) -> bool:
    """Whether a passage holds the whole question, word by word."""
    asked = _flat(question)
    return asked.count(" ") + 1 >= ECHOED_WORDS and asked in _flat(text)
