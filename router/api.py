"""The router's own types, and the one pure function that names the next expert.

Nothing here knows HTTP, providers or the policy's file format: a `Decision` is a value that can be written down and
replayed, and `next_step` needs nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended. A step that failed says why in `error`, and perhaps when to come back (`retry_after_s`).

    `rejected` means that the expert found the request itself wrong, in `param` and with `code`; `final` that every
    other expert would find so too (a context that is too long may fit elsewhere). `unsure`: the step's answer was on
    trial and is not good enough; `confidence` is what `evidence` says of an answer on trial, and `measured` what it
    said before a curve was applied: a new curve can only be found from that.
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
    nothing to look up in.
    """

    steps: tuple[Step, ...]
    reason: str
    row: str
    classification: Classification | None = None
    model_digest: str | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    look_up: LookUp | None = None

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


def next_step(decision: Decision, outcomes: Sequence[Outcome], *, shown: bool = False, resumable: bool = False) -> Step:
    """The step to take after `outcomes`; raises NoStepLeft.

    Falling back is open while another expert could do better: until the client has seen a word (`shown`) and, if what
    it saw is `resumable`, after that, too. An answer that has begun is worth one more try by the expert that stands
    last. After an answer on trial that was unsure, one more expert is asked; if that one fails, the unsure answer is
    kept: it is better than none. What an expert on trial finds wrong with a request is not final: it was asked for
    more than the client asked for.
    """
    taken = len(outcomes)
    doubted = next((place for place, outcome in enumerate(outcomes) if outcome.unsure), None)
    if doubted is not None and not shown and (taken > doubted + 1 or taken >= len(decision.steps)):
        return Step(decision.steps[doubted].expert, "kept", kept=True)
    on_trial = 0 < taken <= len(decision.steps) and decision.steps[taken - 1].on_trial
    if (shown and not resumable) or (outcomes and outcomes[-1].final and not on_trial):
        raise NoStepLeft
    if taken < len(decision.steps):
        step = decision.steps[taken]
        if doubted is not None or not (step.look_up or step.reason == "escalated"):
            return step
        now = decision.look_up is not None and decision.look_up.now
        reason = "fallback" if step.reason == "escalated" else step.reason
        return replace(step, reason=reason, look_up=step.look_up and now)
    if shown and taken == len(decision.steps):
        return Step(decision.steps[-1].expert, "resume")
    raise NoStepLeft
