"""The choice of a table as a mixed-integer linear program, solved by HiGHS through scipy.

    max   sum_c w_c sum_e (S[c,e] - trade * usd[e]) a[c,e]
    s.t.  sum_e a[c,e] = 1                                  for every category c
          a[c,e] <= y[e],   sum_e size[e] y[e] <= B         what is hosted
          sum_c w_c sum_e use[e] a[c,e] <= U                what a call uses on average: money, latency, parameters

a[c,e] = 1 where category c goes to expert e, y[e] = 1 where e is hosted. The idea is that of Composition of Experts
(SambaNova 2024, arXiv 2412.01868); its own program is not public, and this one is ours. Each limit's row is divided by
the limit, because HiGHS's tolerances are absolute.
"""

import zlib
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from math import fsum, inf
from typing import TYPE_CHECKING, Any, Final

from conclave.router.budget import AVERAGE, HOSTED, Infeasible, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TIE: Final = 1e-6  # of score: no outcome data tell such tables apart
SLACK: Final = 1e-9  # relative: 3 * 0.1 is within a budget of 0.3
TOLERANCE: Final = 2e-6  # relative, twice HiGHS's own: a limit that a solution passes is drawn in so far
SCALE: Final = 1e5  # of the objective: HiGHS's absolute gap of 1e-6 is then below what breaks a tie
MOST_NODES: Final = 50_000  # of the search, instead of a time limit: the same on every machine
NO_TABLE: Final = 2  # scipy's word for a program that nothing satisfies
MOST_CUTS: Final = 8  # tables that HiGHS's tolerances let pass a limit, each forbidden by itself
LEAST_TIE: Final = 1e-3  # share of a category, at least, in breaking ties
TOO_MUCH: Final = 2.0  # times a limit: such a column is 0 anyway, and HiGHS refuses numbers above 1e15
HALF: Final = 0.5


class GaveUp(Infeasible):
    """The search ended without a table, and without knowing that there is none."""


