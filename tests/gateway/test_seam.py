"""Seam: two halves of an answer become one, and nothing is said twice."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.seam import LEAST_CHARS, TAIL_CHARS, Seam

FIRST = "The quick brown fox jumps over the lazy dog. It does so every single morning, and"


def joined(first: str, *pieces: str) -> str:
    seam = Seam(first)
    return "".join([*map(seam.feed, pieces), seam.finish()])


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((" nobody knows why.",), id="goes-on"),
        pytest.param((" no", "body kn", "ows why."), id="goes-on-in-pieces"),
        pytest.param((FIRST, " nobody knows why."), id="begins-again"),
        pytest.param((*FIRST, *" nobody knows why."), id="begins-again-letter-by-letter"),
        pytest.param((FIRST[-40:] + " nobody knows why.",), id="repeats-the-end"),
        pytest.param((*FIRST[-40:], *" nobody knows why."), id="repeats-the-end-letter-by-letter"),
        pytest.param((FIRST[-40:-20], FIRST[-20:] + " nobody", " knows why."), id="repeats-the-end-in-pieces"),
    ],
)
def test_what_was_shown_is_not_said_again(pieces: tuple[str, ...]) -> None:
    assert joined(FIRST, *pieces) == " nobody knows why."


def test_a_short_overlap_is_chance_and_stays() -> None:
    """`and` ends the first half; a second half that begins so may mean it."""
    assert joined(FIRST, "and then it sleeps.") == "and then it sleeps."


def test_a_direct_continuation_is_held_back_for_a_few_characters_only() -> None:
    assert Seam(FIRST).feed(" nobody") == " nobody"


def test_a_second_half_that_starts_like_the_first_and_then_differs_is_kept_whole() -> None:
    other = FIRST[:30] + "something else entirely"
    assert joined(FIRST, *other) == other


def test_what_is_held_at_the_end_is_given_back_if_it_repeats_nothing() -> None:
    seam = Seam(FIRST)
    assert seam.feed("The qui") == ""
    assert seam.finish() == "The qui"


def test_an_overlap_longer_than_what_is_looked_at_is_cut_by_no_more_than_it_matches() -> None:
    """Only the last characters are compared: a repetition longer than they are is no repetition of them."""
    first = "".join(chr(97 + i % 26) + str(i) for i in range(TAIL_CHARS))
    assert joined(first, first[-TAIL_CHARS:] + "!") == "!"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("1", "1", id="a-digit"),
        pytest.param("10", "1000", id="a-number"),
        pytest.param("|---|" + "-" * 40, "-" * 40 + "|", id="the-rule-of-a-table"),
        pytest.param("if x:\n" + " " * 40, " " * 40 + "pass", id="indentation"),
        pytest.param("01" * 30, "01" * 30, id="two-signs"),
        pytest.param("I ", "It is so.", id="a-short-beginning"),
    ],
)
def test_what_only_looks_like_a_repetition_stays(first: str, second: str) -> None:
    assert joined(first, *second) == second


@given(st.text(min_size=1, max_size=300), st.text(max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_the_end_of_what_is_fed_always_arrives(first: str, second: str, cuts: list[int]) -> None:
    """However it is cut, what is shown is a suffix of the second half; nothing is invented or reordered."""
    places = sorted({0, len(second), *(cut for cut in cuts if cut < len(second))})
    pieces = [second[a:b] for a, b in pairwise(places)]
    shown = joined(first, *pieces)
    assert second.endswith(shown)
    dropped = second[: len(second) - len(shown)]
    assert dropped == first or (first.endswith(dropped) and (not dropped or len(dropped) >= LEAST_CHARS))
