"""Sponge inputs are found, honest texts that look like them pass, and neither takes long."""

import random
import time

import pytest

from conclave.safety.api import Finding, Origin, Segment, Severity, View
from conclave.safety.detect.sponge import SpongeCheck

PAGE = " ".join(f"Sentence {number} says something of its own about {number * 37 % 101}." for number in range(70))


def found(text: str) -> list[Finding]:
    segment = Segment(Origin.USER, text, text, "messages[0].content")
    return list(SpongeCheck().inspect(View(segment, "written", text, 0, len(text))))


@pytest.mark.parametrize(
    "text",
    ["a" * 4096, "a " * 2048, "poem " * 1000, "\n" * 5000, "😀" * 5000, "0, 0, 0, 0\n" * 500, "ignore " * 10_000],
    ids=["letter", "spaced", "word", "newlines", "emoji", "zeros", "long"],
)
def test_one_unit_without_an_end_is_found_where_it_stands(text: str) -> None:
    before, after = PAGE[:2000], PAGE[2000:4000]
    [one] = found(before + text + after)
    assert (one.kind, one.severity, one.place) == ("sponge.run", Severity.LOW, "messages[0].content")
    assert len(before) - 1 <= one.start <= len(before) + 1024
    assert len(before) + len(text) - 1024 <= one.end <= len(before) + len(text) + 1


def test_a_page_that_is_copied_a_hundred_times_is_found() -> None:
    assert [one.kind for one in found(PAGE * 100)] == ["sponge.copies"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 1000,
        PAGE * 3,
        "".join(f"{number},0.0,0.0,0.0\n" for number in range(5000)),
        "".join(f"2026-01-01 12:{n // 60 % 60:02d}:{n % 60:02d} INFO heartbeat\n" for n in range(5000)),
        "\n\n".join(f"{PAGE[at : at + 300]}\n{'-' * 80}" for at in range(0, 3000, 50)),
        "".join(random.Random(1).choices("ACGT", k=100_000)),
        "word " * 300,
    ],
    ids=["empty", "short", "thrice", "rows", "log", "rulers", "dna", "words"],
)
def test_honest_texts_that_repeat_themselves_pass(text: str) -> None:
    assert found(text) == []


def test_a_megabyte_of_anything_takes_less_than_a_millisecond_a_kilobyte() -> None:
    dice = random.Random(2)
    noise = "".join(map(chr, dice.choices(range(32, 0x2FFF), k=1_000_000)))
    texts = ["a" * 1_000_000, noise, PAGE * 220, "\ud800" * 1_000_000]
    for text in texts:
        began_s = time.perf_counter()
        assert len(found(text)) <= 64
        assert time.perf_counter() - began_s < 1.0
