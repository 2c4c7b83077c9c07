"""Hearing an expert without documents before it is shown them: who is heard so, and what follows from its own answer.

The action table of router/gates/knowing.py (WACK) for one call, and what the context guard says of documents that speak
against what the expert said by itself (Dialectical Alignment). It knows: its answer is shown, unless looking up pays;
then both answers are held against each other. It does not know: it is shown documents, once. Pure; never asks anybody,
and cannot see an expert that is wrong each time with full confidence.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from conclave.gateway.evidence import Aside, Evidence
from conclave.gateway.policy.asked import Asked
from conclave.gateway.policy.retrieval import ClosedBookSettings
from conclave.retrieval.api import Trust
from conclave.router.api import CLOSED_BOOK, Act, Assessment, ClosedBook, Decision, Outcome, Risk, Step
from conclave.router.conversation import IN_LOOP
from conclave.router.gates.cascade import FROM_LOGPROBS, Cascade, Heard, majority
from conclave.router.gates.knowing import Heard as Said
from conclave.router.gates.knowing import Knowing, agreement, knowing, unknowing
from conclave.router.gates.retrieval import Mode
from conclave.safety.context.claims import answer_values, question_of, same
from conclave.safety.context.conflict import Action as Follows
from conclave.safety.context.conflict import Memory, changes_with_time

INFORMED: Final = "documents"  # the reason of the step after the one without documents,
WHOLE: Final = "whole"  # where only the conversation's own data were left out
ONE: Final = frozenset({"n", "tools"})  # needs of requests that are asked once: several answers, and what tools follow
CITED: Final = re.compile(r"\[[\d, ]{1,24}\]")  # the number of a passage is no part of what an answer says


@dataclass(frozen=True, slots=True)
class Hearing:
    """What a policy's `retrieval.closed_book` means. `gate` judges the answer; nobody who gives no evidence knows."""

    gate: Cascade
    robust: str | None = None
    abstain: bool = False
    without_flagged: bool = False

    def hears(self, decision: Decision, asked: Asked, can: Collection[str]) -> bool:
        """Whether the call may be asked twice: no open tool loop, one plain answer, and no trial beside this one.

        `can` is what the first expert can: one that never tells how sure it is, or only quotes, is not heard first.
        """
        tells = {"logprobs" if kind in FROM_LOGPROBS else "n" for kind in self.gate.evidence}
        if asked.operation != "chat" or not ONE.isdisjoint(asked.needs) or tells.isdisjoint(can):
            return False
        return not (asked.talk.open_loop or decision.reason == IN_LOOP or decision.steps[0].on_trial)

    def staged(self, decision: Decision, asked: Asked, can: Collection[str], able: Callable[[str], bool]) -> Decision:
        """The decision with its first expert heard without documents first; as it was where nothing follows from that.

        `able` tells who may serve the call. A call that is to be answered from documents alone hears nobody first.
        """
        look_up = decision.look_up
        documents = look_up is not None and look_up.possible
        if not (documents or self.abstain or asked.flagged) or not self.hears(decision, asked, can):
            return decision
        if look_up is not None and look_up.mode == Mode.REQUIRED:
            return decision
        first, *others = decision.steps
        again = INFORMED if documents else WHOLE if asked.flagged else "fallback"
        steps = Step(first.expert, CLOSED_BOOK, on_trial=True), Step(first.expert, again, look_up=documents), *others
        robust = self.robust if self.robust != first.expert and first.reason != "named" else None
        robust = robust if documents and robust is not None and able(robust) else None
        return replace(decision, steps=steps, closed_book=ClosedBook(robust, self.abstain, asked.flagged))

    def judged(self, decision: Decision, heard: Heard) -> Outcome:
        """How the step without documents ended: what its answer shows of what the expert knows."""
        judged = self.gate.judge(heard)
        pays = decision.look_up is not None and decision.look_up.now
        flagged = decision.closed_book is not None and decision.closed_book.flagged
        if judged.confidence is None and not heard.silent:
            known = Assessment(Risk.UNKNOWN, None, Act.RETRIEVE)
        else:
            row = self._table(Said(closed=heard.answers or ("",), confidence=judged.confidence))
            known = Assessment(row.risk, row.score, row.act)
            if row.act is Act.ANSWER and (pays or flagged):
                known = replace(known, act=Act.COMPARE)
        outcome = replace(judged, unsure=False, accepted=False, known=known)
        return _settled(decision, outcome, informed=decision.steps[1].look_up or flagged)

    def held_against(self, decision: Decision, outcome: Outcome, evidence: Evidence) -> Outcome:
        """The same with what the documents came to: none is left, they speak against an expert that knows, or one that
        does not is to choose between them."""
        known = outcome.known
        if known is None or decision.closed_book is None:
            return outcome
        against = known.act is Act.COMPARE and evidence.follows == Follows.MEMORY
        if against and decision.closed_book.robust is not None:
            return replace(outcome, known=replace(known, act=Act.ROUTE))
        ignorant = known.risk is Risk.IGNORANCE and decision.closed_book.abstain
        torn = ignorant and evidence.follows == Follows.BOTH  # who does not know cannot choose between them
        more = (bool(evidence.shown) and not torn) or decision.closed_book.flagged
        return _settled(decision, outcome, informed=more and not against)

    def compared(self, aside: Aside, heard: Heard) -> Outcome:
        """How the step with documents ended: as the expert's own answer would have it, or led astray."""
        first = aside.outcome
        supported = aside.evidence.follows == Follows.ACCEPT or changes_with_time(aside.question)
        supported |= any(one.passage.trust is Trust.TRUSTED for one in aside.evidence.shown)
        said = Said(aside.heard.answers, heard.answers[:1], first.confidence, supported=supported)
        row = self._table(said, aside.question)
        act = Act.REASK if heard.silent else row.act
        return Outcome(accepted=act is Act.ANSWER, known=Assessment(row.risk, row.score, act))

    def _table(self, said: Said, question: str = "") -> Knowing:
        return knowing(said, confident=self.gate.below, same=partial(one_answer, question))


