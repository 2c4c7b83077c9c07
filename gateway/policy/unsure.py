"""From which confidence on a table is worth following: measured on outcome data, for `policy.routing.unsure.below`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from conclave.router.api import Classification
from conclave.router.budget import ANY, Problem
from conclave.router.choose import Threshold, threshold
from conclave.router.outcomes import Graded


@dataclass(frozen=True, slots=True)
class Proposal:
    """A threshold, how many questions it was chosen on, and how many said nothing of the two experts."""

    threshold: Threshold
    questions: int
    left_out: int


def proposed(
    problem: Problem, table: dict[str, str], rows: Sequence[Graded], classify: Callable[[str], Classification]
) -> Proposal:
    """The best threshold on these questions; raises ValueError if too few of them say what is needed."""
    confidence, routed, default = list[float](), list[float](), list[float]()
    for row in rows:
        found = classify(row.prompt)
        names = table.get(found.category, table[ANY]), table[ANY]
        if all(name in row.scores for name in names):
            own, general = (row.scores[n] - problem.trade * problem.use(n, "usd_per_call") for n in names)
            confidence.append(found.confidence)
            routed.append(own)
            default.append(general)
    return Proposal(threshold(confidence, routed, default), len(confidence), len(rows) - len(confidence))
