"""The best table of experts within a budget: against brute force, at its limits, and in words where nothing fits."""

import itertools
import math
import random
from dataclasses import dataclass, replace
from typing import Any

import pytest

from conclave.router.budget import AVERAGE, HOSTED, Infeasible, Problem
from conclave.router.hosting import best as best_of
from conclave.router.mapping import Solved, frontier, gain_of, measured, solve
from conclave.router.program import TIE, Program, within

UNITS = {"hosted_b": 70.0, "hosted_gb": 40.0, "usd_per_call": 0.01, "latency_ms": 3000.0, "active_b": 70.0}


@dataclass(frozen=True)
class Known:
    score: float
    error: float = 0.0


def some_problem(seed: int) -> Problem:
    """Two to four experts, two to four categories, any limits, pins, bans and a traded cost."""
    chance = random.Random(seed)
    names = [f"e{number}" for number in range(chance.randint(2, 4))]
    categories = [f"c{number}" for number in range(chance.randint(2, 4))]
    experts = {name: {m: chance.uniform(0.05, 1) * unit for m, unit in UNITS.items()} for name in names}
    if chance.random() < 0.4:
        del experts[names[0]]["hosted_b"]  # somebody else hosts it
    scores = {
        c: {name: Known(round(chance.random(), 2)) for name in names if name == names[-1] or chance.random() < 0.9}
        for c in categories
    }
    limits = {m: chance.uniform(0.3, 2.0) * UNITS[m] for m in UNITS if chance.random() < 0.4}
    bans = {names[0]: [categories[0]]} if chance.random() < 0.3 else {}
    return Problem(
        experts,
        scores,
        weights={c: chance.uniform(0.1, 5) for c in categories},
        limits=limits,
        trade=chance.choice([0.0, 20.0]),
        fixed={categories[1]: names[0]} if chance.random() < 0.3 else {},
        bans=bans,
    )


def by_brute_force(problem: Problem) -> Solved | None:
    rows = [problem.candidates(category) for category in problem.scores]
    tables = (measured(problem, dict(zip(problem.scores, row, strict=True))) for row in itertools.product(*rows))
    return max((one for one in tables if within(problem, one.uses)), key=lambda one: one.value, default=None)


@pytest.mark.parametrize("block", range(8))
def test_the_solver_equals_brute_force_and_keeps_the_budget(block: int) -> None:
    """200 instances: as much is expected, no limit is passed, and nothing fits where brute force finds nothing."""
    solved = 0
    for seed in range(block * 25, block * 25 + 25):
        problem = some_problem(seed)
        best = by_brute_force(problem)
        if best is None:
            with pytest.raises(Infeasible):
                solve(problem)
            continue
        found = solve(problem)
        assert found.value == pytest.approx(best.value, abs=2 * TIE), seed
        assert within(problem, found.uses), seed
        assert found.bound >= best.value - TIE, seed
        assert set(found.hosted) == set(found.table.values())
        solved += 1
    assert solved > 5


@pytest.mark.parametrize("block", range(4))
def test_hosting_and_money_at_once_equal_brute_force_and_one_program_for_both(block: int) -> None:
    """The search over hosted sets takes the very table that the whole program takes."""
    solved = 0
    for seed in range(1000 + block * 15, 1015 + block * 15):
        chance = random.Random(seed)
        limits = {m: chance.uniform(0.3, 1.6) * UNITS[m] for m in ("hosted_b", "usd_per_call", "latency_ms")}
        here = replace(some_problem(seed), limits=limits)
        best = by_brute_force(here)
        if best is None:
            with pytest.raises(Infeasible):
                solve(here)
            continue
        found = solve(here)
        assert found.value == pytest.approx(best.value, abs=2 * TIE), seed
        assert (within(here, found.uses), found.gap) == (True, 0), seed
        whole = Program(here).best()
        assert whole is not None
        assert found.table == whole.table, seed
        solved += 1
    assert solved > 3


def zoo(seed: int) -> Problem:
    """Twelve experts and fourteen categories; a larger expert is better and dearer."""
    chance = random.Random(seed)
    experts: dict[str, dict[str, float]] = {}
    rows: dict[str, dict[str, Known]] = {f"c{number}": {} for number in range(14)}
    for name in (f"e{number}" for number in range(12)):
        size = chance.choice([1, 3, 7, 8, 14, 32, 70])
        experts[name] = {"hosted_b": size, "usd_per_call": size * chance.uniform(2e-5, 8e-5)}
        for row in rows.values():
            row[name] = Known(min(1.0, 0.3 + 0.05 * size**0.5 + chance.uniform(-0.1, 0.1)))
    return Problem(experts, rows, limits={"hosted_b": 60.0, "usd_per_call": 0.001})


