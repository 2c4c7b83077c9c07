"""What was looked up for a call: what a search found, what of it an expert is shown, and what was kept away, and why.

Values; gateway/policy/seeking.py makes them, gateway/prompt.py writes what is shown into the prompt, and the answer's
`conclave` object says it again. Never decides anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from conclave.retrieval.api import Found, Passage, Query, Results
from conclave.router.api import Outcome
from conclave.router.gates.cascade import Heard
from conclave.safety.api import Origin, Segment
from conclave.safety.boundary.normalise import fold
from conclave.safety.verdict import NOTHING, Verdict

MOST_TOLD: Final = 16  # passages that were kept away, in an answer and in the record
PASSAGE_CHARS: Final = 20_000  # of one: a library cuts them at a tenth of it
FOLDED_CHARS: Final = 400_000  # NFKC makes at most 18 characters of one
LONGEST: Final = 24  # characters between brackets that can be numbers
MEMORY: Final = "memory"  # why passages are taken back: an expert that knows speaks against them,
MISLED: Final = "misled"  # or was led astray by them,
UNUSED: Final = "unused"  # or gave no better answer from them
NAME_OF: Final = ".heading"  # how the place of what stands above a passage ends


@dataclass(frozen=True, slots=True)
class Searched:
    """A search and how it ended: with `results`, or with `failure`. Neither: there is nothing to search.

    `took_ms` is how long the search itself took, without waiting for its thread.
    """

    query: Query | None = None
    results: Results | None = None
    failure: str = ""
    took_ms: float | None = None

    @property
    def made(self) -> bool:
        """Whether there was something to search."""
        return self.results is not None or bool(self.failure)

    @property
    def found(self) -> Sequence[Found]:
        return self.results.found if self.results is not None else ()

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The passages as texts of a request, in the order in which they were found."""
        return tuple(retrieved(number, one.passage) for number, one in enumerate(self.found))

    @property
    def names(self) -> tuple[Segment, ...]:
        """What stands above the passages in a prompt, in their order: whoever wrote a document chose that, too."""
        return tuple(named(number, one.passage) for number, one in enumerate(self.found))


NOT_SEARCHED: Final = Searched()


def retrieved(number: int, passage: Passage) -> Segment:
    """A passage as a text of the request: data, wherever it came from."""
    return _data(passage.text, f"retrieved[{number}]", passage)


def named(number: int, passage: Passage) -> Segment:
    """A passage's source and heading as a text of the request."""
    name = f"{passage.source}, {passage.heading}" if passage.heading else passage.source
    return _data(" ".join(name.split()), f"retrieved[{number}]{NAME_OF}", passage)


def _data(text: str, place: str, passage: Passage) -> Segment:
    text = text[:PASSAGE_CHARS].encode("utf-8", "replace").decode("utf-8")
    return Segment(Origin.RETRIEVED, text, fold(text, max_chars=FOLDED_CHARS), place, passage.source)


@dataclass(frozen=True, slots=True)
class Shown:
    """A passage that an expert is shown, by its `number` there; `text` and `name` are what the checks left of it."""

    number: int
    passage: Passage
    text: str
    name: str = ""

    def cited(self) -> dict[str, Any]:
        """As `conclave.citations` has it: where it stands."""
        passage = self.passage
        said = {"n": self.number, "id": passage.id, "source": passage.source, "heading": passage.heading}
        said |= {"start": passage.start, "end": passage.end, "collection": passage.collection}
        return said | {"page": passage.page} if passage.page else said


@dataclass(frozen=True, slots=True)
class KeptAway:
    """A passage that no expert is shown, and the reasons: those of the context guard, or names of checks."""

    passage: Passage
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an expert is shown. `conflict` says how the passages disagree, `follows` what is to be done about that.

    `verdict` is what the checks of requests found in the passages. `block` is how the shown ones stand in the prompt,
    `note` what the application's own words say of them there. `required`: without them nobody is asked.
    """

    shown: tuple[Shown, ...] = ()
    kept_away: tuple[KeptAway, ...] = ()
    conflict: str = "none"
    follows: str = "answer"
    required: bool = False
    verdict: Verdict = NOTHING
    block: str = ""
    note: str = ""

    def explained(self) -> dict[str, Any]:
        """For the answer's `conclave.retrieval`, and the record. Never a passage's text."""
        said: dict[str, Any] = {"passages": len(self.shown)}
        if self.kept_away:
            away = self.kept_away[:MOST_TOLD]
            said["kept_away"] = [
                {"id": one.passage.id, "source": one.passage.source, "reasons": list(one.reasons)} for one in away
            ]
        return said | {"conflict": self.conflict, "follows": self.follows} if self.conflict != "none" else said

    def taken_back(self, reason: str) -> "Evidence":
        """The same, where the answer that is shown was given without it."""
        away = tuple(KeptAway(one.passage, (reason,)) for one in self.shown)
        return replace(self, shown=(), kept_away=(*self.kept_away, *away), block="", note="")


NO_EVIDENCE: Final = Evidence()


@dataclass(frozen=True, slots=True)
class Aside:
    """An expert's answer without documents, once it was put aside to be held against one with them."""

    question: str
    heard: Heard
    outcome: Outcome
    evidence: Evidence


@dataclass(slots=True)
class Citing:
    """Reads the numbers in an answer as it goes by: `[2]`, also where a chunk ends within one."""

    shown: Mapping[int, Shown]
    used: dict[int, Shown] = field(default_factory=dict)
    _open: str = ""

    @classmethod
    def of(cls, evidence: Evidence) -> "Citing":
        return cls({one.number: one for one in evidence.shown})

    def read(self, text: str) -> None:
        """The next piece of the answer."""
        for part in (self._open + text).split("[")[1:]:
            inside, closed, _ = part.partition("]")
            if closed:
                self._note(inside)
        rest = (self._open + text).rpartition("[")
        self._open = f"[{rest[2]}" if rest[1] and "]" not in rest[2] and len(rest[2]) <= LONGEST else ""

    def cited(self) -> list[dict[str, Any]]:
        """The passages that the answer names, in the order of their numbers."""
        return [self.used[number].cited() for number in sorted(self.used)]

    def _note(self, inside: str) -> None:
        if len(inside) > LONGEST:
            return
        for part in inside.split(","):
            number = part.strip()
            if number.isascii() and number.isdigit() and (one := self.shown.get(int(number))) is not None:
                self.used[one.number] = one
