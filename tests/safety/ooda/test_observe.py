"""What the window costs: a table of fixed size, however many calls it sees, and of whom."""

import tracemalloc

from conclave.safety.ooda.api import Observation
from conclave.safety.ooda.observe import Window

CALLS = 20_000


def see(window: Window, first: int, count: int, *, keys: int = 1) -> None:
    """Calls with names and texts of their own, as a row of the record is read."""
    for number in range(first, first + count):
        key, asked = f"key:k{number % keys:020d}", f"{number:032x}"
        name = f"req_{number:024d}"
        window.see(Observation(1.0, key, "acme", name, asked, tokens=60, attacks=number % 2, good=False))


def grown_bytes(window: Window, *, keys: int) -> int:
    """By how much memory grows while a window of `CALLS` calls is filled; a few are in it before."""
    see(window, 0, 100, keys=keys)
    tracemalloc.start()
    try:
        see(window, 100, CALLS, keys=keys)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_window_that_fills_does_not_make_the_process_grow() -> None:
    """As objects, a call was 740 bytes: 37 MB for the whole window, and a gateway seemed to leak until it was full."""
    window = Window(most_calls=CALLS)
    assert grown_bytes(window, keys=1) < 5 * CALLS
    assert len(window) == CALLS


def test_keys_that_have_no_calls_left_are_forgotten() -> None:
    """Without an hour that forgets them, too: whoever makes a key for each call does not fill the memory."""
    window = Window(most_calls=100)
    assert grown_bytes(window, keys=CALLS) < 400_000
    assert len(list(window.subjects())) == 100


def test_texts_are_told_apart_by_key() -> None:
    """Two keys that ask the same have each asked one thing."""
    window = Window()
    for number in range(6):
        window.see(Observation(1.0, f"key:{number % 2}", "acme", f"r{number}", "the same"))
    assert [counts.texts for _, _, counts in window.subjects()] == [1, 1]


def test_numbers_that_only_a_lie_can_reach_break_nothing() -> None:
    """An expert may say that it wrote 2**53 tokens, and no text need be valid Unicode."""
    window = Window()
    window.see(Observation(1.0, "key:\ud800", "acme", "r1", "\ud800", tokens=2**53 - 1))
    assert [counts.tokens for _, _, counts in window.subjects()] == [2**53 - 1]
