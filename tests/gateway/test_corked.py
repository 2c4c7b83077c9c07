"""When bytes are written to a client, and when one that does not read is hung up on."""

import asyncio
from typing import cast

import pytest

from conclave.gateway.corked import Corked

LOOK_S = 0.02


class Socket:
    """A transport that notes what it was told to write; its client takes as much as it is told to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = self.aborted = False
        self.unread = 0

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)
        self.unread += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def wire() -> Socket:
    return Socket()


def corked_over(wire: Socket) -> Corked:
    return Corked(cast(asyncio.Transport, wire), asyncio.get_running_loop(), unread_s=LOOK_S, least_bytes=100)


async def looks(count: int) -> None:
    """Until this many more looks were taken."""
    await asyncio.sleep((count + 0.5) * LOOK_S)


async def test_what_is_written_in_one_turn_of_the_loop_leaves_in_one_write(wire: Socket) -> None:
    corked = corked_over(wire)
    corked.write(b"head")
    corked.write(b"body")
    assert wire.written == []
    await asyncio.sleep(0)
    corked.write(b"more")
    await asyncio.sleep(0)
    assert wire.written == [b"headbody", b"more"]


async def test_what_waits_is_written_before_the_connection_closes_and_nothing_after(wire: Socket) -> None:
    corked = corked_over(wire)
    corked.write(b"last")
    corked.close()
    corked.write(b"too late")
    await asyncio.sleep(0)
    assert (wire.written, wire.closed) == ([b"last"], True)
    corked.forget()


async def test_an_answer_that_nobody_reads_ends_the_connection(wire: Socket) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.must_be_read()
    await looks(3)
    assert wire.aborted


async def test_a_connection_that_is_to_close_waits_no_longer_either(wire: Socket) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.close()
    await looks(3)
    assert wire.aborted


async def test_an_answer_that_is_read_step_by_step_does_not(wire: Socket) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.must_be_read()
    await asyncio.sleep(0)
    while wire.unread:
        wire.unread -= 100
        await asyncio.sleep(LOOK_S / 2)
        assert not wire.aborted
    await looks(2)
    assert not wire.aborted


async def test_the_rest_of_an_answer_may_be_less_than_a_step(wire: Socket) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 150)
    corked.must_be_read()
    await looks(1)
    wire.unread = 0
    await looks(3)
    assert not wire.aborted


async def test_an_answer_in_the_making_is_for_others_to_time(wire: Socket) -> None:
    """The one before it was read; of a stream, what comes may wait as long as the call may."""
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.must_be_read()
    corked.write(b"y" * 50)
    await asyncio.sleep(0)
    wire.unread = 50
    await looks(4)
    assert not wire.aborted


async def test_who_reads_too_little_is_hung_up_on(wire: Socket) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.must_be_read()
    await looks(1)
    wire.unread -= 50
    await looks(1)
    assert wire.aborted


async def test_a_connection_that_was_lost_is_not_looked_at(wire: Socket) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.must_be_read()
    corked.forget()
    await looks(3)
    assert not wire.aborted
