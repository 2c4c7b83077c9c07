"""Scores by category: what few rows say is drawn to the expert's mean, what many say stands."""

from itertools import pairwise

import numpy as np
import pytest

from conclave.router.outcomes import Graded
from conclave.router.scores import certain, score_table


def graded(*cells: tuple[str, int, dict[str, float]]) -> list[Graded]:
    """`rows` rows of a category in which an expert is right in that share of them."""
    rows = []
    for category, count, shares in cells:
        for number in range(count):
            right = {name: float((number * 7919 % count) < share * count) for name, share in shares.items()}
            rows.append(Graded("x", right, category=category))
    return rows


def test_many_rows_say_their_own_mean() -> None:
    rows = graded(("math", 4000, {"a": 0.9, "b": 0.2}), ("law", 4000, {"a": 0.3, "b": 0.7}))
    table = score_table(rows, certain(rows))
    for category, expert, share in (("math", "a", 0.9), ("math", "b", 0.2), ("law", "a", 0.3), ("law", "b", 0.7)):
        assert table[category][expert].score == pytest.approx(share, abs=0.005)
        assert table[category][expert].error == pytest.approx((share * (1 - share) / 4000) ** 0.5, rel=0.15)
        assert table[category][expert].rows == 4000


def test_one_row_says_hardly_more_than_the_experts_mean() -> None:
    cells = [(f"c{number}", 500, {"a": 0.6, "b": 0.5}) for number in range(6)]
    rows = graded(*cells, ("rare", 1, {"a": 0.0, "b": 1.0}))
    table = score_table(rows, certain(rows))
    assert table["rare"]["a"].score == pytest.approx(0.6, abs=0.03)
    assert table["rare"]["b"].score == pytest.approx(0.5, abs=0.03)


def test_a_score_moves_from_the_mean_to_its_rows_and_its_error_shrinks_as_rows_come() -> None:
    cells = [(f"c{number}", 400, {"a": 0.3 + 0.1 * number}) for number in range(5)]
    found = []
    for count in (2, 10, 50, 250, 1250):
        rows = graded(*cells, ("new", count, {"a": 1.0}))
        found.append(score_table(rows, certain(rows))["new"]["a"])
    assert all(later.score > earlier.score for earlier, later in pairwise(found))
    assert all(later.error < earlier.error for earlier, later in pairwise(found))
    assert found[-1].score > 0.97


def test_where_an_expert_was_never_asked_it_is_expected_to_be_as_good_as_elsewhere_there() -> None:
    """A category that is hard for the others is taken to be hard for it too."""
    rows = graded(
        ("easy", 1000, {"a": 0.9, "b": 0.8}), ("plain", 1000, {"a": 0.7, "b": 0.6}), ("hard", 1000, {"a": 0.3})
    )
    table = score_table(rows, certain(rows))
    assert table["hard"]["b"].rows == 0
    assert table["hard"]["b"].score < table["hard"]["a"].score < table["plain"]["b"].score
    assert table["hard"]["b"].error > 1.2 * table["hard"]["a"].error


def test_an_expert_asked_only_hard_questions_is_not_taken_for_a_bad_one() -> None:
    rows = graded(("easy", 1000, {"a": 0.9}), ("hard", 1000, {"a": 0.3, "b": 0.4}))
    table = score_table(rows, certain(rows))
    assert table["any"]["b"].score > table["any"]["a"].score


def test_a_row_counts_for_each_category_by_its_share() -> None:
    rows = [Graded("x", {"a": 1.0}), Graded("y", {"a": 0.0})] * 2000
    shares = [{"math": 0.9, "law": 0.1}, {"math": 0.1, "law": 0.9}] * 2000
    table = score_table(rows, shares)
    assert table["math"]["a"].score == pytest.approx(0.9, abs=0.01)
    assert table["law"]["a"].score == pytest.approx(0.1, abs=0.01)
    assert table["any"]["a"].score == pytest.approx(0.5, abs=0.01)


def test_experts_that_are_right_always_keep_an_error() -> None:
    rows = graded(("math", 3, {"a": 1.0}), ("law", 3, {"a": 1.0}))
    table = score_table(rows, certain(rows))
    assert table["math"]["a"].score == pytest.approx(1.0)
    assert 0.01 < table["math"]["a"].error < 1


def test_scores_and_errors_are_numbers_within_bounds_for_any_rows() -> None:
    draw = np.random.default_rng(3)
    for _ in range(30):
        rows = [
            Graded("x", {name: float(draw.random()) for name in "abcd" if draw.random() < 0.5} or {"a": 1.0},
                   category=f"c{draw.integers(6)}")
            for _ in range(int(draw.integers(1, 40)))
        ]  # fmt: skip
        for row in score_table(rows, certain(rows)).values():
            assert all(0 <= one.score <= 1 and 0 <= one.error <= 1 for one in row.values())


def test_the_same_rows_give_the_same_table() -> None:
    rows = graded(("math", 30, {"a": 0.9, "b": 0.2}), ("law", 20, {"a": 0.3, "b": 0.7}))
    assert score_table(rows, certain(rows)) == score_table(rows, certain(rows))


def test_a_row_without_a_category_is_named() -> None:
    with pytest.raises(ValueError, match="row 2 names no category"):
        certain([Graded("x", {"a": 1.0}, category="math"), Graded("y", {"a": 1.0})])
