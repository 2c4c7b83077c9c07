"""An answer that runs away is heard out no further than the limit; one that only repeats a little is."""

import random
import time

import pytest

from conclave.safety.output.repetition import KEPT_CHARS, AnswerLimits, Runaway

MOST = 8192
PROSE = " ".join(f"Sentence {number} says something of its own about {number * 37 % 101}." for number in range(300))


def heard(text: str, *, piece: int = 4, most: int | None = MOST, chars: int | None = None) -> int | None:
    """How many characters were heard before enough was said; None: all of it."""
    runaway = Runaway(AnswerLimits(most, chars))
    for start in range(0, len(text), piece):
        if runaway.feed(text[start : start + piece]):
            return start + piece
    return None


@pytest.mark.parametrize("piece", [1, 4, 700, 100_000], ids=str)
@pytest.mark.parametrize("unit", ["a", "no ", "I am sorry. ", "x" * 99 + "\n", PROSE[:1500], "😀", "\n"], ids=len)
def test_a_loop_ends_soon_after_the_limit_however_it_comes(unit: str, piece: int) -> None:
    text = PROSE[:3000] + unit * (60_000 // len(unit))
    at = heard(text, piece=piece)
    assert at is not None
    least = 3000 + MOST - 2 * KEPT_CHARS
    assert least < at <= 3000 + MOST + 2 * len(unit) + 3 * 700 + (piece if piece > 1000 else 0)


@pytest.mark.parametrize(
    "text",
    [
        PROSE * 2,
        "a" * (MOST - 1200),
        "".join(f"{number}. all work and no play\n" for number in range(2000)),
        (("0, " * 300) + "\n") * 8,
        "\n".join(f"{'=' * 80}\n{PROSE[at : at + 200]}" for at in range(0, 9000, 60)),
        "".join(random.Random(3).choices("ab", k=60_000)),
    ],
    ids=["twice", "short", "counted", "zeros", "rulers", "random"],
)
def test_what_repeats_less_than_the_limit_or_changes_as_it_goes_is_heard_whole(text: str) -> None:
    assert heard(text) is None


def test_a_loop_that_ends_is_forgiven() -> None:
    loop = "na " * 2000
    assert heard((loop + PROSE[:3000]) * 4) is None


def test_the_limit_of_length_counts_every_character() -> None:
    assert heard(PROSE, most=None, chars=1000, piece=1) == 1001
    assert heard(PROSE[:1000], most=None, chars=1000) is None


def test_without_limits_nothing_ends() -> None:
    assert heard("a" * 1_000_000, most=None, piece=1000) is None


def test_once_it_is_enough_it_stays_enough() -> None:
    runaway = Runaway(AnswerLimits(MOST))
    assert runaway.feed("a" * 20_000)
    assert runaway.feed("something else entirely")


def test_the_time_for_an_answer_grows_with_its_length_alone() -> None:
    began_s = time.perf_counter()
    heard("".join(random.Random(4).choices("ab ", k=500_000)), piece=5)
    assert time.perf_counter() - began_s < 3.0
