"""When bytes are written to a client, and when one that does not read is hung up on."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from conclave.gateway.corked import Corked
from conclave.gateway.serve import Connection, bind

LOOK_S = 0.1
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Wire:
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
def wire() -> Wire:
    return Wire()


def corked_over(wire: Wire) -> Corked:
    return Corked(cast(asyncio.Transport, wire), asyncio.get_running_loop(), unread_s=LOOK_S, least_bytes=100)


async def looks(count: int) -> None:
    """Until this many were taken, and one was that only notes what the client had taken by then."""
    await asyncio.sleep((count + 0.5) * LOOK_S)


async def test_what_is_written_in_one_turn_of_the_loop_leaves_in_one_write(wire: Wire) -> None:
    corked = corked_over(wire)
    corked.write(b"head")
    corked.write(b"body")
    assert wire.written == []
    await asyncio.sleep(0)
    corked.write(b"more")
    await asyncio.sleep(0)
    assert wire.written == [b"headbody", b"more"]


async def test_what_waits_is_written_before_the_connection_closes_and_nothing_after(wire: Wire) -> None:
    corked = corked_over(wire)
    corked.write(b"last")
    corked.close()
    corked.write(b"too late")
    await asyncio.sleep(0)
    assert (wire.written, wire.closed) == ([b"last"], True)
    corked.forget()


async def test_an_answer_that_nobody_reads_ends_the_connection(wire: Wire) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.must_be_read()
    await looks(2)
    assert wire.aborted


async def test_a_connection_that_is_to_close_waits_no_longer_either(wire: Wire) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.close()
    await looks(2)
    assert wire.aborted


async def test_an_answer_that_is_read_step_by_step_does_not(wire: Wire) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.must_be_read()
    await asyncio.sleep(0)
    while wire.unread:
        wire.unread -= 100
        await asyncio.sleep(LOOK_S / 4)
        assert not wire.aborted
    await looks(2)
    assert not wire.aborted


async def test_the_rest_of_an_answer_may_be_less_than_a_step(wire: Wire) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 150)
    corked.must_be_read()
    await asyncio.sleep(0)
    wire.unread = 50
    await looks(0)
    wire.unread = 0
    await looks(2)
    assert not wire.aborted


async def test_an_answer_in_the_making_is_for_others_to_time(wire: Wire) -> None:
    """The one before it was read; of a stream, what comes may wait as long as the call may."""
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.must_be_read()
    corked.write(b"y" * 50)
    await asyncio.sleep(0)
    wire.unread = 50
    await looks(4)
    assert not wire.aborted


async def test_who_reads_too_little_is_hung_up_on(wire: Wire) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.must_be_read()
    await looks(0)
    wire.unread -= 50
    await looks(1)
    assert wire.aborted


async def test_the_next_answer_has_its_time_although_the_last_one_is_still_looked_after(wire: Wire) -> None:
    corked = corked_over(wire)
    corked.write(b"x")
    corked.must_be_read()
    await asyncio.sleep(0.9 * LOOK_S)  # the next look is due at 1.1
    wire.unread = 0
    corked.write(b"x" * 1000)
    corked.must_be_read()
    await asyncio.sleep(0.5 * LOOK_S)
    assert not wire.aborted
    await looks(1)
    assert wire.aborted


async def test_a_connection_that_was_lost_is_not_looked_at(wire: Wire) -> None:
    corked = corked_over(wire)
    corked.write(b"x" * 1000)
    corked.must_be_read()
    corked.forget()
    await looks(2)
    assert not wire.aborted


class UnreadConnection(Connection):
    unread_s = 0.3
    least_bytes = 64_000


LARGE = 2_000_000
SMALL_BUFFER = 8192  # of the sockets, so that what a client takes shows at once


@contextlib.asynccontextmanager
async def giving(*, whole: bool) -> AsyncIterator[tuple[socket.socket, ServerState]]:
    """A client of a server that gives 2 MB, or breaks off there, as it does when a call is cancelled."""

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * LARGE, "more_body": not whole})

    config = Config(app, lifespan="off", ws="none", log_config=None)
    config.load()
    state, loop, door = ServerState(), asyncio.get_running_loop(), bind("127.0.0.1", 0, option="--port")
    door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    server = await loop.create_server(
        lambda: UnreadConnection(config=config, server_state=state, app_state={}), sock=door
    )
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    client.setblocking(False)
    try:
        async with asyncio.timeout(10):
            await loop.sock_connect(client, door.getsockname())
            yield client, state
    finally:
        client.close()
        server.close()
        await server.wait_closed()


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110  uvicorn counts, and tells nobody
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut"])
@pytest.mark.parametrize("last", [b"", b"connection: close\r\n"], ids=["keep-alive", "close"])
async def test_a_client_that_does_not_read_its_answer_is_hung_up_on(*, whole: bool, last: bytes) -> None:
    """It would be kept in memory for as long as the client likes."""
    async with giving(whole=whole) as (client, state):
        await asyncio.get_running_loop().sock_sendall(client, REQUEST[:-2] + last + b"\r\n")
        await until(lambda: bool(state.connections))
        await until(lambda: not state.connections)


async def test_a_client_that_reads_slowly_gets_all_of_its_answer() -> None:
    """At 1 MB/s or so: several looks long."""
    async with giving(whole=True) as (client, _):
        loop, size, begun = asyncio.get_running_loop(), 0, time.monotonic()
        await loop.sock_sendall(client, REQUEST)
        while size < LARGE:
            data = await loop.sock_recv(client, 65536)
            assert data, size
            size += len(data)
            await asyncio.sleep(size / 1_000_000 - (time.monotonic() - begun))
        assert time.monotonic() - begun > 4 * UnreadConnection.unread_s
