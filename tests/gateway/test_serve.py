import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from uvicorn.config import Config
from uvicorn.server import ServerState

from conclave.gateway.connection import Connection
from conclave.gateway.serve import Bound, Doors, PortTakenError, Server, bind, url_of


@dataclass
class Seen:
    """What the tiny application went through."""

    events: list[str] = field(default_factory=list)
    streaming: asyncio.Event = field(default_factory=asyncio.Event)
    finish: asyncio.Event = field(default_factory=asyncio.Event)


def tiny_app(seen: Seen) -> Starlette:
    """A data plane with a stream that goes on until `seen.finish`, and a control plane that tells of readiness."""

    async def plain(request: Request) -> JSONResponse:
        return JSONResponse({"ok": True})

    async def stream(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"first\n"
                seen.streaming.set()
                await seen.finish.wait()
                yield b"last\n"
            finally:
                seen.events.append("stream closed")

        return StreamingResponse(pieces())

    async def readyz(request: Request) -> JSONResponse:
        draining = request.app.state.data.state.draining
        return JSONResponse({}, 503 if draining else 200)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.admin = Starlette(routes=[Route("/readyz", readyz)])
        app.state.admin.state.data = app
        seen.events.append("open")
        yield
        seen.events.append("closed")

    return Starlette(routes=[Route("/", plain), Route("/stream", stream)], lifespan=lifespan)


@dataclass
class Running:
    server: Server
    task: asyncio.Task[None]
    bound: Bound
    seen: Seen

    async def connect(self, *, admin: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.bound.admin_port if admin else self.bound.port)

    async def get(self, path: str, *, admin: bool = False) -> bytes:
        reader, writer = await self.connect(admin=admin)
        writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path.encode())
        answer = await reader.read()
        writer.close()
        return answer


@contextlib.asynccontextmanager
async def running(*, grace_s: float = 5.0, drain_delay_s: float = 0.0) -> AsyncIterator[Running]:
    seen, up = Seen(), asyncio.get_running_loop().create_future()
    doors = Doors(
        host="127.0.0.1", port=0, admin_host="127.0.0.1", admin_port=0, grace_s=grace_s, drain_delay_s=drain_delay_s
    )
    server = Server(tiny_app(seen), doors, announce=up.set_result)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        yield Running(server, task, await up, seen)
        seen.finish.set()
        server.stop()
        await task


async def until_refused(gateway: Running) -> None:
    """Connect until nobody listens any more: uvicorn looks at its flag ten times a second."""
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            with contextlib.suppress(ConnectionResetError):  # it waited in the kernel's line when the door was closed
                (await gateway.connect())[1].close()
            await asyncio.sleep(0.01)


async def test_both_planes_answer_and_the_lifespan_surrounds_them() -> None:
    async with running() as gateway:
        assert b"200 OK" in await gateway.get("/")
        assert b"200 OK" in await gateway.get("/readyz", admin=True)
        assert gateway.seen.events == ["open"]
    assert gateway.seen.events == ["open", "closed"]


async def test_garbage_that_nobody_looked_for_at_the_start_is_looked_for_while_it_serves() -> None:
    gc.disable()
    async with running():
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0


async def test_no_answer_names_the_server() -> None:
    async with running() as gateway:
        assert b"\r\nserver:" not in (await gateway.get("/")).lower()


async def test_a_running_stream_finishes_while_the_gateway_drains() -> None:
    """Readiness fails at once, nobody new is let in, and who is being served gets the rest."""
    async with running() as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        await gateway.seen.streaming.wait()
        gateway.server.stop()
        while b"503" not in await gateway.get("/readyz", admin=True):
            pass
        await until_refused(gateway)
        gateway.seen.finish.set()
        assert (await reader.read()).endswith(b"last\n\r\n0\r\n\r\n")
        await gateway.task
        writer.close()
    assert gateway.seen.events == ["open", "stream closed", "closed"]


async def test_a_stream_that_hangs_is_cut_within_the_grace_time() -> None:
    """And its cleaning up (the record) is over before the lifespan closes."""
    async with running(grace_s=1.0) as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        await gateway.seen.streaming.wait()
        begun = time.monotonic()
        gateway.server.stop()
        await gateway.task
        assert time.monotonic() - begun < 1.5
        assert b"last" not in await reader.read()
        writer.close()
        assert gateway.seen.events == ["open", "stream closed", "closed"]


async def test_a_second_stop_cuts_at_once() -> None:
    async with running(grace_s=60) as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        await gateway.seen.streaming.wait()
        gateway.server.stop()
        await asyncio.sleep(0)
        gateway.server.stop()
        async with asyncio.timeout(5):
            await gateway.task
        await reader.read()
        writer.close()
    assert gateway.seen.events == ["open", "stream closed", "closed"]


