"""Runs the two planes in one event loop, from the first bind to the last byte. It decides nothing about a call.

Start: both ports are bound before anything is opened, so that a taken one is said at once. Stop (SIGTERM, SIGINT):
readiness fails at once; for the delay new calls are still served, each answer asking its client to connect elsewhere;
then the data plane accepts nobody new and closes idle connections, running answers may finish within the grace time,
what is left is cut and recorded, then the control plane and the lifespan close. A second signal cuts at once.
"""

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Scope
from uvicorn.config import Config

from conclave.gateway.connection import Connection, Turnstile

KEEP_ALIVE_S: Final = 75  # longer than clients keep an idle connection, so that they close it, not we
BACKLOG: Final = 2048
ACCEPTS: Final = 128  # new connections in one turn of the event loop
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
                self._data.pass_through(getattr(self._app.state, "turnstile", None))
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
    To collect first was tried: 0.2 s later ready, and not 0.1 MB less.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()


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

    def pass_through(self, turnstile: Turnstile | None) -> None:
        """Ask this one before anything is made for a request."""
        self._connections.turnstile = turnstile

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
