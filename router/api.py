"""The router's own types, and the one pure function that names the next expert.

Nothing here knows HTTP, providers or the policy's file format: a `Decision` is a value that can be written down and
replayed, and `next_step` needs nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

CLOSED_BOOK: Final = "closed_book"  # the reason of a step that is asked without documents, to hear what is known
AFTER_A_TRIAL: Final = frozenset({"escalated", "documents", "whole"})  # reasons that hold where the trial was put aside


@dataclass(frozen=True, slots=True)
class Classification:
    """What the classifier says of one text.

    `probabilities` are calibrated and sum to 1 over the categories; `category` is always their argmax, `unsure` a flag
    beside it (the confidence is below the threshold in the artifact).
    """

    category: str
    confidence: float
    unsure: bool
    probabilities: Mapping[str, float]

    @property
    def runner_up(self) -> str:
        """The most probable of the other categories; of equal ones the last by name, in whatever order they stand."""
        return max((share, name) for name, share in self.probabilities.items() if name != self.category)[1]


@dataclass(frozen=True, slots=True)
class Step:
    """Ask `expert`; `reason` says why it stands here (`category`, `unsure`, `named`, `fallback`, ...).

    `on_trial`: its answer is held back whole, and judged before a word of it is shown. `kept`: ask nobody, and show
    what `expert` said on trial: it was unsure, but it is all there is. `look_up`: it is given what was found.
    """

    expert: str
    reason: str
    on_trial: bool = False
    kept: bool = False
    look_up: bool = False


class Risk(StrEnum):
    """KNOWN: none is seen. IGNORANCE: HK-. MISLED: HK+. UNKNOWN: nothing tells."""

    KNOWN = "known"
    IGNORANCE = "ignorance"
    MISLED = "misled"
    UNKNOWN = "unknown"


class Act(StrEnum):
    """What follows: ANSWER shows it; RETRIEVE asks once more, with documents; COMPARE does so, and holds both answers
    against each other; REASK goes back to the answer without documents; ROUTE asks whom they lead astray least."""

    ANSWER = "answer"
    RETRIEVE = "retrieve"
    COMPARE = "compare"
    REASK = "reask"
    ROUTE = "route"
    ABSTAIN = "abstain"


ONCE_MORE: Final = frozenset({Act.RETRIEVE, Act.COMPARE, Act.ROUTE})


@dataclass(frozen=True, slots=True)
class Assessment:
    """What an answer shows of what its expert knows, how much so (0..1; None: nobody can tell), and what follows."""

    risk: Risk
    score: float | None
    act: Act


@dataclass(frozen=True, slots=True)
class ClosedBook:
    """The first step is asked without documents, and is heard before they are. `robust` is the expert that they lead
    astray least; None: there is no other. `abstain`: who does not know and finds nothing gives no answer. `flagged`: it
    is asked without those data of the conversation, too, in which something was found."""

    robust: str | None = None
    abstain: bool = False
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended. A step that failed says why in `error`, and perhaps when to come back (`retry_after_s`).

    `rejected` means that the expert found the request itself wrong, in `param` and with `code`; `final` that every
    other expert would find so too (a context that is too long may fit elsewhere). `unsure`: the step's answer was on
    trial and is not good enough; `confidence` is what `evidence` says of an answer on trial, and `measured` what it
    said before a curve was applied: a new curve can only be found from that. `known` is what it shows of what its
    expert knows, where the policy asks for that.
    """

    accepted: bool
    error: str | None = None
    rejected: bool = False
    final: bool = False
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    unsure: bool = False
    confidence: float | None = None
    evidence: str | None = None
    measured: float | None = None
    known: Assessment | None = None

    @property
    def aside(self) -> bool:
        """Whether the answer is put aside, and comes out again only if nothing better does."""
        return self.unsure or (self.known is not None and self.known.act in ONCE_MORE)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one of the user's turns said for the category of the last: its weight, and how it was classified."""

    weight: float
    category: str
    unsure: bool


@dataclass(frozen=True, slots=True)
class Talk:
    """What a call takes from the conversation that it stands in.

    `before` is the expert that answered there last, if that is known. `open_loop`: tools that an expert called have not
    been spoken about since; only that expert can go on. `turns` are those that the category follows from, the last one
    first; none where the last one says enough by itself.
    """

    before: str | None = None
    open_loop: bool = False
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class LookUp:
    """Whether a question is looked up, and what that follows from (gates/retrieval.py).

    `now`: for the first expert that is asked; `if_unsure`: for the second, if the first was on trial and unsure.
    `probability` is that it turns a wrong answer into a right one; `value` is what it is expected to win, in right
    answers, and `threshold` what that must exceed. `saving` is in tokens, against always looking up.
    """

    mode: str
    now: bool
    if_unsure: bool
    reason: str
    probability: float = 0.0
    p_wrong: float = 0.0
    p_fix: float = 0.0
    p_harm: float = 0.0
    value: float = 0.0
    threshold: float = 0.0
    saving: float = 0.0

    @property
    def possible(self) -> bool:
        """Whether some step is given what was found."""
        return self.now or self.if_unsure


