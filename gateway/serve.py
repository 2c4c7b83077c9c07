"""Runs the two planes in one event loop, from the first bind to the last byte. It decides nothing about a call.

Start: both ports are bound before anything is opened, so that a taken one is said at once. Stop (SIGTERM, SIGINT):
readiness fails at once; for the delay new calls are still served, each answer asking its client to connect elsewhere;
then the data plane accepts nobody new and closes idle connections, running answers may finish within the grace time,
what is left is cut and recorded, then the control plane and the lifespan close. A second signal cuts at once.

uvicorn has no limit on how long a request's head may take (0.54: `timeout_keep_alive` ends with its first byte), so
`Connection` adds one, and one on its size.
"""

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from conclave.gateway.api import headers
from conclave.gateway.corked import LEAST_BYTES, UNREAD_S, Corked
from conclave.gateway.errors import Refused

KEEP_ALIVE_S: Final = 75  # longer than clients keep an idle connection, so that they close it, not we
BACKLOG: Final = 2048
ACCEPTS: Final = 128  # new connections in one turn of the event loop
HEAD_BYTES: Final = 64 * 1024
CLOSING_S: Final = 2.0  # of the grace time, kept for cutting what is left, its records, and closing

GC_THRESHOLDS: Final = (20_000, 20, 20)  # Python's 700, 10, 10 means a collection with every call

log = structlog.get_logger()


class PortTakenError(Exception):
    """An address cannot be listened on; the message says which and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Where the planes listen, how long running answers may take to finish, and when that time begins. Port 0: any."""

    host: str
    port: int
    admin_host: str
    admin_port: int
    grace_s: float
    drain_delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Bound:
    """The ports that were really taken."""

    port: int
    admin_port: int


