"""One client's connection: uvicorn's HTTP/1.1, with limits of time and size where it has none. Never looks at a body.

uvicorn has no limit on how long a request's head may take (0.54: `timeout_keep_alive` ends with its first byte), so
`Connection` adds one, and one on its size. It is also where an overloaded gateway says no, before a task is made.
"""

import asyncio
from typing import ClassVar, Final, Protocol

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from conclave.gateway.api import headers
from conclave.gateway.corked import LEAST_BYTES, UNREAD_S, Corked
from conclave.gateway.errors import Refused

HEAD_BYTES: Final = 64 * 1024


class Refusal(Protocol):
    """An answer, head and body."""

    def whole(self, *, last: bool) -> bytes: ...


class Turnstile(Protocol):
    """Says by a request's head that there is no place for it."""

    @property
    def closed(self) -> bool: ...
    def stops(self, path: bytes, fields: headers.Headers, /) -> Refusal | None: ...


class Told:
    """In place of uvicorn's cycle, for a request that was answered when its head was read."""

    response_started = response_complete = True
    disconnected = False

    @property
    def message_event(self) -> asyncio.Event:
        """Set when a connection is lost; nobody waits for it."""
        return asyncio.Event()


TOLD: Final = Told()


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
    turnstile: "ClassVar[Turnstile | None]" = None
    _told = False
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
        if self.turnstile is not None and self.turnstile.closed and self._turned_away(self.turnstile):
            return
        super().on_headers_complete()
        self._in_body = True
        if self.parser.get_http_version() == "1.0":  # it knows no chunks
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = Untold()
        if self.parting:
            self.cycle.keep_alive = False

    def _turned_away(self, turnstile: Turnstile) -> bool:
        """Whether the request got its answer here: a task, a cycle and a way through the application cost more.

        One that stands behind another, or whose client does not read, goes the usual way: it has to wait.
        """
        behind = self.cycle is not None and not self.cycle.response_complete
        if behind or self.flow.write_paused or self._closes or self.transport.is_closing():
            return False
        if self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        refusal = turnstile.stops(self.url, self.headers)
        if refusal is None:
            return False
        last = self.parting or self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive()
        self.cycle = TOLD  # type: ignore[assignment]  # as much of a cycle as is asked of one that is over
        self._told = self._in_body = True
        self.server_state.total_requests += 1
        self.transport.write(refusal.whole(last=last))
        if last:
            self.transport.close()
        else:
            self._corked.must_be_read()
        return True

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
            self._drain()

    def _drain(self) -> None:
        self._drained_bytes = 0
        self._late = self.loop.call_later(self.drain_s, self._too_late)

    def _keep(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    @property
    def _is_draining(self) -> bool:
        """Whether what comes in is the rest of a body whose answer is whole."""
        return self._in_body and self.cycle.response_complete

    def _stays_open(self) -> bool:
        """Asked when the connection is to be closed: not yet, while its client is still sending."""
        self._closes = self._is_draining
        return self._closes

    def data_received(self, data: bytes) -> None:
        draining, self._told = self._is_draining, False
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # a request is being served
            self._no_longer_late()
            return
        if self._told:
            self._no_longer_late()
            self._after_telling()
            return
        if draining:
            self._drained(len(data))
            return
        self._head_bytes += len(data)
        if self._late is None:
            self._late = self.loop.call_later(self.head_s, self._too_late)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large", "the request's headers are too large")

    def _after_telling(self) -> None:
        """The rest of the body is read away; if there is none, the connection is kept as after any answer."""
        if self._in_body:
            self._drain()
        elif not self.transport.is_closing():
            self._keep()

    def _drained(self, size: int) -> None:
        if not self._in_body:  # it is over, so the connection is kept as after any answer
            self._no_longer_late()
            self._keep()
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
            about = [headers.PLAIN, (b"content-length", b"%d" % len(body)), headers.CLOSE]
            about += headers.request_headers(headers.new_id()) + headers.error_headers(error)
            self.transport.write(headers.message(b"HTTP/1.1 %b\r\n" % status, about, body))
        self._hang_up()
