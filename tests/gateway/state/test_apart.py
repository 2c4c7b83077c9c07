"""Work on a thread of its own: its outcome is handed over, and nobody waits for one that never comes."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from conclave.gateway.state.apart import apart

SOON_S = 5.0


@pytest.fixture
def silence() -> Iterator[threading.Event]:
    """Set at the end: what waits for it gets no answer during the test."""
    event = threading.Event()
    yield event
    event.set()


async def test_the_outcome_is_that_of_the_work() -> None:
    assert await apart(lambda: threading.current_thread().name, name="look") == "look"
    with pytest.raises(OSError, match="unreachable"):
        await apart(broken, name="look")


def broken() -> None:
    raise OSError("unreachable")


async def test_stuck_work_takes_no_thread_from_others(silence: threading.Event) -> None:
    stuck = [asyncio.create_task(apart(silence.wait, name="stuck")) for _ in range(100)]
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "served"), SOON_S) == "served"
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


def test_the_end_of_the_loop_does_not_wait_for_stuck_work(silence: threading.Event) -> None:
    async def serve() -> None:
        task = asyncio.create_task(apart(silence.wait, name="stuck"))
        await asyncio.sleep(0)
        task.cancel()

    serving = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    serving.start()
    serving.join(SOON_S)
    assert not serving.is_alive()


def test_work_that_outlives_the_loop_ends_quietly(silence: threading.Event) -> None:
    """Warnings and exceptions of threads are errors here."""

    async def serve() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(apart(silence.wait, name="late"), 0.01)

    asyncio.run(serve())
    silence.set()
    end_s = time.monotonic() + SOON_S
    while any(thread.name == "late" for thread in threading.enumerate()):
        assert time.monotonic() < end_s
        time.sleep(0.01)
