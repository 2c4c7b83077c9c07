"""Which experts to host where that is limited and what a call uses on average is, too: a search with a proven bound.

One program for both takes seconds. Here each average limit first gets its price in the linear relaxation. At any prices
a set of experts is worth no more than the sum over the categories of its best member, priced, and the prices of all
limits (Lagrange). Sets are put together expert by expert, and one that cannot reach the best table so far is dropped
with all that would come of it; those that are left, the most promising first, are a small program each.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from conclave.router.budget import AVERAGE, HOSTED, Problem
from conclave.router.program import SLACK, TIE, Found, GaveUp, Program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BEAM: Final = 200  # sets that are looked at for a first table
FIRST: Final = 3  # programs for it
MOST_SETS: Final = 20_000  # at once; those beyond are not looked at, and the bound says so
MOST_PROGRAMS: Final = 400  # before the search ends with the bound that it has: some seconds
FACTORS: Final = (1.0, 0.5, 0.7, 0.85, 1.15, 1.3, 1.6, 2.0, 3.0, 5.0)  # of the prices: the tightest bound counts
CHUNK: Final = 1000  # sets that are weighed at once, 5 MB
NEAR: Final = 1e-12  # of score: what sums of floats may be off


def best(problem: Problem, *, programs: int = MOST_PROGRAMS) -> Found | None:
    """The table that is worth most; None if nothing fits. Raises GaveUp. After so many programs, the best so far."""
    program = Program(problem)
    if not (problem.limits.keys() & HOSTED.keys() and problem.limits.keys() & AVERAGE.keys()):
        return program.best()
    prices = program.prices()
    if not prices or not all(problem.limits.values()):
        return program.best()
    search = _Search(problem, program, prices)
    top, beam = _Top(program), search.sets(most=BEAM)
    bounds = search.weigh(beam, top)
    for which in bounds.argsort(kind="stable")[::-1][: min(FIRST, programs)]:
        top.solve(search.names_of(beam.members[which]), bound=inf)
    left = search.sets(at_least=top.worth, most=MOST_SETS)
    top.unproven = left.dropped  # whatever was open in the beam is among these, too
    bounds = search.weigh(left, top)
    for number, which in enumerate(bounds.argsort(kind="stable")[::-1]):
        if bounds[which] <= top.worth + NEAR:
            break
        if number == programs:
            top.unproven = max(top.unproven, float(bounds[which]))
            break
        top.solve(search.names_of(left.members[which]), bound=float(bounds[which]))
    return top.found()


class _Top:
    """The best table so far, and the most that those could be worth which were not looked at to the end."""

    def __init__(self, program: Program) -> None:
        self.worth = self.unproven = -inf
        self._program = program
        self._table: Mapping[str, str] | None = None
        self._gave_up: GaveUp | None = None

    def take(self, table: Mapping[str, str], worth: float) -> None:
        """A table within the limits."""
        if worth > self.worth:
            self._table, self.worth = table, worth

    def solve(self, names: frozenset[str], *, bound: float) -> None:
        """The best table of these experts; none is worth more than `bound`."""
        try:
            found = self._program.among(names).best(above=self.worth)
        except GaveUp as error:
            self._gave_up, self.unproven = error, max(self.unproven, bound)
            return
        if found is not None:
            worth = self._program.worth(found.table)
            self.take(found.table, worth)
            if found.bound > worth + 2 * TIE:
                self.unproven = max(self.unproven, min(bound, found.bound))

    def found(self) -> Found | None:
        """With the proven bound."""
        if self._table is None and self.unproven > -inf:
            raise self._gave_up or GaveUp(f"no table was found among the {MOST_SETS} likeliest sets of experts")
        return None if self._table is None else Found(self._table, max(self.worth, self.unproven) + TIE)


@dataclass(frozen=True, slots=True)
class _Sets:
    """Sets of experts, one a row: who is in, and what of each limit is used. `dropped`: what others could be worth."""

    members: "NDArray[np.bool_]"
    used: "NDArray[np.float64]"
    dropped: float = -inf


class _Search:
    """The problem as arrays; limits are 1."""

    def __init__(self, problem: Problem, program: Program, prices: Mapping[str, float]) -> None:
        import numpy as np  # noqa: PLC0415  numpy is imported where it is first needed

        self._names, self._categories = list(problem.experts), list(problem.scores)
        shares, limits = problem.shares(), problem.limits
        at = {name: place for place, name in enumerate(self._names)}
        self._worth = np.full((len(self._categories), len(at)), -inf)
        for (category, name), worth in program.worths.items():
            self._worth[self._categories.index(category), at[name]] = worth
        weights = np.array([[shares[category]] for category in self._categories])
        average = [measure for measure in limits if measure in AVERAGE]
        uses = [[problem.use(name, measure) / limits[measure] for name in self._names] for measure in average]
        self._uses = np.array(uses)[:, None, :] * weights
        self._prices = np.array([prices[measure] * limits[measure] for measure in average])
        hosted = [measure for measure in limits if measure in HOSTED]
        sizes = [[problem.use(name, measure) / limits[measure] for name in self._names] for measure in hosted]
        self._sizes = np.array(sizes).T
        room = self._sizes.max(axis=1)
        self._free = room == 0
        self._sized = [int(one) for one in (-room).argsort(kind="stable") if 0 < room[one] <= 1 + SLACK]

    def names_of(self, members: "NDArray[np.bool_]") -> frozenset[str]:
        return frozenset(name for name, inside in zip(self._names, members, strict=True) if inside)

    def sets(self, *, most: int, at_least: float = -inf) -> _Sets:
        """The sets that have no room for another and could be worth so much, at each step the `most` likeliest."""
        import numpy as np  # noqa: PLC0415  as above

        priced, offset = self._priced(1.0)
        dropped = -inf
        sets = _Sets(self._free[None, :].copy(), np.zeros((1, self._sizes.shape[1])))
        for place, expert in enumerate(self._sized):
            fits = self._fits(sets, expert)
            joined = sets.members[fits].copy()
            joined[:, expert] = True
            sets = _Sets(
                np.concatenate([sets.members, joined]),
                np.concatenate([sets.used, sets.used[fits] + self._sizes[expert]]),
            )
            reach = sets.members.copy()  # who is in, or could still come in
            for later in self._sized[place + 1 :]:
                reach[:, later] = self._fits(sets, later)
            bounds = self._bounds(reach, priced) + offset
            kept = (bounds >= at_least - NEAR) & (bounds > -inf)
            which = np.flatnonzero(kept)
            which = which[(-bounds[which]).argsort(kind="stable")]
            if len(which) > most:
                dropped = max(dropped, float(bounds[which[most]]))
            which = which[:most]
            sets = _Sets(sets.members[which], sets.used[which])
        full = np.ones(len(sets.members), dtype=bool)
        for expert in self._sized:
            full &= sets.members[:, expert] | ~self._fits(sets, expert)
        return _Sets(sets.members[full], sets.used[full], dropped)

    def weigh(self, sets: _Sets, top: _Top) -> "NDArray[np.float64]":
        """The most that a table of each set can be worth; `top` hears of the best one within the limits."""
        import numpy as np  # noqa: PLC0415  as above

        rows = np.arange(len(self._categories))
        found: NDArray[np.float64] = np.full(len(sets.members), inf)
        for factor in FACTORS:
            priced, offset = self._priced(factor)
            for chunk in _chunks(len(sets.members)):
                one = np.where(sets.members[chunk, None, :], priced, -inf)
                chosen = one.argmax(axis=2)
                found[chunk] = np.minimum(found[chunk], one.max(axis=2).sum(axis=1) + offset)
                worth = self._worth[rows, chosen].sum(axis=1)
                within = (self._uses[:, rows, chosen].sum(axis=2) <= 1 + SLACK).all(axis=0)
                worth[~within] = -inf
                most = int(worth.argmax())
                if worth[most] > top.worth:
                    names = [self._names[place] for place in chosen[most]]
                    top.take(dict(zip(self._categories, names, strict=True)), float(worth[most]))
        return found

    def _priced(self, factor: float) -> "tuple[NDArray[np.float64], float]":
        """What each expert is worth in each category at so many times the prices, and the prices of all limits."""
        prices = self._prices * factor
        return self._worth - (prices[:, None, None] * self._uses).sum(axis=0), float(prices.sum()) * (1 + SLACK)

    def _bounds(self, reach: "NDArray[np.bool_]", priced: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """The sum of each category's best; less than everything where the thriftiest are beyond a limit."""
        import numpy as np  # noqa: PLC0415  as above

        found: NDArray[np.float64] = np.empty(len(reach))
        thrift = np.where(self._worth > -inf, self._uses, inf)
        for chunk in _chunks(len(reach)):
            inside = reach[chunk, None, :]
            found[chunk] = np.where(inside, priced, -inf).max(axis=2).sum(axis=1)
            for uses in thrift:
                least = np.where(inside, uses, inf).min(axis=2).sum(axis=1)
                found[chunk][least > 1 + SLACK] = -inf
        return found

    def _fits(self, sets: _Sets, expert: int) -> "NDArray[np.bool_]":
        """Which sets have room for an expert that is not in them."""
        fits: NDArray[np.bool_] = (sets.used + self._sizes[expert] <= 1 + SLACK).all(axis=1) & ~sets.members[:, expert]
        return fits


def _chunks(count: int) -> Iterator[slice]:
    yield from (slice(start, start + CHUNK) for start in range(0, count, CHUNK))
