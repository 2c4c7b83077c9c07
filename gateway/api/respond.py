"""One ASGI endpoint for plain answers and for streams: it opens the call, drives the pipeline, and watches the client.

It is the only consumer of `Pipeline.answer`. A client that leaves cancels the drive, which closes the upstream; the
generator is closed here in every case, so that its record is written before this returns.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec
import structlog
from opentelemetry.trace import get_current_span
from starlette.types import Receive, Scope, Send

from conclave.gateway.access import tags
from conclave.gateway.access.proxies import Proxies
from conclave.gateway.api import headers
from conclave.gateway.api.cors import Cors
from conclave.gateway.api.front import Front
from conclave.gateway.api.turnstile import Turnstile
from conclave.gateway.call import END, SILENCE, Call, Chunk, ClientGone, ModelRequest
from conclave.gateway.errors import ConclaveError, InternalError, RequestTimeout, TooLarge, Unavailable
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.trace import Trace, passed_on
from conclave.safety.boundary import envelope

WATCH_AFTER_S: Final = (
    0.02  # short calls are over before a task to watch their client would pay (upstream closes <= 50 ms)
)
SLOW_READER_S: Final = 5.0  # beyond the call's deadline, for a client to read the end of its stream
DRAIN_BYTES: Final = (
    64 * 1024 * 1024
)  # of an oversized body are read away, so that its client sees the 413, not a reset

TAGS: Final = tags.HEADER.encode()
LISTS: Final = frozenset({TAGS, b"traceparent", b"tracestate"})  # sent on several lines they are one, with commas
ENVELOPE: Final = envelope.HEADER.encode()
HEAD: Final = frozenset({b"authorization", b"origin", b"host", ENVELOPE}) | LISTS  # what is looked at, or recorded
NO_PROXIES: Final = Proxies()

Parse: TypeAlias = Callable[[bytes], ModelRequest]
Render: TypeAlias = Callable[[Chunk], Chunk]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What the headers say; see `gateway.call.Head`."""

    authorization: str | None
    source: str
    origin: str | None
    host: str | None
    tags: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    envelope: str | None = None


