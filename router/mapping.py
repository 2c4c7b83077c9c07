"""Which expert serves which category, so that the expected score is highest within a budget: the table of a policy.

Says what the table is worth, what it uses, how far it may be from the best, and whether it beats one expert for
everything. The same problem gives the same table everywhere (`program.py` says how ties are broken). Reads no file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import fsum, inf, sqrt
from typing import Final

from conclave.router.budget import MEASURES, Infeasible, Problem
from conclave.router.hosting import best as best_of
from conclave.router.program import SLACK, TIE, TOLERANCE, Program, uses_of, within

SURE: Final = 1.96  # standard errors on each side of a 95 % interval


@dataclass(frozen=True, slots=True)
class Solved:
    """A table, and how good it is. No table within the limits is worth more than `bound`.

    `value` is what was made best: the mean score less the traded costs. `expected` is the mean score with its standard
    `error`, over the categories with a score. `uses` says what the table takes of each measure that is known of all its
    experts. `prices`: how much score one more unit of an average limit would bring, by the linear relaxation.
    """

    table: Mapping[str, str]
    hosted: tuple[str, ...]
    value: float
    bound: float
    expected: float
    error: float
    uses: Mapping[str, float]
    prices: Mapping[str, float] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        """How far the table may be from the best one, in score."""
        return max(0.0, self.bound - self.value)


@dataclass(frozen=True, slots=True)
class Gain:
    """What a table brings against the best single expert within the same limits: score, less the traded costs."""

    single: Solved
    gain: float
    error: float

    @property
    def pays(self) -> bool:
        """Whether the gain's 95 % interval lies above 0."""
        return self.gain - SURE * self.error > 0


def solve(problem: Problem, *, priced: bool = True) -> Solved:
    """The best table, with the limits' shadow prices unless they are not wanted. Raises Infeasible, in words."""
    problem.check()
    best = best_of(problem)
    if best is None:
        raise _why(problem)
    prices = Program(problem).prices() if priced else {}
    return measured(problem, best.table, bound=best.bound, prices=prices)


def measured(
    problem: Problem, table: Mapping[str, str], *, bound: float = -inf, prices: Mapping[str, float] | None = None
) -> Solved:
    """What a table is worth and what it uses. An expert with no category is no part of it."""
    shares, used = problem.shares(), set(table.values())
    value = fsum(share * problem.net(category, table[category]) for category, share in shares.items())
    known = {c: problem.scores[c][table[c]] for c in shares if table[c] in problem.scores[c]}
    mass = fsum(shares[c] for c in known) or 1.0
    return Solved(
        table={category: table[category] for category in problem.scores},
        hosted=tuple(name for name in problem.experts if name in used),
        value=value,
        bound=bound if bound > value + TIE else value,
        expected=fsum(shares[c] * one.score for c, one in known.items()) / mass,
        error=sqrt(fsum((shares[c] * one.error) ** 2 for c, one in known.items())) / mass,
        uses=uses_of(problem, table, shares),
        prices=prices or {},
    )


def gain_of(problem: Problem, solved: Solved) -> Gain | None:
    """Against the best expert that alone keeps the limits; None if none does. Pins and bans do not bind it."""
    shares, scores = problem.shares(), problem.scores
    if not all(name in scores[category] for category, name in solved.table.items()):
        return None  # an expert without a score serves here
    names = [name for name in problem.experts if all(name in row for row in scores.values())]
    alone = [measured(problem, dict.fromkeys(scores, name)) for name in names]
    single = max((one for one in alone if within(problem, one.uses)), key=lambda one: one.value, default=None)
    if single is None:
        return None
    moved = [(c, name) for c, name in solved.table.items() if name != single.table[c]]
    errors = [shares[c] * scores[c][one].error for c, name in moved for one in (name, single.table[c])]
    return Gain(single=single, gain=solved.value - single.value, error=sqrt(fsum(error**2 for error in errors)))


def frontier(problem: Problem, measure: str, *, points: int = 30) -> tuple[Solved, ...]:
    """The best tables by what they use of a measure, most first: each uses less than the one before it.

    No step is left out where there are few (sizes); where there are many, they are about `points` over the range.
    """
    problem.check(also=measure)
    loose = replace(problem, limits={name: limit for name, limit in problem.limits.items() if name != measure})
    found = [solve(loose, priced=False)]
    thriftiest = Program(loose).least(measure)
    if thriftiest is None:  # `solve` has found one
        return tuple(found)
    least = measured(loose, thriftiest.table).uses.get(measure, 0.0)
    most = found[0].uses.get(measure, 0.0)
    step = max((most - least) / points, most * 2 * TOLERANCE)
    while (limit := found[-1].uses.get(measure, 0.0) - step) >= least * (1 + SLACK) and step > 0:
        found.append(solve(replace(loose, limits={**loose.limits, measure: limit}), priced=False))
    if found[-1].uses.get(measure, 0.0) > least * (1 + TOLERANCE):
        found.append(solve(replace(loose, limits={**loose.limits, measure: least}), priced=False))
    return tuple(found)


def _why(problem: Problem) -> Infeasible:
    """Which limit nothing keeps, alone or beside the others, and what the least is."""
    for name, limit in problem.limits.items():
        alone = _least(replace(problem, limits={}), name)
        if alone is not None and alone > limit * (1 + SLACK):
            return Infeasible(f"no table fits: {_amounts(alone, limit, name)}", about=name)
    words, about = [], ""
    for name, limit in problem.limits.items():
        beside = _least(replace(problem, limits={n: one for n, one in problem.limits.items() if n != name}), name)
        if beside is not None:
            words.append(f"within the others {_amounts(beside, limit, name)}")
            about = about or name
    return Infeasible(f"no table fits all limits at once: {'; '.join(words) or 'several are too tight'}", about=about)


def _least(problem: Problem, measure: str) -> float | None:
    found = Program(problem).least(measure)
    return None if found is None else measured(problem, found.table).uses.get(measure)


def _amounts(least: float, limit: float, measure: str) -> str:
    return f"the cheapest takes {least:.4g} {MEASURES[measure]}, and {measure} is {limit:g}"
