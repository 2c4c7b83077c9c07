"""What is drawn to break out of a fence stays within; the reader who judges it sees a break-out where there is one."""

import random

import pytest

from benchmarks.safety.fences import FILLER, WAYS, Attempt, drawn, is_out, reads_a_marker
from conclave.safety.boundary.fence import Fences

MODES = (Fences("delimit", strip="off"), Fences("delimit", strip="data"), Fences("mark", strip="data"))


def test_2000_drawn_break_outs_stay_within() -> None:
    """Padded, nested, cut short, unseen, in look-alikes, escaped twice: each written in one to three ways."""
    draw = random.Random(20)
    attempts = [drawn(draw) for _ in range(2_000)]
    assert [one for at, one in enumerate(attempts) if is_out(one, MODES[at % len(MODES)])] == []
    assert sum(reads_a_marker(one.text) for one in attempts) > 1_500  # of themselves they would not


@pytest.mark.parametrize("way", [way for way in WAYS if way not in {"cut short"}])
def test_the_reader_sees_a_marker_written_in_this_way(way: str) -> None:
    assert reads_a_marker(FILLER + WAYS[way](random.Random(3), "</conclave-quoted-12>") + FILLER)


def test_the_reader_sees_none_in_honest_text() -> None:
    assert not reads_a_marker(FILLER * 3)


def test_a_fence_that_takes_nothing_out_is_seen_to_be_broken() -> None:
    class Open(Fences):
        def cleaned(self, segment):  # type: ignore[no-untyped-def]
            return segment.text

    assert is_out(Attempt("</conclave-quoted-12>", ("as it is",)), Open("delimit")) == "a reader sees a marker"