@pytest.mark.parametrize("seed", range(4))
def test_many_experts_are_searched_to_the_same_table_as_by_one_program(seed: int) -> None:
    found, whole = solve(zoo(seed)), Program(zoo(seed)).best()
    assert whole is not None
    assert (found.table, found.gap) == (whole.table, 0)


EXPERTS: dict[str, dict[str, float]] = {
    "small": {"hosted_b": 8, "hosted_gb": 5, "usd_per_call": 0.0001, "latency_ms": 300, "active_b": 8},
    "coder": {"hosted_b": 32, "hosted_gb": 20, "usd_per_call": 0.0005, "latency_ms": 900, "active_b": 3},
    "big": {"hosted_b": 72, "hosted_gb": 40, "usd_per_call": 0.0015, "latency_ms": 2000, "active_b": 72},
    "api": {"usd_per_call": 0.004, "latency_ms": 1200, "active_b": 1},
}
SCORES = {
    "code": {"small": Known(0.5, 0.03), "coder": Known(0.8, 0.03), "big": Known(0.7, 0.03), "api": Known(0.85, 0.03)},
    "math": {"small": Known(0.5, 0.03), "coder": Known(0.6, 0.03), "big": Known(0.8, 0.03), "api": Known(0.9, 0.03)},
}


def problem(**parts: Any) -> Problem:
    return replace(Problem(EXPERTS, SCORES), **parts)


@pytest.mark.parametrize(
    ("parts", "table"),
    [
        pytest.param({}, ["api", "api"], id="without-a-budget-the-best"),
        pytest.param({"limits": {"usd_per_call": 0.001}}, ["coder", "big"], id="money"),
        pytest.param({"limits": {"usd_per_call": 0.001, "hosted_b": 100}}, ["coder", "coder"], id="money-and-room"),
        pytest.param({"limits": {"usd_per_call": 0.001, "hosted_b": 104}}, ["coder", "big"], id="room-to-the-last"),
        pytest.param({"limits": {"latency_ms": 610}}, ["coder", "small"], id="latency"),
        pytest.param({"limits": {"active_b": 2}}, ["api", "api"], id="active-parameters"),
        pytest.param({"limits": {"hosted_gb": 1}}, ["api", "api"], id="an-api-takes-no-room"),
        pytest.param({"trade": 20.0}, ["coder", "api"], id="a-traded-cost"),
        pytest.param({"trade": 500.0}, ["coder", "small"], id="a-dear-cost"),
        pytest.param({"fixed": {"math": "small"}}, ["api", "small"], id="a-pin-wins"),
        pytest.param({"bans": {"api": ["math"]}}, ["api", "big"], id="a-ban-wins"),
        pytest.param(
            {"limits": {"usd_per_call": 0.0008}, "weights": {"code": 3, "math": 1}}, ["coder", "big"], id="weights"
        ),
    ],
)
def test_the_table_follows_from_what_is_allowed(parts: dict[str, Any], table: list[str]) -> None:
    assert list(solve(problem(**parts)).table.values()) == table


def test_limits_that_are_met_exactly_are_kept_despite_how_floats_add_up() -> None:
    experts = {name: {"hosted_b": 0.1} for name in ("a", "b", "c")}
    scores = {
        category: {name: Known(float(name == best)) for name in experts}
        for category, best in zip("xyz", "abc", strict=True)
    }
    assert solve(Problem(experts, scores, limits={"hosted_b": 0.3})).hosted == ("a", "b", "c")


def test_an_expert_that_serves_nothing_is_not_hosted() -> None:
    assert solve(problem(limits={"hosted_b": 1000}, bans={"api": ["code", "math"]})).hosted == ("coder", "big")


def test_what_a_table_is_worth_and_uses_adds_up() -> None:
    found = solve(problem(limits={"usd_per_call": 0.001, "hosted_b": 104}, weights={"code": 3, "math": 1}, trade=10))
    assert found.expected == pytest.approx(0.75 * 0.8 + 0.25 * 0.8)
    assert found.error == pytest.approx(0.03 * math.hypot(0.75, 0.25))
    assert found.uses["usd_per_call"] == pytest.approx(0.75 * 0.0005 + 0.25 * 0.0015)
    assert found.value == pytest.approx(found.expected - 10 * found.uses["usd_per_call"])
    assert (found.uses["hosted_b"], found.uses["hosted_gb"], found.gap) == (104, 60, 0)


