"""What a trial has shown so far: a shadow beside the policy, the arms of an A/B test beside each other.

Each difference comes with its 95 % interval, and with the words `cannot tell yet` where it proves nothing. Only rows of
the trial's newest form count: what is compared must not have changed meanwhile. Importing it imports SQLAlchemy.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import select

from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.kept_calls import FETCH_ROWS, Kept
from conclave.gateway.policy.overlay import CONTROL, trial_digest
from conclave.gateway.policy.past import PastVersions
from conclave.gateway.policy.prices import paid_for, usd_for
from conclave.gateway.state.sql import Database
from conclave.gateway.state.tables import feedback, shadow_choices
from conclave.router.compare import Difference, apart, paired

NOT_ASKED: Final = frozenset({"breaker_open", "no_deployment"})  # attempts that never reached an expert
ALL: Final = ""  # the tally over all categories


def _values() -> "array[float]":
    return array("d")


@dataclass(slots=True)
class ShadowTally:
    """Calls of one category, or of all. Differences are the shadow less the policy; feedback is of the policy's answer.

    `said_same` is what was said where both would ask the same expert, `said_other` where the shadow would ask another.
    """

    calls: int = 0
    same: int = 0
    nobody: int = 0
    scores: "array[float]" = field(default_factory=_values)
    costs_usd: "array[float]" = field(default_factory=_values)
    said_same: "array[float]" = field(default_factory=_values)
    said_other: "array[float]" = field(default_factory=_values)

    def take(self, choice: Any) -> None:
        self.calls += 1
        same = choice.other == choice.expert
        self.same += same
        self.nobody += choice.other is None
        if choice.other_score is not None:
            self.scores.append(choice.other_score - choice.score)
        if choice.other_cost_usd is not None:
            self.costs_usd.append(choice.other_cost_usd - choice.cost_usd)
        if choice.said is not None:
            (self.said_same if same else self.said_other).append(choice.said)

    @property
    def score(self) -> Difference | None:
        return paired(self.scores)

    @property
    def cost_usd(self) -> Difference | None:
        return paired(self.costs_usd)

    @property
    def said(self) -> Difference | None:
        """How much better the answers were rated where the shadow would have asked another: less speaks for it."""
        return apart(self.said_same, self.said_other)


@dataclass(slots=True)
class ShadowReport:
    """One shadow; `older` counts rows of its earlier forms, which are left out."""

    name: str
    trial: str
    by_category: dict[str, ShadowTally] = field(default_factory=dict)
    older: int = 0

    @property
    def whole(self) -> ShadowTally:
        return self.by_category[ALL]


def shadows(database: Database, since: str, name: str | None = None) -> list[ShadowReport]:
    """Every shadow with calls since then, or the named one."""
    at = shadow_choices.c
    chosen = (at.time >= since) if name is None else (at.time >= since) & (at.shadow == name)
    joined = shadow_choices.outerjoin(feedback, feedback.c.request_id == at.request_id)
    statement = select(shadow_choices, feedback.c.score.label("said")).select_from(joined).where(chosen)
    newest_first = statement.order_by(at.time.desc(), at.chain.desc(), at.seq.desc())
    found: dict[str, ShadowReport] = {}
    with database.read() as connection:
        for choice in connection.execute(newest_first.execution_options(yield_per=FETCH_ROWS)):
            report = found.setdefault(choice.shadow, ShadowReport(choice.shadow, choice.trial))
            if choice.trial != report.trial:
                report.older += 1
                continue
            for category in (ALL, choice.category):
                report.by_category.setdefault(category, ShadowTally()).take(choice)
    return sorted(found.values(), key=lambda report: report.name)


@dataclass(slots=True)
class Conversation:
    """What an arm made of one conversation: the unit that was dealt, so the unit that counts."""

    calls: int = 0
    answered: int = 0
    cost_usd: float | None = 0.0
    duration_ms: float = 0.0
    said: list[float] = field(default_factory=list)

    def take(self, kept: Kept, cost_usd: float | None) -> None:
        self.calls += 1
        self.answered += kept.row["ending"] == "answered"
        self.duration_ms += kept.row["duration_ms"]
        self.cost_usd = None if cost_usd is None or self.cost_usd is None else self.cost_usd + cost_usd
        if kept.said is not None:
            self.said.append(kept.said)


@dataclass(slots=True)
class Arm:
    """One arm, by conversation; each value below is a conversation's mean per call."""

    name: str
    conversations: dict[str, Conversation] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        return sum(one.calls for one in self.conversations.values())

    @property
    def said(self) -> list[float]:
        return [sum(one.said) / len(one.said) for one in self.conversations.values() if one.said]

    @property
    def answered(self) -> list[float]:
        return [one.answered / one.calls for one in self.conversations.values()]

    @property
    def costs_usd(self) -> list[float]:
        return [one.cost_usd / one.calls for one in self.conversations.values() if one.cost_usd is not None]

    @property
    def durations_ms(self) -> list[float]:
        return [one.duration_ms / one.calls for one in self.conversations.values()]


