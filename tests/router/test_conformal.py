"""The credible set: what it promises, and what it takes to promise it."""

from random import Random

import pytest

from conclave.router.conformal import COVERAGE, credible, floor_of


def test_the_set_holds_what_reaches_the_floor_the_most_probable_first() -> None:
    assert credible({"a": 0.2, "b": 0.5, "c": 0.25, "d": 0.05}, 0.2) == ("b", "c", "a")


def test_the_winner_is_credible_even_where_nothing_reaches_the_floor() -> None:
    assert credible({"a": 0.3, "b": 0.4, "c": 0.3}, 0.9) == ("b",)


def test_a_source_never_seen_is_covered_as_often_as_promised() -> None:
    """Forty sources, easy and hard; the floor of the others holds for the one left out, on average."""
    draw = Random(3)
    sources = {f"s{n}": [draw.betavariate(2 + 6 * hard, 2) for _ in range(60)] for n, hard in enumerate([0.2, 1] * 20)}
    covered = []
    for name, mine in sources.items():
        rows = [(value, other) for other, values in sources.items() if other != name for value in values]
        floor = floor_of([value for value, _ in rows], [other for _, other in rows])
        covered.append(sum(value >= floor for value in mine) / len(mine))
    assert COVERAGE <= sum(covered) / len(covered) <= COVERAGE + 0.05


def test_a_large_source_counts_as_much_as_a_small_one() -> None:
    few = [0.9] * 20
    names = [f"s{number}" for number in range(20)]
    assert floor_of([*few, *[0.01] * 5000], [*names, *["large"] * 5000]) == 0.9
    assert floor_of([*few, *[0.01] * 5], [*names, *["large"] * 5]) == 0.9


def test_too_few_sources_promise_nothing_so_everything_is_credible() -> None:
    assert floor_of([0.5] * 8, [f"s{number}" for number in range(8)]) == 0.0
    assert floor_of([0.5] * 9, [f"s{number}" for number in range(9)]) == 0.5


def test_no_rows_give_no_floor() -> None:
    with pytest.raises(ValueError, match="there are none"):
        floor_of([], [])
