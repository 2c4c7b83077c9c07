"""A request that is refused by its head: what its client sees, and what becomes of the connection."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from conclave.gateway.api.headers import Headers
from conclave.gateway.connection import Connection

BODY = b'{"error":"no place"}'


@dataclass
class Answer:
    """A refusal of the turnstile below."""

    def whole(self, *, last: bool) -> bytes:
        close = b"connection: close\r\n" if last else b""
        return b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: %d\r\n%b\r\n%b" % (len(BODY), close, BODY)


@dataclass
class Turnstile:
    """Refuses what comes to `/call` while it is closed; without a key nobody is refused here."""

    closed: bool = True
    stopped: int = 0

    def stops(self, path: bytes, fields: Headers) -> Answer | None:
        if path != b"/call" or b"authorization" not in dict(fields):
            return None
        self.stopped += 1
        return Answer()


@dataclass
class Door:
    """A server whose connections have a turnstile; its application answers `ok`, `/slow` only when it is told to."""

    turnstile: Turnstile = field(default_factory=Turnstile)
    served: list[str] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    state: ServerState = field(default_factory=ServerState)
    port: int = 0
    connections: type[Connection] = Connection

    async def app(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        self.served.append(scope["path"])
        self.began.set()
        if scope["path"] == "/slow":
            await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """Its connections give 0.2 s for a head, and 0.2 s or 1 MB for the rest of a body that nobody wants."""
    door = Door()
    door.connections = type(
        "Hasty", (Connection,), {"turnstile": door.turnstile, "head_s": 0.2, "drain_s": 0.2, "drain_bytes": 1_000_000}
    )
    config = Config(door.app, interface="asgi3", lifespan="off", ws="none", log_config=None, timeout_keep_alive=1)
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: door.connections(config=config, server_state=door.state, app_state={}), "127.0.0.1", 0
    )
    door.port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(10):
        yield door
    door.go_on.set()
    server.close()
    for connection in list(door.state.connections):
        connection.shutdown()
    await server.wait_closed()


def post(path: bytes = b"/call", body: bytes = b"{}", *more: bytes, version: bytes = b"1.1") -> bytes:
    lines = (b"POST %b HTTP/%b" % (path, version), b"host: x", b"authorization: Bearer k", *more)
    return b"\r\n".join((*lines, b"content-length: %d" % len(body), b"", body))


def statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


async def told(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(BODY)


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What comes until the connection ends."""
    answers = await reader.read()
    writer.close()
    return answers


LAST = post(b"/other", b"{}", b"connection: close")