@dataclass(slots=True)
class SplitReport:
    """Both arms of the newest split; differences are `other` less `control`. `older` counts rows of earlier ones."""

    trial: str
    control: Arm
    other: Arm
    older: int = 0

    @property
    def differences(self) -> dict[str, Difference | None]:
        """By what is compared."""
        pairs = {
            "feedback": (self.control.said, self.other.said),
            "answered": (self.control.answered, self.other.answered),
            "cost_usd": (self.control.costs_usd, self.other.costs_usd),
            "duration_ms": (self.control.durations_ms, self.other.durations_ms),
        }
        return {name: apart(one, other) for name, (one, other) in pairs.items()}


def split(calls: Iterable[Kept], versions: PastVersions) -> SplitReport | None:
    """The newest split of these calls (oldest first); None if there is none."""
    tried: dict[str, SplitReport] = {}
    newest = ""
    for kept, document, trial in _dealt(calls, versions):
        newest = trial
        name = document.routing.split.name if document.routing.split is not None else ""
        report = tried.setdefault(trial, SplitReport(trial, Arm(CONTROL), Arm(name)))
        decision = kept.row["decision"]
        arm = report.control if decision["arm"] == CONTROL else report.other
        conversation = arm.conversations.setdefault(f"{kept.row['tenant']}/{decision['conversation']}", Conversation())
        conversation.take(kept, _cost_usd(kept.row, document))
    if not newest:
        return None
    report = tried[newest]
    report.older = sum(one.control.calls + one.other.calls for one in tried.values() if one is not report)
    return report


def _dealt(calls: Iterable[Kept], versions: PastVersions) -> Iterator[tuple[Kept, PolicyDocument, str]]:
    """The calls with the policy that dealt them, and which trial that was."""
    trials: dict[str, str] = {}
    for kept in calls:
        digest = kept.row["policy"]
        version = versions.find(digest)
        if version is None or (tried := version.document.routing.split) is None:
            continue
        if digest not in trials:
            trials[digest] = trial_digest(version.document, tried)
        yield kept, version.document, trials[digest]


def _cost_usd(row: Mapping[str, Any], document: PolicyDocument) -> float | None:
    """What all attempts of a call cost; None where a price or a count is not known."""
    asked = [one for one in row["attempts"] if one.get("failure") not in NOT_ASKED]
    costs = [attempt_usd(attempt, document) for attempt in asked]
    return sum(cost for cost in costs if cost is not None) if None not in costs else None


def attempt_usd(attempt: Mapping[str, Any], document: PolicyDocument) -> float | None:
    """What one attempt cost; None where a price or a count is not known."""
    expert, usage = document.experts.get(attempt["expert"]), attempt.get("usage") or {}
    price = paid_for(expert) if expert is not None else None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if price is None or read is None or written is None:
        return None
    return usd_for(price, input_tokens=read, output_tokens=written)