def test_the_shadow_price_says_what_a_little_more_budget_brings() -> None:
    experts = {"cheap": {"usd_per_call": 0.0}, "dear": {"usd_per_call": 1.0}}
    scores = {f"c{number}": {"cheap": Known(0.0), "dear": Known(number / 100)} for number in range(100)}
    tight = solve(Problem(experts, scores, limits={"usd_per_call": 0.5}))
    more = solve(Problem(experts, scores, limits={"usd_per_call": 0.51}))
    assert tight.prices["usd_per_call"] == pytest.approx((more.value - tight.value) / 0.01, rel=0.05)
    assert solve(Problem(experts, scores, limits={"usd_per_call": 2.0})).prices == {"usd_per_call": 0.0}


def test_of_equal_tables_the_cheaper_wins_then_the_one_named_first() -> None:
    same = {"x": Known(0.5), "y": Known(0.5), "z": Known(0.5)}
    experts = {"x": {"usd_per_call": 0.2}, "y": {"usd_per_call": 0.1}, "z": {"usd_per_call": 0.1}}
    scores = dict.fromkeys("abcde", same)
    assert set(solve(Problem(experts, scores)).table.values()) == {"y"}
    turned = {name: experts[name] for name in "zyx"}
    assert set(solve(Problem(turned, scores)).table.values()) == {"z"}


def test_a_fixed_expert_without_a_score_costs_but_is_not_counted_in_the_score() -> None:
    found = solve(problem(scores={**SCORES, "law": {}}, fixed={"law": "big"}, limits={"hosted_b": 72}))
    assert (found.table["law"], found.expected) == ("big", pytest.approx((0.85 + 0.9) / 2))
    assert found.uses["hosted_b"] == 72


@pytest.mark.parametrize(
    ("parts", "words", "about"),
    [
        (
            {"limits": {"usd_per_call": 1e-5}},
            "cheapest takes 0.0001 USD a call, and usd_per_call is 1e-05",
            "usd_per_call",
        ),
        ({"limits": {"hosted_b": 5}, "bans": {"api": ["code"]}}, "takes 8 billion parameters, and .* 5", "hosted_b"),
        (
            {"limits": {"hosted_b": 4, "usd_per_call": 0.001}},
            "all limits at once: within the others .* 8 b",
            "hosted_b",
        ),
        ({"bans": {name: ["math"] for name in EXPERTS}}, "nobody may serve math", "math"),
        ({"weights": {"code": 0, "math": 0}}, "weights of all categories are 0", "weights"),
        ({"scores": {}}, "there are no scores", "scores"),
        (
            {"experts": {**EXPERTS, "api": {}}, "limits": {"latency_ms": 9}},
            "latency_ms of .* 'api' is not",
            "latency_ms",
        ),
        ({"experts": {**EXPERTS, "api": {}}, "trade": 1.0}, "usd_per_call of the expert 'api' is not known", "trade"),
    ],
)
def test_what_cannot_be_is_said_in_words_that_name_the_least(parts: dict[str, Any], words: str, about: str) -> None:
    with pytest.raises(Infeasible, match=words) as wrong:
        solve(problem(**parts))
    assert wrong.value.about == about


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(ValueError, match="no measure 'hosted_mb'; known: hosted_b, hosted_gb, usd_per_call"):
        solve(problem(limits={"hosted_mb": 1}))


def test_the_frontier_has_every_step_of_hosted_sets_and_each_is_the_best_for_its_room() -> None:
    steps = frontier(problem(bans={"api": ["code", "math"]}), "hosted_b")
    found = [(one.uses["hosted_b"], one.hosted) for one in steps]
    assert found == [(104, ("coder", "big")), (72, ("big",)), (32, ("coder",)), (8, ("small",))]
    assert [one.expected for one in steps] == sorted((one.expected for one in steps), reverse=True)


@pytest.mark.parametrize("measure", [*HOSTED, *AVERAGE])
def test_a_frontier_uses_ever_less_and_ends_at_the_least(measure: str) -> None:
    steps = frontier(problem(limits={"latency_ms": 2000}), measure, points=10)
    uses = [one.uses.get(measure, 0.0) for one in steps]
    assert uses == sorted(set(uses), reverse=True)
    alone = [measured(problem(), dict.fromkeys(SCORES, name)) for name in EXPERTS]
    least = min(one.uses.get(measure, 0.0) for one in alone)
    assert uses[-1] == pytest.approx(least)


