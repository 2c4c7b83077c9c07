"""What an expert's samples say of what it knows, and what to do about it: the action table.

Two kinds of wrong answers (WACK, Simhi et al. 2024, arXiv 2410.22071): the expert does not know (HK-: look it up, or
abstain), or it knows and errs, because of what stands in the conversation (HK+: take that away, or ask an expert that
is not led astray). Their probe reads hidden states; an API shows only samples, so both are proxies here: samples that
disagree, and an answer that flips with the context. An expert that is wrong the same way each time looks as if it knew.
Pure; never asks anybody.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from conclave.router.gates.cascade import normalised

SURE: Final = 0.67  # the share of samples that agree from which an expert counts as knowing: two of three
CONFIDENT: Final = 0.5  # the calibrated probability of being right, where there is one


class Risk(StrEnum):
    """KNOWN: none is seen. IGNORANCE: HK-. MISLED: HK+."""

    KNOWN = "known"
    IGNORANCE = "ignorance"
    MISLED = "misled"


class Act(StrEnum):
    ANSWER = "answer"
    RETRIEVE = "retrieve"
    ABSTAIN = "abstain"
    REASK = "reask"
    ROUTE = "route"


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


def knowing(heard: Heard, *, robust: str | None = None) -> Knowing:
    """What to do with these samples. `robust` is the expert least led astray by context; None: there is no other.

    Agreement and confidence are both needed to count as knowing. At most one look-up and one question without context:
    what stays unclear after that is not answered. Raises ValueError without a closed-book answer.
    """
    if not heard.closed:
        raise ValueError("what an expert knows cannot be told without an answer of its own: ask it without context")
    agreed = agreement(heard.closed)
    sure = agreed if heard.confidence is None else min(agreed, heard.confidence)
    knows = agreed >= SURE and (heard.confidence is None or heard.confidence >= CONFIDENT)
    if not knows:
        act = Act.ABSTAIN if heard.looked_up else Act.RETRIEVE
        why = "its samples disagree" if agreed < SURE else "it is not confident"
        return Knowing(Risk.IGNORANCE, 1 - sure, act, f"{why}, and passages were looked up" if heard.looked_up else why)
    flips = flipped(heard)
    if flips <= 1 - SURE or heard.supported:
        why = "trusted passages correct it" if heard.supported and flips > 1 - SURE else "its samples agree"
        return Knowing(Risk.KNOWN, 1 - sure, Act.ANSWER, why)
    if not heard.reasked:
        return Knowing(Risk.MISLED, flips, Act.REASK, "its answer flips with the context: ask it without")
    if robust is not None:
        return Knowing(Risk.MISLED, flips, Act.ROUTE, "its answer still flips: ask the robust expert", robust)
    return Knowing(Risk.MISLED, flips, Act.ABSTAIN, "its answer still flips, and there is no other expert")


def flipped(heard: Heard) -> float:
    """The share of the answers with context that are not the one without; 0 where none was asked with it."""
    if not heard.open:
        return 0.0
    said = [normalised(answer) for answer in heard.closed if answer.strip()]
    own = max(said, key=said.count) if said else ""
    return sum(normalised(answer) != own for answer in heard.open) / len(heard.open)
