"""Differences and their intervals: right on average, and silent where little is known."""

import random

import pytest

from conclave.router.compare import FEWEST, Difference, apart, paired


def test_the_interval_of_a_paired_difference_holds_the_truth_in_about_95_of_100_trials() -> None:
    rng = random.Random(7)
    held = 0
    for _ in range(400):
        found = paired([rng.gauss(0.1, 1) for _ in range(60)])
        assert found is not None
        held += found.low <= 0.1 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_the_interval_between_two_samples_with_unlike_spreads_does_too() -> None:
    rng = random.Random(8)
    held = 0
    for _ in range(400):
        found = apart([rng.gauss(0, 1) for _ in range(40)], [rng.gauss(0.5, 3) for _ in range(90)])
        assert found is not None
        held += found.low <= 0.5 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_of_few_values_the_interval_is_as_wide_as_it_must_be() -> None:
    """By the normal law an interval of three values would hold the truth in 81 of 100 trials, not in 95."""
    rng = random.Random(9)
    alone = [paired([rng.gauss(0.1, 1) for _ in range(3)]) for _ in range(400)]
    sides = [apart([rng.gauss(0, 1) for _ in range(3)], [rng.gauss(0.1, 3) for _ in range(4)]) for _ in range(400)]
    for trials in (alone, sides):
        held = sum(one is not None and one.low <= 0.1 <= one.high for one in trials)
        assert held / 400 >= 0.92


def test_values_that_are_all_the_same_have_an_interval_without_width() -> None:
    found = apart([0.5] * FEWEST, [0.5 + 1e-9] * FEWEST)
    assert found is not None
    assert found.low == found.mean == found.high
    assert (paired([0.25] * FEWEST), found.verdict) == (Difference(0.25, 0.25, 0.25, FEWEST), "more")


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.1, 0.2] * FEWEST, "more"),
        ([-0.1, -0.2] * FEWEST, "less"),
        ([-1.0, 1.0] * FEWEST, "cannot tell yet"),
        ([0.1] * (FEWEST - 1), "cannot tell yet"),
        ([0.0] * FEWEST, "cannot tell yet"),
    ],
    ids=["more", "less", "both-sides", "too-few", "no-difference"],
)
def test_a_verdict_needs_an_interval_on_one_side_and_enough_values(values: list[float], verdict: str) -> None:
    found = paired(values)
    assert found is not None
    assert found.verdict == verdict


def test_the_other_sample_is_compared_with_the_one_and_the_smaller_number_counts() -> None:
    found = apart([0.0, 0.1] * 40, [1.0, 0.9] * 20)
    assert found is not None
    assert (round(found.mean, 6), found.values, found.verdict) == (0.9, 40, "more")
    few = apart([0.0, 0.1] * 40, [1.0] * 3)
    assert few is not None
    assert few.verdict == "cannot tell yet"


@pytest.mark.parametrize(("one", "other"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [])])
def test_fewer_than_two_values_have_no_interval(one: list[float], other: list[float]) -> None:
    assert apart(one, other) is None
    assert paired(one[:1]) is None