async def test_it_is_told_by_its_head_and_the_application_hears_nothing_of_it(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(post(body=b"x" * 100_000)[:200])
    assert statuses(await told(reader)) == [429]
    assert (door.served, door.turnstile.stopped, door.state.total_requests) == ([], 1, 1)
    assert door.state.tasks == set()
    writer.close()


async def test_the_connection_is_kept_and_serves_again_when_there_is_a_place(door: Door) -> None:
    reader, writer = await door.connect()
    for _ in range(3):
        writer.write(post())
        assert b"connection: close" not in await told(reader)
    await asyncio.sleep(0.15)
    await asyncio.sleep(0.15)  # together more than the time for a head: the connection is idle, not late
    door.turnstile.closed = False
    writer.write(post())
    assert b"200 OK" in await reader.readuntil(b"ok")
    writer.write(LAST)
    assert statuses(await ended(reader, writer)) == [200]
    assert door.served == ["/call", "/other"]


@pytest.mark.parametrize("how", ["the body in pieces", "head and body apart", "chunked"])
async def test_a_body_that_comes_later_is_read_away(door: Door, how: str) -> None:
    reader, writer = await door.connect()
    for _ in range(2):
        if how == "chunked":
            whole = post(b"/call", b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
            pieces = [whole, b"3\r\nabc\r\n", b"0\r\n\r\n"]
        else:
            head, gap, body = post(body=b"x" * 200_000).partition(b"\r\n\r\n")
            cut = 1_000 if how == "the body in pieces" else 0
            pieces = [head + gap + body[:cut], body[cut:100_000], body[100_000:]]
        writer.write(pieces[0])
        assert statuses(await told(reader)) == [429]
        for piece in pieces[1:]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)
    writer.write(LAST)
    assert statuses(await ended(reader, writer)) == [200]


async def test_requests_behind_it_in_the_same_bytes_are_answered_in_order(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(post() + post(b"/other") + post() + post() + LAST)
    assert statuses(await ended(reader, writer)) == [429, 200, 200, 200, 200]  # behind one in work it waits its turn
    assert door.served == ["/other", "/call", "/call", "/other"]


async def test_two_in_the_same_bytes_are_both_told(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(post() + post() + LAST)
    assert statuses(await ended(reader, writer)) == [429, 429, 200]


async def test_it_never_overtakes_an_answer_that_is_still_to_come(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(post(b"/slow"))
    await door.began.wait()
    writer.write(post())
    await asyncio.sleep(0.05)
    assert door.turnstile.stopped == 0
    door.go_on.set()
    writer.write(LAST)
    assert statuses(await ended(reader, writer)) == [200, 200, 200]


async def test_a_client_that_wants_to_close_is_closed(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(post(b"/call", b"{}", b"connection: close"))
    answer = await ended(reader, writer)
    assert (statuses(answer), b"connection: close" in answer) == ([429], True)


async def test_one_that_wants_to_close_and_still_sends_is_closed_after_its_body(door: Door) -> None:
    """At once, it would be a reset: the client would never see the answer."""
    reader, writer = await door.connect()
    whole = post(b"/call", b"x" * 300_000, b"connection: close")
    writer.write(whole[:1_000])
    assert statuses(await told(reader)) == [429]
    await asyncio.sleep(0.05)
    assert not reader.at_eof()
    writer.write(whole[1_000:])
    assert await ended(reader, writer) == b""


@pytest.mark.parametrize("more", [(), (b"connection: keep-alive",)], ids=["plain", "asks to be kept"])
async def test_http_1_0_gets_the_answer_and_the_end(door: Door, more: tuple[bytes, ...]) -> None:
    reader, writer = await door.connect()
    writer.write(post(b"/call", b"{}", *more, version=b"1.0"))
    answer = await ended(reader, writer)
    assert (statuses(answer), b"connection: close" in answer) == ([429], True)


async def test_who_asks_before_sending_is_not_told_to_go_on(door: Door) -> None:
    """It has its answer, and may send the body or not: then it is hung up on after the time for that."""
    reader, writer = await door.connect()
    head, gap, body = post(b"/call", b"x" * 5_000, b"expect: 100-continue").partition(b"\r\n\r\n")
    writer.write(head + gap)
    assert statuses(await told(reader)) == [429]
    writer.write(body + post())
    assert statuses(await told(reader)) == [429]
    writer.write(head + gap)
    assert statuses(await ended(reader, writer)) == [429]


@pytest.mark.parametrize(
    ("head", "body"),
    [(post(body=b"x" * 9_000)[:300], b"x"), (post(body=b"x" * 3_000_000)[:300], b"x" * 2_000_000)],
    ids=["too slow", "too long"],
)
async def test_a_body_that_cannot_be_read_away_is_hung_up_on(door: Door, head: bytes, body: bytes) -> None:
    reader, writer = await door.connect()
    writer.write(head)
    assert statuses(await told(reader)) == [429]
    writer.write(body)
    try:
        assert await ended(reader, writer) == b""
    except ConnectionError:
        writer.close()


async def test_a_malformed_request_behind_it_ends_the_connection(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(post() + b"no HTTP\r\n\r\n")
    assert statuses(await ended(reader, writer)) == [429, 400]


async def test_a_head_that_never_ends_behind_it_is_late(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(post())
    await told(reader)
    writer.write(b"POST /call HT")
    assert statuses(await ended(reader, writer)) == [408]


@pytest.mark.parametrize(
    "request_",
    [
        post(b"/call?x=1"),
        post(b"/%63all"),
        post().replace(b"POST", b"GET"),
        post().replace(b"authorization", b"x-other"),
    ],
    ids=["a query", "an escape", "another method", "no key"],
)
async def test_all_else_goes_the_usual_way(door: Door, request_: bytes) -> None:
    reader, writer = await door.connect()
    writer.write(request_)
    assert statuses(await reader.readuntil(b"ok")) == [200]
    writer.close()


async def test_while_the_process_is_to_end_it_is_the_last_answer_of_its_connection(door: Door) -> None:
    door.connections.parting = True
    reader, writer = await door.connect()
    writer.write(post())
    answer = await ended(reader, writer)
    assert (statuses(answer), b"connection: close" in answer) == ([429], True)


async def test_a_body_that_nobody_wants_does_not_hold_up_the_end(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(post(body=b"x" * 9_000)[:300])
    await told(reader)
    (connection,) = door.state.connections
    connection.shutdown()
    assert await ended(reader, writer) == b""


async def test_who_reads_no_refusal_is_not_answered_for_ever(door: Door) -> None:
    """Then requests wait like any other whose client does not read: what is unread stays bounded."""
    reader, writer = await door.connect()
    sent = 0
    while sent < 200_000:
        writer.write(post() * 500)
        sent += 500
        try:
            await asyncio.wait_for(writer.drain(), 0.2)
        except TimeoutError:
            break
    (connection,) = door.state.connections
    assert connection.transport.get_write_buffer_size() < 2_000_000
    assert door.turnstile.stopped < sent
    writer.transport.abort()
    reader.feed_eof()
