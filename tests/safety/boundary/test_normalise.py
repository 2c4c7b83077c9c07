"""The folded view: what NFKC promises, and linear work whatever the text holds."""

import contextlib
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.safety.boundary.caps import BoundaryError
from conclave.safety.boundary.normalise import JOINER, MARKS_IN_A_ROW, fold

PLENTY = 10_000_000


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        pytest.param("ignore this", "ignore this", id="ascii"),
        pytest.param("ｉｇｎｏｒｅ", "ignore", id="full-width"),  # noqa: RUF001  that is the point
        pytest.param("𝐢𝐠𝐧𝐨𝐫𝐞", "ignore", id="mathematical-bold"),  # noqa: RUF001  that is the point
        pytest.param("ﬁle", "file", id="ligature"),
        pytest.param("e\u0301", "é", id="composed"),
        pytest.param("日本", "日本", id="cjk-unchanged"),
    ],
)
def test_a_text_folds_to_its_plain_letters(text: str, folded: str) -> None:
    assert fold(text, max_chars=100) == folded


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_short_texts_fold_as_unicode_says(text: str) -> None:
    """Where no run of marks is cut, the folded view is NFKC and nothing else."""
    folded = fold(text, max_chars=PLENTY)
    if chr(JOINER) not in folded:
        assert folded == unicodedata.normalize("NFKC", text)


def test_a_long_run_of_marks_is_cut_and_none_is_lost() -> None:
    marks = "\u0301\u0316" * 100
    folded = fold("x" + marks, max_chars=PLENTY)
    runs = folded[1:].split(chr(JOINER))
    assert max(map(len, runs)) <= MARKS_IN_A_ROW
    assert sorted("".join(runs)) == sorted(marks)


def test_thirty_marks_on_one_letter_are_left_alone() -> None:
    assert chr(JOINER) not in fold("x" + "\u0316" * MARKS_IN_A_ROW, max_chars=PLENTY)


def test_a_text_of_nothing_but_marks_takes_linear_time() -> None:
    """`unicodedata.normalize` alone needs over a minute of CPU for these 300,000 characters."""
    began = time.process_time()
    fold("\u0301\u0316" * 150_000, max_chars=PLENTY)
    assert time.process_time() - began < 10


def test_a_character_that_unfolds_to_eighteen_counts_as_eighteen() -> None:
    assert len(fold("\ufdfa" * 10, max_chars=180)) == 180
    with pytest.raises(BoundaryError, match="longer") as caught:
        fold("\ufdfa" * 10, max_chars=179, place="messages[0].content")
    assert caught.value.too_large
    assert caught.value.place == "messages[0].content"


def test_a_large_text_that_unfolds_past_the_limit_is_refused_before_it_is_unfolded() -> None:
    began = time.process_time()
    with pytest.raises(BoundaryError, match="longer"):
        fold("\ufdfa" * 3_000_000, max_chars=3_000_000)
    assert time.process_time() - began < 3


def test_a_large_text_at_the_limit_is_taken() -> None:
    text = "ﬁ" * 100_000
    assert fold(text, max_chars=200_000) == "fi" * 100_000


@pytest.mark.parametrize("text", ["é" * 40 + "\ud800", "日" * 40 + "\udfff"], ids=["latin", "cjk"])
def test_a_lone_surrogate_raises_no_error_but_the_rooms_own(text: str) -> None:
    """`read_messages` refuses surrogates before it folds."""
    with contextlib.suppress(BoundaryError):
        fold(text, max_chars=100)