async def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    async with running(grace_s=60) as gateway:
        idle = await gateway.connect()
        begun = time.monotonic()
        gateway.server.stop()
        await gateway.task
        assert time.monotonic() - begun < 5
        idle[1].close()


async def test_for_the_delay_new_calls_are_served_and_each_answer_sends_its_client_elsewhere() -> None:
    """A load balancer looks now and then: readiness fails at once, and whom it still sends is not turned away."""
    async with running(grace_s=60, drain_delay_s=60) as gateway:
        reader, writer = await gateway.connect()
        writer.write(REQUEST)
        assert b"connection: close" not in await reader.readuntil(b"}")
        gateway.server.stop()
        assert b"503" in await gateway.get("/readyz", admin=True)
        writer.write(REQUEST)  # on a connection that was kept
        assert b"connection: close" in await reader.read()
        fresh, other = await gateway.connect()
        other.write(REQUEST)
        answer = await fresh.read()
        assert b"200 OK" in answer
        assert b"connection: close" in answer
        gateway.server.stop()  # a second signal ends the delay
        await gateway.task
        with pytest.raises(ConnectionRefusedError):
            await gateway.connect()
        writer.close()
        other.close()


async def test_after_the_delay_nobody_new_is_let_in_and_idle_connections_are_closed() -> None:
    async with running(grace_s=60, drain_delay_s=0.1) as gateway:
        reader, writer = await gateway.connect()
        writer.write(REQUEST)
        await reader.readuntil(b"}")
        gateway.server.stop()
        assert await reader.read() == b""
        await gateway.task
        with pytest.raises(ConnectionRefusedError):
            await gateway.connect()
        writer.close()


async def test_many_connections_are_taken_at_once() -> None:
    """uvloop alone takes one a turn of the loop; who is not taken cannot be told to come back later."""
    async with running() as gateway:
        pairs = await asyncio.gather(*(gateway.connect() for _ in range(200)))
        for _, writer in pairs:
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answers = await asyncio.gather(*(reader.read() for reader, _ in pairs))
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
        for _, writer in pairs:
            writer.close()


def test_a_taken_port_is_said_before_anything_is_opened() -> None:
    seen = Seen()
    with bind("127.0.0.1", 0, option="--port") as taken:
        port = taken.getsockname()[1]
        doors = Doors(host="127.0.0.1", port=port, admin_host="127.0.0.1", admin_port=0, grace_s=1)
        with pytest.raises(PortTakenError, match=f"port {port} on 127.0.0.1 is in use.*--port"):
            asyncio.run(Server(tiny_app(seen), doors, announce=print).serve())
    assert seen.events == []


def test_an_address_of_no_machine_is_said_too() -> None:
    with pytest.raises(PortTakenError, match=r"no address|cannot listen"):
        bind("203.0.113.7", 0, option="--port")


