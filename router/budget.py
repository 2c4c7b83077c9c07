"""What a table of experts is made from: scores by category, what each expert costs and takes, and what is allowed.

A value; `mapping.py` finds the best table for it. Knows no policy and no provider: a fact that nobody knows is absent.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import fsum, isfinite
from typing import Final, Protocol

HOSTED: Final = {"hosted_b": "billion parameters", "hosted_gb": "GB"}  # limits of what is hosted at once
AVERAGE: Final = {  # limits of what one call uses, on average
    "usd_per_call": "USD a call",
    "latency_ms": "ms a call",
    "active_b": "billion active parameters a call",
}
MEASURES: Final = HOSTED | AVERAGE
ANY: Final = "any"  # the row for questions of no certain category
LEAST_SHARE: Final = 1e-6  # of a category: its row should be a good one, however seldom it is asked for


class Scored(Protocol):
    """How good an expert is at a category, 0 to 1, and the standard error of that."""

    @property
    def score(self) -> float: ...
    @property
    def error(self) -> float: ...


class Infeasible(ValueError):
    """No table keeps what was asked; the message says why. `about` names the limit or the category that it is about."""

    def __init__(self, message: str, *, about: str = "") -> None:
        super().__init__(message)
        self.about = about


@dataclass(frozen=True, slots=True)
class Problem:
    """What is known and what is wanted. Keys of an expert's facts, and of `limits`, are those of MEASURES.

    `experts` stand in the order that breaks ties; one without a hosted size takes no room. `scores` hold a row for each
    category to be mapped. `weights` are relative masses, 1 where nothing is said. `trade` is in score per USD. `fixed`
    categories go where they are told, to an expert that may lack a score. `bans` are an expert's forbidden categories.
    """

    experts: Mapping[str, Mapping[str, float]]
    scores: Mapping[str, Mapping[str, Scored]]
    weights: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    trade: float = 0.0
    fixed: Mapping[str, str] = field(default_factory=dict)
    bans: Mapping[str, Collection[str]] = field(default_factory=dict)

    def shares(self) -> dict[str, float]:
        """The weight of each category, 1 in all; none counts less than LEAST_SHARE."""
        said = {name: self.weights.get(name, 1.0) for name in self.scores}
        total = fsum(said.values())
        if not total > 0:
            raise Infeasible("the weights of all categories are 0", about="weights")
        raised = {name: max(weight / total, LEAST_SHARE) for name, weight in said.items()}
        whole = fsum(raised.values())
        return {name: share / whole for name, share in raised.items()}

    def candidates(self, category: str) -> list[str]:
        """Who may serve it, in the order of the experts."""
        if category in self.fixed:
            return [self.fixed[category]]
        row = self.scores[category]
        return [name for name in self.experts if name in row and category not in self.bans.get(name, ())]

    def net(self, category: str, expert: str) -> float:
        """The score less what the traded cost takes away; without a score, 0 less that."""
        known = self.scores[category].get(expert)
        cost = self.trade * self.use(expert, "usd_per_call") if self.trade else 0.0
        return (known.score if known is not None else 0.0) - cost

    def use(self, expert: str, measure: str) -> float:
        """What it takes of a measure; 0 if nobody said."""
        return self.experts[expert].get(measure, 0.0)

    def check(self, *, also: str | None = None) -> None:
        """Raise Infeasible where a category has nobody, or a fact is missing that a limit (or `also`) needs."""
        limits = {*self.limits, *([also] if also else [])}
        if unknown := sorted(limits - set(MEASURES)):
            raise ValueError(f"there is no measure {unknown[0]!r}; known: {', '.join(MEASURES)}")
        if not self.scores:
            raise Infeasible("there are no scores", about="scores")
        if not isfinite(self.trade):
            raise Infeasible("what an answer is worth is too little to count in", about="trade")
        needed = (limits | ({"usd_per_call"} if self.trade else set())) & set(AVERAGE)
        for category in self.scores:
            names = self.candidates(category)
            if not names:
                raise Infeasible(
                    f"nobody may serve {category}: no expert here has a score for it without a ban",
                    about=category,
                )
            for name in names:
                if endless := sorted(key for key in needed if not isfinite(self.use(name, key))):
                    about = endless[0] if endless[0] in limits else "trade"
                    raise Infeasible(f"{endless[0]} of the expert {name!r} is no finite number", about=about)
                if missing := sorted(needed - set(self.experts[name])):
                    about = missing[0] if missing[0] in limits else "trade"
                    raise Infeasible(f"{missing[0]} of the expert {name!r} is not known, but it is needed", about=about)
