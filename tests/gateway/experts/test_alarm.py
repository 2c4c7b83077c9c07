"""An alarm ends a wait and nothing else: not the task that waits, and no cancellation that is somebody else's."""

import asyncio
import time

import pytest

from conclave.gateway.experts.alarm import Alarm


async def test_what_comes_in_time_is_given() -> None:
    alarm = Alarm(time.monotonic)

    async def soon() -> str:
        await asyncio.sleep(0)
        return "here"

    assert await alarm.until(time.monotonic() + 60, soon) == "here"
    alarm.stop()


async def test_what_does_not_come_is_none_and_the_task_goes_on_uncancelled() -> None:
    alarm = Alarm(time.monotonic)
    for _ in range(3):
        began_s = time.monotonic()
        assert await alarm.until(began_s + 0.02, asyncio.Event().wait) is None
        assert time.monotonic() >= began_s + 0.02
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_earlier_moment_counts_while_a_later_timer_runs() -> None:
    alarm = Alarm(time.monotonic)
    await alarm.until(time.monotonic() + 60, lambda: asyncio.sleep(0))
    async with asyncio.timeout(1):
        assert await alarm.until(time.monotonic() + 0.01, asyncio.Event().wait) is None


async def test_a_later_moment_counts_while_an_earlier_timer_runs() -> None:
    alarm = Alarm(time.monotonic)
    await alarm.until(time.monotonic() + 0.01, lambda: asyncio.sleep(0))
    at_s = time.monotonic() + 0.05
    assert await alarm.until(at_s, asyncio.Event().wait) is None
    assert time.monotonic() >= at_s


async def test_a_cancellation_of_the_task_is_not_kept_from_it() -> None:
    alarm = Alarm(time.monotonic)
    waiting = asyncio.ensure_future(alarm.until(time.monotonic() + 60, asyncio.Event().wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    alarm.stop()


@pytest.mark.parametrize("first", ["alarm", "cancel"])
async def test_a_cancellation_at_the_same_moment_wins(first: str) -> None:
    alarm = Alarm(time.monotonic)
    waiting = asyncio.ensure_future(alarm.until(time.monotonic() + 60, asyncio.Event().wait))
    await asyncio.sleep(0)
    if first == "alarm":
        alarm.ring()
    waiting.cancel()
    alarm.ring()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert waiting.cancelling() == 1
    alarm.stop()


async def test_stopping_ends_a_wait_of_another_task() -> None:
    alarm = Alarm(time.monotonic)
    waiting = asyncio.ensure_future(alarm.until(time.monotonic() + 60, asyncio.Event().wait))
    await asyncio.sleep(0)
    alarm.stop()
    assert await waiting is None


async def test_it_works_inside_a_time_limit_of_the_caller() -> None:
    alarm = Alarm(time.monotonic)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await alarm.until(time.monotonic() + 60, asyncio.Event().wait)
    alarm.stop()
