"""Whether passages that one hand could have put there repeat one claim to win the search: a flood.

Poisoned passages (PoisonedRAG, Zou et al. 2024, arXiv 2402.07867) must be found for one question and must agree: so
they are short, echo the question, and are like each other. Honest neighbours in a document share its subject, and say
different things about it. A logistic model over four such numbers tells them apart. It looks only at passages that are
not independent, and asks for three of a kind: a lone poisoned passage is not a flood, and is for the vote to judge.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from conclave.safety.context.provenance import Evidence, one_hand
from conclave.safety.context.words import Read, content

SHIPPED: Final = Path(__file__).parent / "flood.json"
NUMBERS: Final = ("echo", "near", "shared", "length")
NEAR: Final = 0.55  # the cosine of two of a kind: of poisoned passages 99 % have two nearer than 0.62
Cosines: TypeAlias = Sequence[Sequence[float]]  # of each passage with each, [passages, passages]
OTHERS: Final = 2  # of a kind that a passage of a flood has beside itself


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like the question and like its fellows a passage is.

    `asked` is its cosine with the question, `echo` the share of the question's content words in it, `density` the share
    of its own that are the question's. `near` and `shared` are the cosine with, and the Jaccard index of words beside
    the question's with, the second nearest passage of one hand; 0 where there is none. `length` is ln(1 + words).
    """

    asked: float
    echo: float
    density: float
    near: float
    shared: float
    length: float

    def numbers(self) -> tuple[float, ...]:
        """Those that the model reads, in the order of NUMBERS."""
        return (self.echo, self.near, self.shared, self.length)


class FloodModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """flood.json: a weight for each of NUMBERS; from `threshold` on a passage is of a flood."""

    weights: dict[str, float]
    bias: float
    threshold: float
    trained_on: dict[str, str] = {}
    measured: dict[str, float] = {}

    def probability(self, like: Likeness) -> float:
        """How likely a passage is of a flood; 0 for one without others of its hand."""
        if like.near <= 0:
            return 0.0
        score = self.bias + sum(self.weights[name] * value for name, value in zip(NUMBERS, like.numbers(), strict=True))
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, score))))


@lru_cache(maxsize=4)
def load(file: Path = SHIPPED) -> FloodModel:
    """Read a model; raises FileNotFoundError, and ValueError for a file that is none."""
    try:
        model = msgspec.json.decode(file.read_bytes(), type=FloodModel)
    except msgspec.DecodeError as error:
        raise ValueError(f"{file}: {error}; fit it again with `python -m conclave.safety.train.context`") from error
    if set(model.weights) != set(NUMBERS):
        raise ValueError(f"{file}: weights for {', '.join(sorted(model.weights))}, and not for {', '.join(NUMBERS)}")
    return model


def likenesses(
    question: str,
    passages: Sequence[Evidence],
    reads: Sequence[Read],
    to_question: Sequence[float],
    cosines: Cosines,
) -> list[Likeness]:
    """The numbers of each passage; `to_question` are its cosines with the question, [passages]."""
    wanted = content(question)
    words = [one.words for one in reads]
    rests = [own - wanted for own in words]
    found = []
    for place, passage in enumerate(passages):
        fellows = [other for other in range(len(passages)) if other != place and one_hand(passage, passages[other])]
        common = len(words[place] & wanted)
        found.append(
            Likeness(
                asked=to_question[place],
                echo=common / len(wanted) if wanted else 0.0,
                density=common / len(words[place]) if words[place] else 0.0,
                near=_second([cosines[place][other] for other in fellows]),
                shared=_second([jaccard(rests[place], rests[other]) for other in fellows]),
                length=math.log1p(len(words[place])),
            )
        )
    return found


def flooded(
    passages: Sequence[Evidence],
    chances: Sequence[float],
    cosines: Cosines,
    threshold: float,
    named: Sequence[frozenset[str]] = (),
) -> list[bool]:
    """Which passages are of a flood: likely so, with OTHERS near them of one hand that are, too.

    `named` are the question's names that each passage holds: those who lack one of them speak of something else. Else
    the one row about Bern would go with the rows of its table, of which the others are about other towns.
    """
    likely = [place for place, chance in enumerate(chances) if chance >= threshold]

    def with_it(place: int) -> int:
        near = [other for other in likely if other != place and cosines[place][other] >= NEAR]
        if named:
            near = [other for other in near if named[place] <= named[other]]
        return sum(one_hand(passages[place], passages[other]) for other in near)

    return [place in likely and with_it(place) >= OTHERS for place in range(len(passages))]


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """What both hold of what either holds, 0..1."""
    both = len(left & right)
    return both / (len(left) + len(right) - both) if both else 0.0


def _second(values: list[float]) -> float:
    return max(0.0, sorted(values, reverse=True)[OTHERS - 1]) if len(values) >= OTHERS else 0.0