class Server:
    """Serves `app`, and `app.state.admin` once the lifespan has set it. `app.state.draining` says when it stops."""

    def __init__(self, app: Starlette, doors: Doors, *, announce: Callable[[Bound], None]) -> None:
        self._app = app
        self._doors = doors
        self._announce = announce
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._data: _Plane | None = None

    def run(self) -> None:
        """Serve until a signal comes. Raises PortTakenError, and whatever the lifespan raises at start."""
        with asyncio.Runner(loop_factory=Config(self._app, log_config=None).get_loop_factory()) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self.serve()

    def stop(self) -> None:
        """Begin to stop; called again, cut what still runs."""
        if self._stop.is_set() and self._data is not None:
            self._data.force_exit = True
            self._stop_now.set()
        self._stop.set()

    async def serve(self) -> None:
        """Serve until `stop`."""
        doors, self._app.state.draining = self._doors, False
        with (
            bind(doors.host, doors.port, option="--port") as door,
            bind(doors.admin_host, doors.admin_port, option="--admin-port") as admin_door,
        ):
            bound = Bound(door.getsockname()[1], admin_door.getsockname()[1])
            async with lifespan_of(self._app):
                closing_s = min(CLOSING_S, doors.grace_s / 2)
                self._data = _Plane(self._app, grace_s=doors.grace_s - closing_s, settle_s=closing_s / 2)
                admin = _Plane(self._app.state.admin, grace_s=closing_s / 4, settle_s=closing_s / 4)
                async with admin.open(admin_door), self._data.open(door):
                    _settle_heap()
                    self._announce(bound)
                    await self._stop.wait()
                    self._app.state.draining = True
                    self._data.part()
                    log.info(
                        "gateway.draining",
                        calls=len(self._data.server_state.tasks),
                        delay_s=doors.drain_delay_s,
                        grace_s=doors.grace_s,
                    )
                    await self._delay(doors.drain_delay_s)
        log.info("gateway.stopped")

    async def _delay(self, seconds: float) -> None:
        """Load balancers look now and then: until they have seen that readiness fails, they go on sending calls."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop_now.wait(), seconds)


def _settle_heap() -> None:
    """What is loaded now stays, so collections need not look through it; a call's objects die without them.

    Measured at 16 calls at once: p99 65-70 ms with it, 100-110 ms without; the CPU a call differs by less than noise.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class _Plane(uvicorn.Server):
    """uvicorn's server, less its handling of signals and of the lifespan."""

    def __init__(self, app: ASGIApp, *, grace_s: float, settle_s: float) -> None:
        self._connections: type[Connection] = type("PlaneConnection", (Connection,), {})  # this plane's own
        config = Config(
            app,
            http=self._connections,
            ws="none",
            lifespan="off",
            access_log=False,  # a call's record says more
            server_header=False,
            proxy_headers=False,  # access/proxies.py says whose word counts
            log_config=None,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        config.timeout_graceful_shutdown = grace_s  # type: ignore[assignment]  # declared int, used as seconds
        super().__init__(config)
        self._up = asyncio.Event()
        self._acceptors: list[Acceptor] = []
        self._settle_s = settle_s

    def part(self) -> None:
        """From now on each answer is the last of its connection, and says so."""
        self._connections.parting = True

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator's there
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._acceptors = [Acceptor(one, self._connected) for one in sockets or ()]
        self._up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for one in self._acceptors:
            await one.aclose()
        await super().shutdown(sockets)

    def _connected(self) -> "Connection":
        return self._connections(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    @asynccontextmanager
    async def open(self, door: socket.socket) -> AsyncIterator[None]:
        """Accept connections within the block; at its end wait for the running answers, then cut them."""
        serving = asyncio.create_task(self.serve(sockets=[door]), name=f"port-{door.getsockname()[1]}")
        up = asyncio.create_task(self._up.wait())
        await asyncio.wait({serving, up}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # it never got up: raises why
        try:
            yield
        finally:
            up.cancel()
            self.should_exit = True
            await serving
            await self._settle()

    async def _settle(self) -> None:
        """uvicorn cancels what outlasts the grace time and does not look back; here each call gets to its record."""
        left = set(self.server_state.tasks)
        if self.force_exit:
            for task in left:
                task.cancel()
        if left:
            _, hanging = await asyncio.wait(left, timeout=self._settle_s)
            log.warning("gateway.calls_cut", calls=len(left), hanging=len(hanging))


class Acceptor:
    """Takes new connections as they come; uvloop takes one each turn of the event loop (as libuv does since 1.46).

    A turn takes milliseconds once there is work, and who is not taken waits in the kernel, for as long as it takes,
    where nobody can tell it that there is no room. Measured with 600 new connections a second, of which 240 could be
    served: without it two calls were in work while 800 connections waited, and nobody was refused.
    """

    def __init__(self, door: socket.socket, connected: Callable[[], asyncio.Protocol]) -> None:
        self._door = door.dup()
        self._door.setblocking(False)
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()
        self._loop.add_reader(self._door, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                accepted, _address = self._door.accept()
            except OSError:  # nobody waits any more; or it is gone, or there is no file left: uvloop sees to these
                return
            opening = self._loop.create_task(self._loop.connect_accepted_socket(self._connected, accepted))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def aclose(self) -> None:
        """Take no more; who was taken has a connection when this returns, and is told with the others."""
        self._loop.remove_reader(self._door)
        self._door.close()
        await asyncio.gather(*self._opening, return_exceptions=True)


class Untold(int):
    """The length of an answer that ends with its connection: no size is too much for it, and any end is its end."""

    def __lt__(self, size: object) -> bool:
        return False

    def __ne__(self, size: object) -> bool:
        return False

    def __sub__(self, size: int) -> "Untold":
        return self

    __hash__ = int.__hash__
    __eq__ = int.__eq__


class Connection(HttpToolsProtocol):
    """An HTTP/1.1 connection whose next request's head must be whole within `head_s`, and small.

    A refusal answers before its request's body is whole. The rest is read away, then the connection goes on (or closes,
    as was said); what does not end within `drain_s` and `drain_bytes` is hung up on, without a second answer.
    """

    head_s: ClassVar = 10.0
    drain_s: ClassVar = 30.0
    drain_bytes: ClassVar = 64 * 1024 * 1024
    unread_s: ClassVar = UNREAD_S
    least_bytes: ClassVar = LEAST_BYTES
    parting: ClassVar = False
    _late: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _drained_bytes = 0
    _in_body = False
    _closes = False
    _corked: Corked

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._corked = Corked(
            transport,
            self.loop,
            stays_open=self._stays_open,
            unread_s=self.unread_s,
            least_bytes=self.least_bytes,
        )
        self.transport = self._corked  # type: ignore[assignment]  # a transport to those who write
        self._late = self.loop.call_later(self.head_s, self._too_late)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_body = True
        if self.parser.get_http_version() == "1.0":  # it knows no chunks
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = Untold()
        if self.parting:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False
        if self._closes:
            self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._corked.must_be_read()
        if self._is_draining:
            self._unset_keepalive_if_required()
            self._drained_bytes = 0
            self._late = self.loop.call_later(self.drain_s, self._too_late)

    @property
    def _is_draining(self) -> bool:
        """Whether what comes in is the rest of a body whose answer is whole."""
        return self._in_body and self.cycle.response_complete

    def _stays_open(self) -> bool:
        """Asked when the connection is to be closed: not yet, while its client is still sending."""
        self._closes = self._is_draining
        return self._closes

    def data_received(self, data: bytes) -> None:
        draining = self._is_draining
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # a request is being served
            self._no_longer_late()
            return
        if draining:
            self._drained(len(data))
            return
        self._head_bytes += len(data)
        if self._late is None:
            self._late = self.loop.call_later(self.head_s, self._too_late)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large", "the request's headers are too large")

    def _drained(self, size: int) -> None:
        if not self._in_body:  # it is over, so the connection is kept as after any answer
            self._no_longer_late()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            return
        self._drained_bytes += size
        if self._drained_bytes > self.drain_bytes:
            self._hang_up()

    def _hang_up(self) -> None:
        self._in_body = False
        self.transport.close()

    def shutdown(self) -> None:
        """As uvicorn's, but the end of the process waits for no body that nobody wants."""
        if self._is_draining:
            self._hang_up()
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._no_longer_late()
        super().connection_lost(exc)
        self._corked.forget()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, in the form that clients of this API read."""
        self._refuse(b"400 Bad Request", msg)

    def _no_longer_late(self) -> None:
        self._head_bytes = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self.transport.is_closing():
            return
        if self._is_draining:
            self._hang_up()
        elif self._head_bytes:
            self._refuse(b"408 Request Timeout", "the request's headers did not arrive in time")
        else:
            self.transport.close()

    def _refuse(self, status: bytes, message: str) -> None:
        """Answer by itself and close; where an answer has begun, a second one would be read as part of it."""
        cycle = self.cycle
        begun = cycle is not None and cycle.response_started and (self._in_body or not cycle.response_complete)
        if not begun and not self.pipeline:
            error = Refused(message)
            body = msgspec.json.encode(error.envelope())
            about = [headers.PLAIN, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
            about += headers.request_headers(headers.new_id()) + headers.error_headers(error)
            lines = b"".join(b"%b: %b\r\n" % field for field in about)
            self.transport.write(b"HTTP/1.1 %b\r\n%b\r\n%b" % (status, lines, body))
        self._hang_up()


@asynccontextmanager
async def lifespan_of(app: ASGIApp) -> AsyncIterator[None]:
    """Open and close the application by the ASGI protocol, as uvicorn does, but let it raise what hinders its start."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    started = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            started.set()

    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    inbox.put_nowait({"type": "lifespan.startup"})
    task = asyncio.ensure_future(app(scope, inbox.get, send))
    up = asyncio.create_task(started.wait())
    try:
        await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            raise RuntimeError("the application ended its lifespan before it began")
        yield
    finally:
        up.cancel()
        inbox.put_nowait({"type": "lifespan.shutdown"})
        await task


def bind(host: str, port: int, *, option: str) -> socket.socket:
    """A listening socket. Raises PortTakenError, whose message names the `option` that chooses another."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise PortTakenError(f"{host} is no address of this machine: {error.strerror}") from error
    door = socket.socket(family, kind, protocol)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
        door.listen(BACKLOG)
    except OSError as error:
        door.close()
        raise PortTakenError(_why_not(error, host, port, option)) from error
    door.setblocking(False)
    return door


def _why_not(error: OSError, host: str, port: int, option: str) -> str:
    if isinstance(error, PermissionError):
        return f"port {port} needs more rights than this user has: choose one above 1023 with {option}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program: choose another with {option} (0 takes any)"
    return f"cannot listen on {host}:{port}: {error.strerror}"


def url_of(host: str, port: int) -> str:
    """The URL to show: an address that stands for all becomes one that can be called."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104  compared, not bound
    return f"http://[{shown}]:{port}" if ":" in shown and not shown.startswith("[") else f"http://{shown}:{port}"