@dataclass(frozen=True, slots=True)
class Found:
    """A table, and the most that any table could be worth."""

    table: Mapping[str, str]
    bound: float


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the program: `lower <= sum(coefficient * column) <= upper`."""

    terms: Mapping[int, float]
    lower: float
    upper: float


class Program:
    """A column for each pair that is possible, then one for each expert that takes room."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._shares = problem.shares()
        self._pairs = [(c, name) for c in problem.scores for name in problem.candidates(c)]
        sized = [name for name in problem.experts if any(problem.use(name, measure) for measure in HOSTED)]
        self._room = {name: len(self._pairs) + place for place, name in enumerate(sized)}
        self._columns = len(self._pairs) + len(sized)
        self.worths: Final = self._worths()

    def among(self, hosted: Collection[str]) -> "Program":
        """The program where just these experts are hosted, which have room together."""
        part = copy(self)
        part._pairs = [pair for pair in self._pairs if pair[1] in hosted]
        part._room, part._columns = {}, len(part._pairs)
        return part

    def best(self, *, above: float = -inf) -> Found | None:
        """The table that is worth most; None if nothing fits, or nothing that is worth so much. Raises GaveUp."""
        cost = [-self.worths[pair] for pair in self._pairs]
        found = self._run(cost, least=[] if above == -inf else [Line(dict(enumerate(cost)), -inf, -above)])
        return None if found is None else Found(found.table, found.bound + TIE)

    def _worths(self) -> dict[tuple[str, str], float]:
        """What each pair adds to a table's worth.

        Of tables that are as good, everybody gets the same: cheap experts first, then those that stand first, then by a
        fixed number made of the names. All three together count less than TIE, and in a category by its share.
        """
        order = list(self._problem.experts)
        key = {name: (self._problem.experts[name].get("usd_per_call", inf), order.index(name)) for name in order}
        rank = {name: place for place, name in enumerate(sorted(order, key=key.__getitem__))}
        parts = {category: max(share, LEAST_TIE) for category, share in self._shares.items()}
        most = TIE / fsum(parts.values()) / len(order)
        return {
            (c, name): self._shares[c] * self._problem.net(c, name)
            - most * parts[c] * (rank[name] + 0.1 * _number(f"{c}/{name}"))
            for c, name in self._pairs
        }

    def worth(self, table: Mapping[str, str]) -> float:
        """Of a table, with what breaks ties."""
        return fsum(self.worths[pair] for pair in table.items())

    def least(self, measure: str) -> Found | None:
        """The table within the limits that uses least of a measure."""
        use = [self._problem.use(name, measure) for _, name in self._pairs]
        unit = max(use, default=0.0) or 1.0
        if measure in HOSTED:
            room = [self._problem.use(name, measure) / unit for name in self._room]
            return self._run([0.0] * len(self._pairs), room)
        return self._run([self._shares[c] * one / unit for (c, _), one in zip(self._pairs, use, strict=True)])

    def prices(self) -> dict[str, float]:
        """The dual value of each average limit in the linear relaxation: score per unit of the limit."""
        average = [name for name in self._problem.limits if name in AVERAGE]
        if not average:
            return {}
        from scipy.optimize import linprog  # noqa: PLC0415  1 s; only a policy with scores needs it

        once, rooms, limits = self._once(), self._rooms(), self._limits()
        at_most = [*rooms, *limits]
        worth = [-self._shares[c] * self._problem.net(c, name) for c, name in self._pairs]
        relaxed = linprog(
            [*worth, *[0.0] * len(self._room)],
            A_eq=self._matrix(once),
            b_eq=[line.upper for line in once],
            A_ub=self._matrix(at_most),
            b_ub=[line.upper for line in at_most],
            bounds=[(0, most) for most in self._most()],
            method="highs",
        )
        if relaxed.status != 0:
            return {}
        duals = dict(zip(self._problem.limits, relaxed.ineqlin.marginals[len(rooms) :], strict=True))
        return {name: max(0.0, -float(duals[name])) / self._unit(name) for name in average}

    def _run(self, cost: Sequence[float], room: Sequence[float] = (), *, least: Sequence[Line] = ()) -> Found | None:
        """The table of least cost that keeps every limit.

        HiGHS takes a limit for kept that is passed by a millionth. Such a table is forbidden; if that is not enough,
        the limits are drawn in.
        """
        most, cuts, bound = self._most(), list(least), inf
        for _ in range(MOST_CUTS):
            found = self._solved(cost, room, [*self._limits(), *cuts], most)
            if found is None:
                return None
            bound = min(bound, found.bound)
            uses = uses_of(self._problem, found.table, self._shares)
            if within(self._problem, uses):
                return Found(found.table, bound)
            cuts.append(self._forbidden(found.table, uses))
        found = self._solved(cost, room, [*self._limits(drawn_in=TOLERANCE), *cuts], most)
        if found is None:
            raise GaveUp("no table was found that keeps a limit to the last digit: make the limits a little wider")
        return Found(found.table, bound)

    def _most(self) -> list[float]:
        """The upper bound of each column: 0 for what passes a limit by itself."""
        limits = {name: limit * (1 + SLACK) for name, limit in self._problem.limits.items()}
        hosted, average = limits.keys() & HOSTED.keys(), limits.keys() & AVERAGE.keys()
        use = self._problem.use
        room = {name for name in self._problem.experts if all(use(name, one) <= limits[one] for one in hosted)}
        pairs = [
            name in room and all(self._shares[c] * use(name, one) <= limits[one] for one in average)
            for c, name in self._pairs
        ]
        return [float(one) for one in (*pairs, *(name in room for name in self._room))]

    def _forbidden(self, table: Mapping[str, str], uses: Mapping[str, float]) -> Line:
        """Not all of these together again: who is hosted if that is too much, else who serves what."""
        limits = self._problem.limits
        if any(uses[name] > limits[name] * (1 + 2 * SLACK) for name in limits if name in HOSTED):
            columns = [self._room[name] for name in sorted(set(table.values())) if name in self._room]
        else:
            columns = [at for at, (c, name) in enumerate(self._pairs) if table[c] == name]
        return Line(dict.fromkeys(columns, 1.0), -inf, len(columns) - 1.0)

    def _solved(
        self, cost: Sequence[float], room: Sequence[float], limits: Sequence[Line], most: Sequence[float]
    ) -> Found | None:
        import numpy as np  # noqa: PLC0415  numpy is imported where it is first needed
        from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415  as above

        lines = [*self._once(), *self._rooms(), *limits]
        integral = np.ones(self._columns)
        if not set(self._problem.limits) & set(AVERAGE):
            integral[: len(self._pairs)] = 0  # given who is hosted, each category takes its best: whole by itself
        result = milp(
            SCALE * np.array([*cost, *(room or [0.0] * len(self._room))]),
            integrality=integral,
            bounds=Bounds(0, most),
            constraints=LinearConstraint(
                self._matrix(lines), [line.lower for line in lines], [line.upper for line in lines]
            ),
            options={"mip_rel_gap": 0.0, "node_limit": MOST_NODES},
        )
        if result.x is None:
            if result.status == NO_TABLE:
                return None
            raise GaveUp(f"no table was found in {MOST_NODES} steps of the search, and it may be that none fits")
        bound = result.mip_dual_bound if result.mip_dual_bound is not None else result.fun
        return Found(self._table(result.x), -float(bound) / SCALE)

    def _table(self, x: "NDArray[np.float64]") -> dict[str, str]:
        return {c: name for (c, name), chosen in zip(self._pairs, x, strict=False) if chosen > HALF}

    def _once(self) -> list[Line]:
        """Each category goes to one expert."""
        lines: dict[str, dict[int, float]] = {category: {} for category in self._problem.scores}
        for at, (category, _) in enumerate(self._pairs):
            lines[category][at] = 1.0
        return [Line(terms, 1.0, 1.0) for terms in lines.values()]

    def _rooms(self) -> list[Line]:
        """Who serves a category is hosted."""
        pairs = [(at, name) for at, (_, name) in enumerate(self._pairs) if name in self._room]
        return [Line({at: 1.0, self._room[name]: -1.0}, -inf, 0.0) for at, name in pairs]

    def _limits(self, drawn_in: float = 0.0) -> list[Line]:
        lines = []
        for name, limit in self._problem.limits.items():
            unit = self._unit(name)
            if name in HOSTED:
                terms = {at: self._problem.use(expert, name) / unit for expert, at in self._room.items()}
            else:
                uses = [self._shares[c] * self._problem.use(expert, name) / unit for c, expert in self._pairs]
                terms = dict(enumerate(uses))
            terms = {at: min(one, TOO_MUCH) for at, one in terms.items()}
            lines.append(Line(terms, -inf, limit / unit * (1 + SLACK - drawn_in)))
        return lines

    def _unit(self, name: str) -> float:
        """What a limit's row is divided by."""
        return self._problem.limits[name] or max(self._problem.use(one, name) for one in self._problem.experts) or 1.0

    def _matrix(self, lines: Sequence[Line]) -> Any:
        from scipy.sparse import csr_array  # noqa: PLC0415  as above

        rows = [number for number, line in enumerate(lines) for _ in line.terms]
        columns = [at for line in lines for at in line.terms]
        values = [value for line in lines for value in line.terms.values()]
        return csr_array((values, (rows, columns)), shape=(len(lines), self._columns))


def uses_of(problem: Problem, table: Mapping[str, str], shares: Mapping[str, float]) -> dict[str, float]:
    """What a table takes of each measure that is known of all its experts; sizes are summed, all else is a mean."""
    used = sorted(set(table.values()))
    found = {}
    for measure in HOSTED:
        total = fsum(problem.use(name, measure) for name in used)
        if total or measure in problem.limits:
            found[measure] = total
    for measure in AVERAGE:
        if all(measure in problem.experts[name] for name in used):
            found[measure] = fsum(share * problem.use(table[c], measure) for c, share in shares.items())
    return found


def within(problem: Problem, uses: Mapping[str, float]) -> bool:
    """Whether every limit is kept."""
    return all(uses.get(name, inf) <= limit * (1 + 2 * SLACK) for name, limit in problem.limits.items())


def _number(names: str) -> float:
    """From 0 to 1, always the same."""
    return zlib.crc32(names.encode()) / 2**32
