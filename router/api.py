"""The router's own types, and the one pure function that names the next expert.

Nothing here knows HTTP, providers or the policy's file format: a `Decision` is a value that can be written down and
replayed, and `next_step` needs nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


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
        """The second most probable category."""
        return sorted(self.probabilities, key=self.probabilities.__getitem__)[-2]


@dataclass(frozen=True, slots=True)
class Step:
    """Ask `expert`; `reason` says why it stands here (`category`, `unsure`, `named`, `fallback`, ...).

    `on_trial`: its answer is held back whole, and judged before a word of it is shown.
    """

    expert: str
    reason: str
    on_trial: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended. A step that failed says why in `error`, and perhaps when to come back (`retry_after_s`).

    `rejected` means that the expert found the request itself wrong, in `param` and with `code`; `final` that every
    other expert would find so too (a context that is too long may fit elsewhere).
    """

    accepted: bool
    error: str | None = None
    rejected: bool = False
    final: bool = False
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    confidence: float | None = None  # of an answer on trial


@dataclass(frozen=True, slots=True)
class Decision:
    """Which experts, in which order, and why; enough to explain and to replay it without the user's text.

    `classification` is None where none was needed (a named expert, or routing switched off). `row` names the row of
    the policy's table that was used (a category, or `default`). `model_digest` is the classifier's artifact.
    `expected` is each able expert's expected score, where the policy knows scores.
    """

    steps: tuple[Step, ...]
    reason: str
    row: str
    classification: Classification | None = None
    model_digest: str | None = None
    expected: Mapping[str, float] = field(default_factory=dict)


class NoStepLeft(Exception):
    """No step of the decision is left to try; the last outcome says what happened."""


def next_step(decision: Decision, outcomes: Sequence[Outcome], *, shown: bool = False, resumable: bool = False) -> Step:
    """The step to take after `outcomes`; raises NoStepLeft.

    Falling back is open while another expert could do better: until the client has seen a word (`shown`) and, if what
    it saw is `resumable`, after that, too. An answer that has begun is worth one more try by the expert that stands
    last.
    """
    taken = len(outcomes)
    if (shown and not resumable) or (outcomes and outcomes[-1].final):
        raise NoStepLeft
    if taken < len(decision.steps):
        return decision.steps[taken]
    if shown and taken == len(decision.steps):
        return Step(decision.steps[-1].expert, "resume")
    raise NoStepLeft
