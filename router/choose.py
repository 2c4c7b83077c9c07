"""Who is asked, of those who may be: the pure choice of a call, from the table that a policy was compiled to.

`Table` says which row a question uses and in which order its experts are asked; it knows what each is expected to
score, where the policy knows scores. Never asks who is allowed or able: it orders those that it is given. `threshold`
says, from outcome data, below which confidence the default row serves better than the category's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, sqrt
from typing import Final

from conclave.router.api import Classification
from conclave.router.budget import ANY

DEFAULT: Final = "default"  # the row of unsure questions, and of categories without one
CHEAP: Final = "auto:cheap"
BEST: Final = "auto:best"
NOTHING: Final[Mapping[str, float]] = {}


@dataclass(frozen=True, slots=True)
class Order:
    """Experts in the order in which they are asked, why the first is, and what each is expected to score (0 to 1)."""

    names: list[str]
    reason: str
    expected: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Table:
    """A row of experts for each category, and `default` for all else.

    `pinned` rows begin with a policy's pin, `solved` ones were made from scores: only these does a single question's
    score change. `scores` hold the expected score by
    category (ANY: of a question of no certain one) and expert. `costs` is what asking an expert once takes away, in
    score: money at the traded rate, and what it uses of the policy's budgets at their shadow prices. `unsure_below`
    replaces the classifier's own threshold. `blend` is the share of a single question's scores in the expected one.
    """

    rows: Mapping[str, tuple[str, ...]]
    default: tuple[str, ...]
    pinned: frozenset[str] = frozenset()
    solved: frozenset[str] = frozenset()
    bans: Mapping[str, frozenset[str]] = field(default_factory=dict)  # category: experts
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    unsure_below: float | None = None
    blend: float = 0.0

    def is_unsure(self, found: Classification) -> bool:
        """By the policy's threshold, else by the classifier's."""
        return found.unsure if self.unsure_below is None else found.confidence < self.unsure_below

    def row(self, found: Classification) -> tuple[str, str]:
        """The row that a question uses, and why."""
        if self.is_unsure(found):
            return DEFAULT, "unsure"
        if found.category not in self.rows:
            return DEFAULT, "not_listed"
        return found.category, "pin" if found.category in self.pinned else "category"

    def members(self, row: str) -> tuple[str, ...]:
        """The experts of a row, the one that is asked first before its fallbacks."""
        return self.rows.get(row, self.default)

    def banned(self, found: Classification | None) -> frozenset[str]:
        """Who may not be asked about a question of this category."""
        if found is None or self.is_unsure(found):
            return frozenset()
        return self.bans.get(found.category, frozenset())

    def expected(self, row: str, quality: Mapping[str, float] = NOTHING) -> dict[str, float]:
        """What each expert is expected to score; `quality` is what it is expected to on this very question."""
        known = self.scores.get(row if row in self.rows else ANY, NOTHING)
        if not quality or not self.blend:
            return dict(known)
        both = {
            name: (1 - self.blend) * score + self.blend * quality[name]
            for name, score in known.items()
            if name in quality
        }
        return {**known, **both}

    def order(  # noqa: PLR0913  each is a separate input of the choice, and a replay needs them all by name
        self,
        names: Sequence[str],
        *,
        row: str,
        reason: str,
        model: str,
        prices: Mapping[str, float],
        qualities: Mapping[str, float],
        quality: Mapping[str, float] = NOTHING,
    ) -> Order:
        """Those who can be asked, in the order that the virtual model asks for; equal ones stay as they were given.

        `prices` and `qualities` are what the policy says of each expert. `quality` counts where the category's own row,
        made from scores, serves: it may put another expert first, whose reason then is `quality`.
        """
        counts = reason == "category" and row in self.solved
        expected = self.expected(row, quality if counts else NOTHING)
        expected = {name: expected[name] for name in names if name in expected}
        if model == CHEAP:
            return Order(sorted(names, key=lambda name: prices[name]), "cheapest", expected)
        if model == BEST:
            return Order(sorted(names, key=lambda name: -expected.get(name, qualities[name])), "best", expected)
        if not (counts and quality and self.blend):
            return Order(list(names), reason, expected)
        worth = {name: expected[name] - self.costs.get(name, 0.0) for name in expected}
        ordered = sorted(names, key=lambda name: (name not in worth, -worth.get(name, 0.0)))
        return Order(ordered, reason if ordered[0] == names[0] else "quality", expected)


@dataclass(frozen=True, slots=True)
class Threshold:
    """Below which confidence a question counts as unsure, and what that brings on the data that it was chosen on.

    `gain` is the mean score less costs above that of never being unsure, with its standard `error`; `unsure` is the
    share of the questions that it holds for.
    """

    below: float
    gain: float
    error: float
    unsure: float


def threshold(confidence: Sequence[float], routed: Sequence[float], default: Sequence[float]) -> Threshold:
    """The threshold with the most score less costs, on questions that neither table nor classifier was made from.

    `routed` is what the category's expert scored on each question less its cost, `default` what the default row's did.
    A threshold that is not at least one standard error better than 0 is 0: chance finds a slightly better one always.
    """
    if not len(confidence) == len(routed) == len(default):
        raise ValueError("confidence, routed and default must be of the same questions")
    if len(confidence) < 2:  # noqa: PLR2004  fewer have no standard error
        raise ValueError("a threshold needs two questions at least")
    ranked = sorted(range(len(confidence)), key=confidence.__getitem__)
    gains = [default[at] - routed[at] for at in ranked]
    best, best_at, total = 0.0, 0, 0.0
    for place, gain in enumerate(gains, start=1):
        total += gain
        here = confidence[ranked[place - 1]]  # of 1, no threshold is above
        if total > best and here < (confidence[ranked[place]] if place < len(ranked) else 1.0):
            best, best_at = total, place
    count = len(ranked)
    mean = best / count
    spread = fsum((gain - mean) ** 2 for gain in gains[:best_at]) + (count - best_at) * mean**2
    error = sqrt(spread / (count - 1) / count)
    if best_at == 0 or mean <= error:
        return Threshold(0.0, 0.0, 0.0, 0.0)
    low = confidence[ranked[best_at - 1]]
    below = 1.0 if best_at == count else (low + confidence[ranked[best_at]]) / 2
    return Threshold(max(below, low), mean, error, best_at / count)