def _settled(decision: Decision, outcome: Outcome, *, informed: bool) -> Outcome:
    """Where nobody can be shown documents: who knows is shown, and who does not only if the policy does not abstain."""
    known = outcome.known
    if known is None or (informed and known.act is not Act.ANSWER):
        return outcome
    abstain = decision.closed_book is not None and decision.closed_book.abstain
    act = Act.ABSTAIN if abstain and known.risk is Risk.IGNORANCE else Act.ANSWER
    return replace(outcome, accepted=act is Act.ANSWER, known=replace(known, act=act))


def memory_of(outcome: Outcome, heard: Heard) -> Memory:
    """What the expert says without documents, and how surely; that it does not know contradicts no document."""
    sure = agreement(heard.answers) if len(heard.answers) > 1 else 1.0
    confidence = outcome.confidence if outcome.confidence is not None else float(len(heard.answers) > 1)
    said = heard.answers[majority(heard.answers)] if heard.answers else ""
    return Memory("" if unknowing(said) else said, min(sure, confidence))


def one_answer(question: str, left: str, right: str) -> bool:
    """Whether two answers to a question say the same, as far as rules read their values; what they cannot read does."""
    wanted = question_of(question)
    one, other = (answer_values(wanted, CITED.sub("", answer)) for answer in (left, right))
    return not (one and other) or any(same(value, another) for value in one for another in other)


def risk_of(known: Assessment) -> Mapping[str, object]:
    """As `conclave.hallucination_risk` is written."""
    return {"type": str(known.risk), "score": known.score}


def compiled(settings: ClosedBookSettings | None) -> Hearing | None:
    """As answers are heard by it."""
    if settings is None:
        return None
    gate = Cascade(
        below=settings.below,
        evidence=settings.evidence,
        samples=settings.samples,
        without_evidence="escalate",
        curve=settings.curve,
        trial_s=settings.trial_s,
    )
    return Hearing(gate, settings.robust, settings.abstain, settings.without_flagged)