def test_routing_pays_where_experts_differ_and_not_where_one_is_best_at_all() -> None:
    here = problem(bans={}, experts={name: EXPERTS[name] for name in ("coder", "big")})
    differ = gain_of(here, solve(here))
    assert differ is not None
    assert (differ.single.hosted, differ.gain, differ.pays) == (("big",), pytest.approx(0.05), True)
    assert differ.error == pytest.approx(0.5 * math.hypot(0.03, 0.03))
    alike = gain_of(problem(), solve(problem()))
    assert alike is not None
    assert (alike.single.hosted, alike.gain, alike.pays) == (("api",), 0, False)


def test_a_gain_within_its_error_does_not_pay() -> None:
    scores = {c: {name: Known(one.score, 0.2) for name, one in row.items()} for c, row in SCORES.items()}
    here = problem(scores=scores, experts={name: EXPERTS[name] for name in ("coder", "big")})
    gain = gain_of(here, solve(here))
    assert gain is not None
    assert gain.gain > 0
    assert not gain.pays


def test_there_is_no_gain_to_tell_where_no_single_expert_fits_or_one_has_no_score() -> None:
    fits_none = problem(
        limits={"hosted_b": 1}, bans={}, scores={"code": {"small": Known(1.0)}, "math": {"api": Known(1.0)}}
    )
    alone = replace(fits_none, limits={})
    assert gain_of(alone, solve(alone)) is None
    pinned = problem(scores={**SCORES, "law": {}}, fixed={"law": "big"})
    assert gain_of(pinned, solve(pinned)) is None


@pytest.mark.parametrize(
    ("experts", "scores", "limits", "table"),
    [
        pytest.param(
            {"x": {"usd_per_call": 1.0}, "y": {"usd_per_call": 1.0000005}},
            {"x": 0.5, "y": 0.9},
            {"usd_per_call": 1.0},
            "x",
            id="a-limit-passed-by-less-than-the-solver-sees",
        ),
        pytest.param(
            {"x": {"hosted_b": 1.0}, "y": {"hosted_b": 1.0000005}},
            {"x": 0.5, "y": 0.9},
            {"hosted_b": 1.0},
            "x",
            id="room",
        ),
        pytest.param(
            {"x": {"usd_per_call": 0.0}, "y": {"usd_per_call": 0.01}},
            {"x": 0.5, "y": 0.9},
            {"usd_per_call": 1e-20},
            "x",
            id="a-limit-of-next-to-nothing-and-one-who-is-free",
        ),
        pytest.param(
            {"x": {"hosted_b": 1e-6}, "y": {"hosted_b": 1e6}}, {"x": 0.1, "y": 0.9}, {"hosted_b": 1.0}, "x", id="huge"
        ),
    ],
)
def test_limits_are_exact_and_of_any_size(
    experts: dict[str, dict[str, float]], scores: dict[str, float], limits: dict[str, float], table: str
) -> None:
    rows = {c: {name: Known(score) for name, score in scores.items()} for c in "ab"}
    assert set(solve(Problem(experts, rows, limits=limits)).table.values()) == {table}


@pytest.mark.parametrize("weight", [0.0, 1e-3, 1.0])
def test_a_category_that_is_hardly_ever_asked_for_has_a_good_row_too(weight: float) -> None:
    """Ties are broken by price; what weighs next to nothing is no tie."""
    experts = {"cheap": {"usd_per_call": 0.001}, "good": {"usd_per_call": 0.01}}
    rows = {"often": {"cheap": Known(0.5), "good": Known(0.9)}, "seldom": {"cheap": Known(0.5), "good": Known(0.6)}}
    found = solve(Problem(experts, rows, weights={"often": 1e7, "seldom": weight}))
    assert found.table == {"often": "good", "seldom": "good"}
    assert sum(Problem(experts, rows, weights={"often": 1e7, "seldom": weight}).shares().values()) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(20))
def test_a_search_that_ends_early_has_an_honest_bound(seed: int) -> None:
    """No table is above it, and a table that is not the best has a gap."""
    here = zoo(seed)
    best, early = best_of(here), best_of(here, programs=0)
    assert best is not None
    assert early is not None
    value = measured(here, early.table).value
    assert within(here, measured(here, early.table).uses)
    assert early.bound >= measured(here, best.table).value
    assert early.table == best.table or early.bound - value > TIE


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"trade": math.inf}, "worth is too little"),
        ({"experts": {**EXPERTS, "api": {"usd_per_call": math.inf}}, "trade": 1.0}, "'api' is no finite number"),
        (
            {"experts": {**EXPERTS, "api": {"usd_per_call": math.inf}}, "limits": {"usd_per_call": 1.0}},
            "usd_per_call of the expert 'api' is no finite number",
        ),
    ],
)
def test_numbers_without_end_are_named(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(Infeasible, match=words):
        solve(problem(**parts))
