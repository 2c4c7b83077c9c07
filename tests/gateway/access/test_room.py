"""The queue before an overloaded gateway. The clock is a fake one; the looks at the loop come by real time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from conclave.gateway.access.room import LAG_S, LEAST, MOST_WAIT_S, Room
from conclave.gateway.errors import DeadlineExceeded, Overloaded
from conclave.gateway.testing import FakeClock

FAR_S = 1e9
LATE_S = LAG_S * 4


def room_of(clock: FakeClock, *, max_calls: int = 1, max_queue: int = 4, max_wait_s: float = 60.0) -> Room:
    return Room(max_calls=max_calls, max_queue=max_queue, max_wait_s=max_wait_s, now_s=clock.now_s, uniform=lambda: 0.0)


async def until(probe: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not probe():  # noqa: ASYNC110  the room tells nobody that somebody stands in line
            await asyncio.sleep(0.002)


async def waiting(room: Room, *tenants: str) -> list[asyncio.Task[None]]:
    """Calls of these tenants that stand in line, in this order."""
    tasks = []
    for tenant in tenants:
        queued = room.queued
        tasks.append(asyncio.create_task(room.enter(tenant, FAR_S)))
        await until(lambda before=queued: room.queued > before)  # type: ignore[misc]  # mypy knows no defaults here
    return tasks


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_thousand_calls_that_only_wait_for_experts_hinder_nobody() -> None:
    """The bound is on what the gateway itself has to do, not on how long experts take."""
    room = room_of(FakeClock(), max_calls=4096)
    assert all(room.try_enter() for _ in range(1000))
    assert (room.in_work, room.queued, room.full) == (1000, 0, False)


async def test_when_the_loop_is_late_newcomers_wait_until_it_keeps_up() -> None:
    clock = FakeClock()
    room = room_of(clock, max_calls=100)
    assert all(room.try_enter() for _ in range(LEAST))
    clock.advance(LATE_S)
    assert not room.try_enter()
    await room.enter("a", FAR_S)
    assert (room.in_work, room.queued) == (LEAST + 1, 0)


async def test_a_late_loop_with_next_to_nothing_to_do_is_the_machines_fault_and_lets_calls_in() -> None:
    clock = FakeClock()
    room = room_of(clock, max_calls=100)
    room.try_enter()
    clock.advance(LATE_S)
    assert all(room.try_enter() for _ in range(LEAST - 1))
    assert not room.try_enter()


async def test_the_next_enters_when_one_leaves() -> None:
    room = room_of(FakeClock())
    assert room.try_enter()
    (first, second) = await waiting(room, "a", "a")
    room.leave()
    await first
    assert (room.in_work, room.queued, second.done()) == (1, 1, False)
    await cancel([second])


async def test_a_full_queue_refuses_with_a_word_on_when_to_come_back() -> None:
    room = room_of(FakeClock(), max_queue=1)
    room.try_enter()
    tasks = await waiting(room, "a")
    with pytest.raises(Overloaded) as refused:
        await room.enter("a", FAR_S)
    assert (refused.value.status, refused.value.retry) == (429, True)
    assert refused.value.retry_after_s is not None
    assert room.refused == 1
    await cancel(tasks)


async def test_without_a_queue_a_free_place_is_taken_and_nobody_waits() -> None:
    room = room_of(FakeClock(), max_queue=0)
    assert room.turn_away("a") is None
    await room.enter("a", FAR_S)
    with pytest.raises(Overloaded):
        await room.enter("a", FAR_S)
    room.leave()
    await room.enter("a", FAR_S)


async def test_one_tenant_can_use_all_of_the_queue_but_not_keep_another_out() -> None:
    room = room_of(FakeClock(), max_queue=4)
    room.try_enter()
    crowd = await waiting(room, "crowd", "crowd", "crowd", "crowd")
    single = asyncio.create_task(room.enter("single", FAR_S))
    await until(crowd[3].done)
    assert isinstance(crowd[3].exception(), Overloaded)
    assert room.queued == 4
    room.leave()
    await crowd[0]
    room.leave()
    await single  # in turn: it does not stand behind the other three
    assert not crowd[1].done()
    await cancel(crowd[1:3])
    assert room.queued == 0


async def test_a_tenant_with_its_share_of_the_queue_is_turned_away_and_counted() -> None:
    room = room_of(FakeClock(), max_queue=4)
    room.try_enter()
    tasks = await waiting(room, "a", "b", "a", "b")
    assert isinstance(room.turn_away("a"), Overloaded)
    assert room.turn_away("a") is not None
    assert room.turn_away("c") is None  # it may have another's place
    assert (room.collect(), room.collect()) == ({"a": 2}, {})
    await cancel(tasks)


async def test_nobody_is_turned_away_while_the_queue_has_room() -> None:
    room = room_of(FakeClock(), max_queue=2)
    room.try_enter()
    tasks = await waiting(room, "a")
    assert room.turn_away("a") is None
    await cancel(tasks)


async def drain(room: Room, clock: FakeClock, *, each_s: float, calls: int) -> None:
    """Let one waiting call enter each `each_s`, with a look at the loop in between."""
    for _ in range(calls):
        queued = room.queued
        clock.advance(each_s)
        room.leave()
        await until(lambda before=queued: room.queued < before)  # type: ignore[misc]  # as above
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("each_s", [0.1, 1.0], ids=["10 a second", "1 a second"])
async def test_the_wait_that_a_refusal_names_is_that_of_the_queue_at_the_rate_that_was_measured(each_s: float) -> None:
    """Who comes back then, with nobody else there, is let in."""
    clock = FakeClock()
    room = room_of(clock, max_queue=20, max_wait_s=1e6)
    room.try_enter()
    tasks = await waiting(room, *["a"] * 20)
    await drain(room, clock, each_s=each_s, calls=16)
    tasks += await waiting(room, *["a"] * 16)
    refused = room.turn_away("a")
    assert refused is not None
    assert refused.retry_after_s == pytest.approx(20 * each_s, rel=0.5)
    await drain(room, clock, each_s=each_s, calls=20)
    assert room.queued == 0
    await cancel(tasks)


async def test_the_wait_is_never_more_than_clients_obey() -> None:
    clock = FakeClock()
    room = room_of(clock, max_queue=1, max_wait_s=1e6)
    room.try_enter()
    tasks = await waiting(room, "a")
    clock.advance(1000)
    await asyncio.sleep(0.03)
    refused = room.turn_away("a")
    assert refused is not None
    assert refused.retry_after_s == MOST_WAIT_S
    await cancel(tasks)


async def ends(clock: FakeClock, entering: Coroutine[Any, Any, None], after_s: float) -> BaseException | None:
    task = asyncio.create_task(entering)
    await asyncio.sleep(0.02)
    clock.advance(after_s)
    await asyncio.wait({task}, timeout=5)
    return task.exception()


async def test_who_stands_in_line_too_long_is_told_to_come_back() -> None:
    clock = FakeClock()
    room = room_of(clock, max_wait_s=5)
    room.try_enter()
    assert isinstance(await ends(clock, room.enter("a", FAR_S), after_s=6), Overloaded)
    assert (room.queued, room.in_work) == (0, 1)


async def test_the_wait_counts_against_the_calls_own_time() -> None:
    clock = FakeClock()
    room = room_of(clock, max_wait_s=50)
    room.try_enter()
    assert isinstance(await ends(clock, room.enter("a", clock.now_s() + 1), after_s=2), DeadlineExceeded)


async def test_who_leaves_the_line_frees_the_place_in_it() -> None:
    room = room_of(FakeClock())
    room.try_enter()
    first, second = await waiting(room, "a", "b")
    await cancel([first])
    assert room.queued == 1
    room.leave()
    await second
    assert room.in_work == 1


async def test_who_leaves_in_the_moment_of_entering_gives_the_place_back() -> None:
    room = room_of(FakeClock())
    room.try_enter()
    first, second = await waiting(room, "a", "a")
    room.leave()  # lets the first in, which has not run yet
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert room.in_work == 0
    await second  # at the next look
    assert room.in_work == 1


async def test_an_empty_room_looks_at_the_loop_no_more() -> None:
    room = room_of(FakeClock())
    room.try_enter()
    room.leave()
    await until(lambda: room._timer is None)


async def test_a_queue_that_no_longer_empties_is_kept_short() -> None:
    """A burst may wait in a long line; with a steady overload every call would wait as long as that line is."""
    clock = FakeClock()
    room = room_of(clock, max_queue=200, max_wait_s=4)
    room.try_enter()
    tasks = await waiting(room, *["a"] * 150)
    for _ in range(15):  # 48 a second enter, as many come: it stays as long as it is
        clock.advance(0.25)
        for _ in range(12):
            room.leave()
        await asyncio.sleep(0.02)
        assert room.turn_away("a") is None
        tasks += await waiting(room, *["a"] * 12)
    clock.advance(0.3)
    assert room.queued > LEAST
    assert room.turn_away("a") is not None
    await cancel(tasks)