class Client:
    """The client's side of one call: its body, its place among the calls in work, and whether it is still there."""

    def __init__(self, scope: Scope, receive: Receive, front: Front) -> None:
        self.head = head_of(scope, front.proxies)
        self.gone = False
        self.call: Call | None = None
        self._room = front.room
        self._inside = False
        self._receive = receive
        self._driver = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        """The whole body, once it is this call's turn; then watch the client from then on."""
        await self._enter()
        try:
            async with asyncio.timeout(timeout_s):
                body = await self._read(max_bytes)
        except TimeoutError:
            raise RequestTimeout(f"the request body did not arrive within {timeout_s:g} s") from None
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._start_watch)
        return body

    async def _enter(self) -> None:
        """Stand in line if there is one. Admission came first: it says whose line, and until when."""
        grant = self.call.grant if self.call is not None else None
        if grant is None:
            return
        if not self._room.try_enter():
            await self._room.enter(grant.tenant, grant.deadline_s)
        self._inside = True

    async def _read(self, max_bytes: int) -> bytes:
        pieces, size, more = [], 0, True
        while more and size <= max(max_bytes, DRAIN_BYTES):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientGone
            piece = message.get("body", b"")
            size += len(piece)
            if size <= max_bytes:
                pieces.append(piece)
            else:
                pieces.clear()
            more = message.get("more_body", False)
        if size > max_bytes:
            raise TooLarge(f"the request body is larger than the limit of {max_bytes} bytes")
        return b"".join(pieces)

    def _start_watch(self) -> None:
        self._watch = asyncio.ensure_future(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def must_read_within(self, seconds: float) -> None:
        """Take a client for gone that has not read its stream by then: an expert waits for it."""
        self._patience = asyncio.get_running_loop().call_later(seconds, self._leave)

    def _leave(self) -> None:
        self.gone = True
        if self._driver is not None:
            self._driver.cancel()

    def end(self) -> None:
        """Stop watching and give the place back: the answer is whole, or nobody waits for it.

        What this and the call know of each other is let go: else each call waits for the garbage collector.
        """
        if self._inside:
            self._inside = False
            self._room.leave()
        for timer in (self._timer, self._patience):
            if timer is not None:
                timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        self.call = self._watch = self._timer = self._patience = self._driver = None


class Respond:
    """The endpoint of one dialect: `parse` turns its body into a ModelRequest. All dialects have one `front`.

    `render` writes each chunk of the answer in the dialect's words, where these are not chat.completions'.
    """

    def __init__(
        self,
        pipeline: Callable[[], Pipeline],
        parse: Parse,
        front: Front | None = None,
        *,
        render: Render | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._parse = parse
        self._render = render
        self._front = front or Front()
        self._turnstile = Turnstile(lambda: pipeline().access, self._front, ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._turnstile.closed and (refusal := self._turnstile.refusal(scope["headers"])) is not None:
            await send({"type": "http.response.start", "status": refusal.status, "headers": refusal.about})
            await send({"type": "http.response.body", "body": refusal.body})
            return
        client = Client(scope, receive, self._front)
        parse = tags.tagged(self._parse, client.head.tags)
        trace = trace_of(client.head, spans=self._front.spans)
        call = client.call = Call(headers.new_id(), client, parse, datetime.now(UTC), time.monotonic(), trace=trace)
        answer = Answer(call, client, send, self._front.cors)
        try:
            async with aclosing(self._pipeline().answer(call)) as chunks:
                async for chunk in chunks:
                    await answer.send(chunk if self._render is None else self._render(chunk))
        except ConclaveError as error:
            await answer.fail(error)
        except (asyncio.CancelledError, ClientGone):
            if not client.gone:
                await answer.fail(Unavailable("the gateway is stopping"))
                raise
        except Exception:
            log.exception("call.broke", request_id=call.id)
            await answer.fail(InternalError("an error of the gateway's own; its log has it under the request id"))
        finally:
            client.end()
            call.let_go()


class Answer:
    """What goes back over the wire: a plain answer whole, after its record; a stream's head with its first chunk."""

    def __init__(self, call: Call, client: Client, send: Send, cors: Cors) -> None:
        self._call = call
        self._cors = cors
        self._client = client
        self._send = send
        self._started = False
        self._body = b""  # of a plain answer

    async def send(self, chunk: Chunk) -> None:
        if self._call.request is None or not self._call.request.stream:
            await self._send_plain(chunk)
            return
        if not self._started:
            if self._call.grant is not None:
                left_s = self._call.grant.deadline_s - time.monotonic()
                self._client.must_read_within(left_s + SLOW_READER_S)
            await self._start(200, headers.STREAM)
        if chunk is SILENCE:
            await self._write(b": keep-alive\n\n")
        else:
            # a JSON string holds no bare newline, so a payload over several lines is the same JSON on one
            data = chunk.data.replace(b"\n", b" ") if b"\n" in chunk.data else chunk.data
            await self._write(b"data: %b\n\n" % data, last=chunk is END)

    async def _send_plain(self, chunk: Chunk) -> None:
        if chunk is END:
            await self._start(200, [headers.PLAIN, (b"content-length", b"%d" % len(self._body))])
            await self._write(self._body, last=True)
        elif chunk is not SILENCE:
            self._body += chunk.data

    async def fail(self, error: ConclaveError) -> None:
        """The error envelope: as the response, or as a stream's last event once it has begun."""
        envelope = msgspec.json.encode(error.envelope())
        if self._started:
            await self._write(b"data: %b\n\n" % envelope, last=True)
            return
        about = [headers.PLAIN, (b"content-length", b"%d" % len(envelope)), *headers.error_headers(error)]
        await self._start(error.status, about)
        await self._write(envelope, last=True)

    async def _start(self, status: int, about: headers.Headers) -> None:
        self._started = True
        about = [*about, *headers.call_headers(self._call), *self._cors.headers(self._client.head.origin)]
        await self._send({"type": "http.response.start", "status": status, "headers": about})

    async def _write(self, body: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})


def trace_of(head: RequestHead, *, spans: bool) -> Trace | None:
    """Where the call stands: with `spans` inside the HTTP request's own span, else where the client says."""
    if spans and (current := get_current_span().get_span_context()).is_valid and not current.is_remote:
        state = current.trace_state.to_header()
        return Trace.below(current.trace_id, current.span_id, flags=int(current.trace_flags), state=state)
    return passed_on(head.traceparent, head.tracestate) if head.traceparent is not None else None


def head_of(scope: Scope, proxies: Proxies = NO_PROXIES) -> RequestHead:
    """What the headers of an ASGI scope say; whose address it is, as the trusted proxies say."""
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in HEAD:
            if name in LISTS and name in found:
                found[name] += "," + value.decode("latin-1")
            found.setdefault(name, value.decode("latin-1"))
    peer = scope["client"][0] if scope.get("client") else "unknown"
    return RequestHead(
        found.get(b"authorization"),
        proxies.source(peer, scope["headers"]),
        found.get(b"origin"),
        found.get(b"host"),
        found.get(TAGS),
        found.get(b"traceparent"),
        found.get(b"tracestate"),
        found.get(ENVELOPE),
    )