SERVE = """
import contextlib
from starlette.applications import Starlette
from conclave.gateway.serve import Doors, Server

@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.admin = Starlette()
    yield
    print("closed", flush=True)

doors = Doors(host="127.0.0.1", port=0, admin_host="127.0.0.1", admin_port=0, grace_s=5)
Server(Starlette(lifespan=lifespan), doors, announce=lambda bound: print("up", flush=True)).run()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_process_with_0(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.kill(process.pid, number)
        assert process.wait(timeout=20) == 0
        assert "closed" in process.stdout.read()


class HastyConnection(Connection):
    head_s = 0.1
    drain_s = 0.3
    drain_bytes = 1_000_000


@pytest.fixture
async def hasty() -> AsyncIterator[int]:
    """The port of a server whose connections have 0.1 s for a request's head; it refuses a POST before its body."""

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        status = 401 if scope["method"] == "POST" else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = Config(app, lifespan="off", ws="none", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: HastyConnection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    yield server.sockets[0].getsockname()[1]
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    await server.wait_closed()


REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"GET / HT", b"408"),
        (REQUEST[:-2], b"408"),
        (b"\r\n", b"408"),
    ],
    ids=["nothing", "half a line", "no end", "an empty line"],
)
async def test_a_connection_without_a_whole_head_is_closed_in_time(hasty: int, sent: bytes, answer: bytes) -> None:
    """Slow-loris: a connection is not held by sending next to nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    writer.write(sent)
    async with asyncio.timeout(5):
        assert answer in await reader.read()
    writer.close()


async def test_sending_a_header_now_and_then_does_not_help(hasty: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    writer.write(b"GET / HTTP/1.1\r\n")
    async with asyncio.timeout(5):
        read = asyncio.create_task(reader.read())
        while not read.done():
            writer.write(b"x: y\r\n")
            await asyncio.sleep(0.02)
    assert b"408" in read.result()
    writer.close()


async def test_an_empty_line_after_an_answer_does_not_hold_the_connection(hasty: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    writer.write(REQUEST)
    await reader.readuntil(b"ok")
    writer.write(b"\r\n")
    async with asyncio.timeout(5):
        await reader.read()
    writer.close()


async def test_a_kept_connection_serves_again_after_more_than_the_time_for_a_head(hasty: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    for _ in range(2):
        writer.write(REQUEST)
        async with asyncio.timeout(5):
            await reader.readuntil(b"ok")
        await asyncio.sleep(0.15)
    writer.close()


async def test_a_head_without_end_is_refused(hasty: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    writer.write(b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 70_000)
    async with asyncio.timeout(5):
        assert b"431" in await reader.read()
    writer.close()


async def test_what_is_no_http_gets_an_envelope(hasty: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'{"error":{"message":' in answer
    writer.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET / HT", b"408"), (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, b"431"), (b"\x16\x03\x01\r\n\r\n", b"400")],
    ids=["408", "431", "400"],
)
async def test_the_connections_own_answers_have_an_id_and_are_not_to_be_retried(
    hasty: int, sent: bytes, status: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    writer.write(sent)
    async with asyncio.timeout(5):
        head = (await reader.read()).split(b"\r\n\r\n")[0].split(b"\r\n")
    assert status in head[0]
    assert b"x-should-retry: false" in head
    assert any(line.startswith(b"x-request-id: req_") for line in head)
    writer.close()


def post(size: int, *more: bytes) -> bytes:
    lines = (b"POST / HTTP/1.1", b"host: x", b"content-length: %d" % size, *more)
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def send_slowly(writer: asyncio.StreamWriter, size: int) -> None:
    """In five pieces, over more time than a head may take."""
    for _ in range(5):
        await asyncio.sleep(0.03)
        writer.write(b"x" * (size // 5))
        await writer.drain()


async def test_a_refusal_before_the_body_is_the_only_answer_and_the_connection_goes_on(hasty: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    async with asyncio.timeout(5):
        for _ in range(2):
            writer.write(post(200_000))
            await send_slowly(writer, 200_000)
        writer.write(REQUEST[:-2] + b"connection: close\r\n\r\n")
        answers = await reader.read()
    assert [line for line in answers.split(b"\r\n") if b"HTTP/1.1" in line] == [
        b"HTTP/1.1 401 Unauthorized",
        b"okHTTP/1.1 401 Unauthorized",
        b"okHTTP/1.1 200 OK",
    ]
    writer.close()


async def test_a_connection_that_is_to_close_closes_after_the_body(hasty: int) -> None:
    """At once, it would be a reset: the client is still sending, and would never see the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    writer.write(post(200_000, b"connection: close"))
    async with asyncio.timeout(5):
        await send_slowly(writer, 200_000)
        answer = await reader.read()
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"ok")
    writer.close()


@pytest.mark.parametrize(
    ("head", "body"),
    [(post(200_000), b"x"), (post(3_000_000), b"x" * 2_999_999), (post(10, b"transfer-encoding: chunked"), b"zz\r\n")],
    ids=["too slow", "too long", "malformed"],
)
async def test_a_body_that_cannot_be_read_away_is_hung_up_on_without_a_second_answer(
    hasty: int, head: bytes, body: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    writer.write(head.replace(b"content-length: 10\r\n", b""))
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"ok")
        writer.write(body)
        with contextlib.suppress(ConnectionError):
            answer += await reader.read()
    assert answer.count(b"HTTP/1.1") == 1
    writer.close()


async def test_a_body_that_nobody_wants_does_not_hold_up_the_end() -> None:
    async with running(grace_s=60) as gateway:
        reader, writer = await gateway.connect()
        writer.write(post(200_000))
        await reader.readuntil(b"\r\n\r\n")
        begun = time.monotonic()
        gateway.server.stop()
        await gateway.task
        assert time.monotonic() - begun < 5
        writer.close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),  # noqa: S104  only shown
        ("::1", "http://[::1]:1"),
        ("::", "http://[::1]:1"),
        ("gateway", "http://gateway:1"),
    ],
)
def test_the_url_that_is_shown_can_be_called(host: str, url: str) -> None:
    assert url_of(host, 1) == url