@dataclass(frozen=True, slots=True)
class Decision:
    """Which experts, in which order, and why; enough to explain and to replay it without the user's text.

    `classification` is None where none was needed (a named expert, or routing switched off). `row` names the row of
    the policy's table that was used (a category, or `default`). `model_digest` is the classifier's artifact.
    `expected` is each able expert's expected score, where the policy knows scores. `look_up` is None where there is
    nothing to look up in. `closed_book` is set where an expert is heard before documents are.
    """

    steps: tuple[Step, ...]
    reason: str
    row: str
    classification: Classification | None = None
    model_digest: str | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    look_up: LookUp | None = None
    closed_book: ClosedBook | None = None

    def looking_up(self, look_up: LookUp | None) -> "Decision":
        """The same with a look-up, at each step that it is for."""
        if look_up is None or not look_up.possible:
            return replace(self, look_up=look_up)
        later = look_up.now or (look_up.if_unsure and self.steps[0].on_trial)
        first, *others = self.steps
        steps = replace(first, look_up=look_up.now), *(replace(step, look_up=later) for step in others)
        return replace(self, steps=steps, look_up=look_up)


class NoStepLeft(Exception):
    """No step of the decision is left to try; the last outcome says what happened."""


class Abstains(NoStepLeft):
    """Whoever was asked does not know, no documents help, and the policy wants no guess."""


def next_step(decision: Decision, outcomes: Sequence[Outcome], *, shown: bool = False, resumable: bool = False) -> Step:
    """The step to take after `outcomes`; raises NoStepLeft, or Abstains.

    Falling back is open while another expert could do better: until the client has seen a word (`shown`) and, if what
    it saw is `resumable`, after that, too. An answer that has begun is worth one more try by the expert that stands
    last. After an answer on trial that was put aside, one more expert is asked; if that one fails, or is led astray by
    its documents, the answer is kept: it is better than none, unless the policy abstains. What an expert on trial finds
    wrong with a request is not final: it was asked for more than the client asked for.
    """
    taken = len(outcomes)
    aside = next((place for place, outcome in enumerate(outcomes) if outcome.aside), None)
    if not shown and _abstains(decision, outcomes, aside):
        raise Abstains
    if aside is not None and not shown and (taken > aside + 1 or taken >= len(decision.steps)):
        led_astray = outcomes[-1].known is not None and outcomes[-1].known.act is Act.REASK
        return Step(decision.steps[aside].expert, "reask" if led_astray else "kept", kept=True)
    on_trial = 0 < taken <= len(decision.steps) and decision.steps[taken - 1].on_trial
    if (shown and not resumable) or (outcomes and outcomes[-1].final and not on_trial):
        raise NoStepLeft
    if taken < len(decision.steps):
        step = decision.steps[taken]
        if aside is not None:
            return _once_more(decision, step, outcomes[aside])
        if not (step.look_up or step.reason in AFTER_A_TRIAL):
            return step
        now = decision.look_up is not None and decision.look_up.now
        reason = "fallback" if step.reason in AFTER_A_TRIAL else step.reason
        return replace(step, reason=reason, look_up=step.look_up and now)
    if shown and taken == len(decision.steps):
        return Step(decision.steps[-1].expert, "resume")
    raise NoStepLeft


def _once_more(decision: Decision, step: Step, before: Outcome) -> Step:
    """Who is asked after an answer that was put aside; to be compared with it, the next one is held, too."""
    act, closed_book = before.known.act if before.known is not None else None, decision.closed_book
    if act is Act.ROUTE and closed_book is not None and closed_book.robust is not None:
        return Step(closed_book.robust, "robust", look_up=True)
    return replace(step, on_trial=True) if act is Act.COMPARE else step


def _abstains(decision: Decision, outcomes: Sequence[Outcome], aside: int | None) -> bool:
    """Whether nobody answers: the expert does not know, and documents were not there, or did not come to an answer."""
    if decision.closed_book is None or not decision.closed_book.abstain:
        return False
    acts = [outcome.known.act if outcome.known is not None else None for outcome in outcomes]
    if acts and acts[-1] is Act.ABSTAIN:
        return True
    known = outcomes[aside].known if aside is not None and len(outcomes) > aside + 1 else None
    return known is not None and known.act is Act.RETRIEVE and known.risk is Risk.IGNORANCE
