"""What an expert's samples say of what it knows, and what to do about it: the action table.

Two kinds of wrong answers (WACK, Simhi et al. 2024, arXiv 2410.22071): the expert does not know (HK-: look it up, or
abstain), or it knows and errs, because of what stands in the conversation (HK+: take that away, or ask an expert that
is not led astray). Their probe reads hidden states; an API shows only samples, so both are proxies here: samples that
disagree, and an answer that flips with the context. An expert that is wrong the same way each time looks as if it knew.
Pure; never asks anybody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from conclave.router.api import Act, Risk
from conclave.router.gates.cascade import normalised

SURE: Final = 2 / 3  # the share of samples that agree from which an expert counts as knowing: two of three
CONFIDENT: Final = 0.5  # the calibrated probability of being right, where there is one
FEW_WORDS: Final = 40  # of an answer that says no more than that it does not know
UNKNOWING: Final = tuple(  # what such an answer says, as `normalised` writes it; English
    f" {words} "
    for words in (
        "do not know", "don t know", "not known", "no idea", "not sure", "unsure", "not certain",
        "cannot say", "can t say", "cannot tell", "can t tell", "cannot answer", "can t answer", "unable to answer",
        "no information", "not have information", "not have any information", "no knowledge", "not aware of",
        "not familiar with", "no record", "do not say", "does not say", "not mentioned", "unknown to me",
    )
)  # fmt: skip
Same: TypeAlias = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of an expert.

    `closed` are its answers without the conversation's context, `open` those with it; `confidence` is the calibrated
    probability that they are right, None where nobody knows. `looked_up` says that passages were fetched already, and
    `reasked` that the context was dropped already. `supported`: trusted passages say what the answers with context say.
    """

    closed: tuple[str, ...]
    open: tuple[str, ...] = ()
    confidence: float | None = None
    looked_up: bool = False
    reasked: bool = False
    supported: bool = False


@dataclass(frozen=True, slots=True)
class Knowing:
    """The row of the table: what it looks like, how much so (0..1), what to do, and with which expert if another."""

    risk: Risk
    score: float
    act: Act
    reason: str
    expert: str | None = None

    def hallucination_risk(self) -> dict[str, object]:
        """As `conclave.hallucination_risk` is written."""
        return {"type": str(self.risk), "score": self.score}


def agreement(answers: tuple[str, ...]) -> float:
    """The share of the answers that say what most say; 0 without an answer that has a word."""
    said = [normalised(answer) for answer in answers if answer.strip()]
    return max(map(said.count, said)) / len(answers) if said else 0.0


def unknowing(answer: str) -> bool:
    """Whether an answer says no more than that whoever gives it does not know."""
    said = f" {normalised(answer)} "
    return said.count(" ") <= FEW_WORDS + 1 and any(words in said for words in UNKNOWING)


def says_the_same(left: str, right: str) -> bool:
    """Whether two short answers are one, word by word."""
    return normalised(left) == normalised(right)


def knowing(
    heard: Heard, *, robust: str | None = None, confident: float = CONFIDENT, same: Same = says_the_same
) -> Knowing:
    """What to do with these samples. `robust` is the expert least led astray by context; None: there is no other.

    `confident` is the confidence that knowing takes, `same` tells whether two answers are one. Agreement and confidence
    are both needed to count as knowing. At most one look-up and one question without context: what stays unclear after
    that is not answered. Raises ValueError without a closed-book answer.
    """
    if not heard.closed:
        raise ValueError("what an expert knows cannot be told without an answer of its own: ask it without context")
    agreed = agreement(heard.closed)
    sure = agreed if heard.confidence is None else min(agreed, heard.confidence)
    admits = unknowing(_most_said(heard.closed))
    knows = not admits and agreed >= SURE and (heard.confidence is None or heard.confidence >= confident)
    if not knows:
        act = Act.ABSTAIN if heard.looked_up else Act.RETRIEVE
        why = "it says so" if admits else "its samples disagree" if agreed < SURE else "it is not confident"
        sure = 0.0 if admits else sure
        return Knowing(Risk.IGNORANCE, 1 - sure, act, f"{why}, and passages were looked up" if heard.looked_up else why)
    flips = flipped(heard, same)
    if flips <= 1 - SURE or heard.supported:
        why = "trusted passages correct it" if heard.supported and flips > 1 - SURE else "its samples agree"
        return Knowing(Risk.KNOWN, 1 - sure, Act.ANSWER, why)
    if not heard.reasked:
        return Knowing(Risk.MISLED, flips, Act.REASK, "its answer flips with the context: ask it without")
    if robust is not None:
        return Knowing(Risk.MISLED, flips, Act.ROUTE, "its answer still flips: ask the robust expert", robust)
    return Knowing(Risk.MISLED, flips, Act.ABSTAIN, "its answer still flips, and there is no other expert")


def flipped(heard: Heard, same: Same = says_the_same) -> float:
    """The share of the answers with context that are not the one without; 0 where none was asked with it."""
    if not heard.open:
        return 0.0
    own = _most_said(heard.closed)
    return sum(unknowing(answer) or not same(own, answer) for answer in heard.open) / len(heard.open)


def _most_said(answers: tuple[str, ...]) -> str:
    """What most of the answers that have a word say, as the first of them says it."""
    said = [answer for answer in answers if answer.strip()]
    kinds = [normalised(answer) for answer in said]
    return said[kinds.index(max(kinds, key=kinds.count))] if said else ""
