"""Reads one answer of an OpenAI-compatible server, plain or streamed, and says how it failed if it did.

Decides when an answer is whole, when it took too long and when its connection may be used again. Bytes pass untouched:
an event is parsed here only if it may be an error, a plain answer once (its chunk remembers that). Never retries.

    no byte yet        connect | first_byte | rate_limited, rejected, status | malformed
    after the first    stalled | cut | malformed | error_event
    at any moment      DeadlineExceeded
"""

import asyncio
import io
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Self, TypeVar

import aiohttp
import msgspec
import structlog
from aiohttp.http_exceptions import HttpProcessingError

from conclave.gateway.call import SILENCE, Attempt, Chunk, embedded
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.alarm import Alarm
from conclave.gateway.experts.egress import Refused
from conclave.gateway.experts.endpoint import Endpoint
from conclave.gateway.experts.openai_errors import error_event, not_an_answer, status_failure
from conclave.gateway.experts.sse import EventSplitter
from conclave.gateway.prompt import Prompt
from conclave.gateway.reply import HOLDS

T = TypeVar("T")
log = structlog.get_logger()

PLAIN_BYTES: Final = 32 * 1024 * 1024
VECTORS_BYTES: Final = 160 * 1024 * 1024  # 2,048 vectors of 3,072 numbers, 22 characters each
ERROR_BYTES: Final = 64 * 1024
ERROR_WAIT_S: Final = 2.0  # for the words of a failure that is known already
LARGE_BYTES: Final = 1024 * 1024  # aiohttp wants larger bodies as a file: it sends those in pieces
BROKEN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError)
DONE: Final = b"[DONE]"
ACCEPT: Final = {True: "text/event-stream", False: "application/json"}  # a server may go by it, not by `stream`
NO_EVENT: Final = (b"{", b"[", b"<")  # how JSON and HTML begin, and no line of an event stream


class _Upstream(ABC):
    """What plain and streamed answers share: asking, waiting within limits, failing, closing."""

    __slots__ = ("_alarm", "_at", "_closed", "_deadline_s", "_over", "_prompt", "_response", "_since_s", "attempt")

    def __init__(self, endpoint: Endpoint, prompt: Prompt, deadline_s: float) -> None:
        self._at = endpoint
        self._prompt = prompt
        self._deadline_s = deadline_s
        self._since_s = endpoint.now_s()  # when the present patience began
        self._alarm = Alarm(endpoint.now_s)
        self._response: aiohttp.ClientResponse | None = None
        self._closed = self._over = False
        self.attempt = Attempt(endpoint.expert, self._since_s, deployment=endpoint.host, model=endpoint.model)

    def __aiter__(self) -> Self:
        return self

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self.attempt.ended_s is None:
            self.attempt.ended_s = self._at.now_s()
        self._hang_up()

    def _hang_up(self) -> None:
        self._over = True
        self._alarm.stop()
        if self._response is not None:
            self._response.close()  # a connection whose body was read to its end is free already, and stays open
            self._response = None

    def _fail(self, error: ExpertFailed) -> ExpertFailed:
        self.attempt.failure = error.kind
        self.close()
        return error

    def _finish(self) -> None:
        """The answer is whole, and its connection is left to whom it belongs."""
        self._over = True
        self._alarm.stop()
        self._response = None
        self.attempt.ended_s = self._at.now_s()

    async def _post(self) -> aiohttp.ClientResponse:
        body = msgspec.json.encode(self._body())
        return await self._at.session().post(
            self._at.url_of(self._prompt.operation),
            data=body if len(body) < LARGE_BYTES else io.BytesIO(body),
            headers={**self._at.headers, **self._prompt.headers, "Accept": ACCEPT[self._prompt.stream]},
            allow_redirects=False,
        )

    @abstractmethod
    def _body(self) -> dict[str, Any]:
        """What is sent."""

    @abstractmethod
    def _limit(self) -> tuple[float, str]:
        """When patience ends, and the kind of failure that is."""

    async def _wait(self, wait: Callable[[], Awaitable[T]], *, tick_at_s: float = math.inf) -> T | None:
        """What `wait()` gives; None at the tick. Raises what the time limits and a broken connection mean."""
        try:
            got = await self._alarm.until(min(tick_at_s, self._limit()[0], self._deadline_s), wait)
        except BROKEN as error:
            raise self._fail(self._broken(error)) from error
        if got is None:
            self._check_limits()
        return got

    def _check_limits(self) -> None:
        if self._closed:
            raise ExpertFailed("closed while it was waited for", kind="cut")
        now_s = self._at.now_s()
        if now_s >= self._deadline_s:
            self._hang_up()
            raise DeadlineExceeded("the call's time was up before the expert had answered")
        if self._response is not None and (used := self._response.connection) is not None and used.transport is None:
            # aiohttp 3.14 closes the connection when a body's framing breaks, and lets the body's reader wait
            raise self._fail(ExpertFailed("the connection ended before the answer did", kind="cut"))
        limit_s, kind = self._limit()
        if now_s >= limit_s:
            raise self._fail(ExpertFailed("the expert took too long", kind=kind))

    def _broken(self, error: BaseException) -> ExpertFailed:
        if self._response is not None or self._closed:
            return ExpertFailed("the connection ended before the answer did", kind="cut")
        if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
            return ExpertFailed("the expert does not speak HTTP", kind="malformed")
        cause = getattr(error, "os_error", None)
        if isinstance(cause, Refused):  # for the operator: a client is not told what is where
            log.warning("expert.address_refused", expert=self._at.expert, reason=str(cause))
        return ExpertFailed("the expert could not be reached", kind="connect")

    async def _accept(self, response: aiohttp.ClientResponse) -> None:
        """Raise unless this is the beginning of an answer."""
        self._response = response
        status = self.attempt.upstream_status = response.status
        if status != 200:  # noqa: PLR2004  nothing else comes with a completion
            words, wall_s = await self._words(response), self._at.wall_s()
            raise self._fail(status_failure(status, response.headers, words, wall_s=wall_s, api_key=self._at.api_key))
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self._fail(ExpertFailed("the expert compressed its answer, unasked", kind="malformed"))

    async def _words(self, response: aiohttp.ClientResponse, begun: bytes = b"") -> bytes:
        """A short body that is no answer, as much of it as comes soon."""
        words, until_s = bytearray(begun), min(self._at.now_s() + ERROR_WAIT_S, self._deadline_s)
        while len(words) < ERROR_BYTES:
            try:
                data = await self._alarm.until(until_s, response.content.readany)
            except BROKEN:
                break
            if not data:
                break
            words += data
        return bytes(words[:ERROR_BYTES])

    def _note_first_byte(self) -> None:
        self._since_s = self._at.now_s()
        if self.attempt.first_byte_s is None:
            self.attempt.first_byte_s = self._since_s


class PlainUpstream(_Upstream):
    """One chunk: the whole body, untouched. No SILENCE: a client cannot be told anything inside its JSON."""

    __slots__ = ()

    async def __anext__(self) -> Chunk:
        if self._over:
            raise StopAsyncIteration
        self._check_limits()
        response = await self._wait(self._post)
        assert response is not None  # noqa: S101  for mypy: there is no tick
        await self._accept(response)
        body = await self._whole(response)
        chunk = embedded(body) if self._prompt.operation == "embeddings" else Chunk(body)
        failure = error_event(chunk)
        if failure is None and HOLDS.get(self._prompt.operation, "choices") not in chunk.event:
            failure = not_an_answer(chunk.data)
        if failure is not None:
            raise self._fail(failure)
        self._finish()
        return chunk

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        pieces, size = [], 0
        silence_s = self._at.limits.silence_s
        most_bytes = VECTORS_BYTES if self._prompt.operation == "embeddings" else PLAIN_BYTES
        while (data := await self._wait(response.content.readany, tick_at_s=self._at.now_s() + silence_s)) != b"":
            if data is None:  # quiet, and within the limits
                continue
            self._note_first_byte()
            pieces.append(data)
            size += len(data)
            if size > most_bytes:
                raise self._fail(ExpertFailed("the expert's answer is too large", kind="malformed"))
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def _body(self) -> dict[str, Any]:
        body = {"model": self._at.model, **self._prompt.body}
        if body.get("stream"):
            body["stream"] = False
            body.pop("stream_options", None)
        return body

    def _limit(self) -> tuple[float, str]:
        if self.attempt.first_byte_s is None:
            return self.attempt.started_s + self._at.limits.plain_s, "first_byte"
        return self._since_s + self._at.limits.idle_s, "stalled"


class StreamUpstream(_Upstream):
    """An event a chunk, SILENCE while there is none. Ends with `[DONE]`, or a finish reason if a server omits that."""

    __slots__ = ("_before", "_begun", "_failure", "_last", "_posting", "_ready", "_silent", "_splitter", "_whole")

    def __init__(self, endpoint: Endpoint, prompt: Prompt, deadline_s: float) -> None:
        super().__init__(endpoint, prompt, deadline_s)
        self._splitter = EventSplitter()
        self._ready: deque[Chunk] = deque()
        self._before: Chunk | None = None
        self._last: Chunk | None = None
        self._posting: asyncio.Task[aiohttp.ClientResponse] | None = None
        self._failure: ExpertFailed | None = None  # raised when all that came before it was taken
        self._begun = self._silent = self._whole = False

    def __anext__(self) -> Coroutine[Any, Any, Chunk]:
        return self._given() if self._ready else self._more()

    async def _given(self) -> Chunk:
        return self._ready.popleft()

    async def _more(self) -> Chunk:
        """Read until there is a chunk; the first of those that one read brought."""
        if self._over:
            raise StopAsyncIteration
        now_s = self._at.now_s()
        if self._silent:
            self._silent = False
        elif self._begun:
            self._since_s = now_s  # the time that the reader took for itself is not the expert's
        if now_s >= self._deadline_s:
            self._check_limits()
        tick_at_s = now_s + self._at.limits.silence_s
        if not self._begun and not self._whole and not await self._begin(tick_at_s):
            return self._silence()
        while not self._ready:
            if self._failure is not None:
                raise self._fail(self._failure)
            if self._whole or self._response is None:
                self._finish()
                raise StopAsyncIteration
            try:  # as `_wait`, less its call: this runs for each chunk
                limit_s = self._since_s + self._at.limits.idle_s
                at_s = min(tick_at_s, limit_s, self._deadline_s)
                data = await self._alarm.until(at_s, self._response.content.readany)
            except BROKEN as error:
                if self._has_said_all():
                    raise self._end_here() from None
                raise self._fail(self._broken(error)) from error
            if data is None:
                if self._at.now_s() >= min(limit_s, self._deadline_s) and self._has_said_all():
                    raise self._end_here()
                self._check_limits()
                return self._silence()
            self._take(data)
        return self._ready.popleft()

    def _has_said_all(self) -> bool:
        """Whether the answer has told why it ended: what is lost after that (its usage, `[DONE]`) does not spoil it."""
        one = (self._prompt.body.get("n") or 1) == 1
        return one and (_finished(self._last) or _finished(self._before))

    def _end_here(self) -> StopAsyncIteration:
        self._hang_up()
        self.attempt.ended_s = self._at.now_s()
        return StopAsyncIteration()

    async def _begin(self, tick_at_s: float) -> bool:
        """Ask, and look at the first bytes: raise if they are no event stream. False if the tick comes before them."""
        response = self._response or await self._ask(tick_at_s)
        data = None if response is None else await self._wait(response.content.readany, tick_at_s=tick_at_s)
        if response is None or data is None:
            return False
        if data:
            self._begun = True
            self._note_first_byte()
            if data.lstrip().startswith(NO_EVENT):
                raise self._fail(not_an_answer(await self._words(response, data)))
        self._take(data)
        return True

    def _silence(self) -> Chunk:
        self._silent = True
        return SILENCE

    async def _ask(self, tick_at_s: float) -> aiohttp.ClientResponse | None:
        """The answer's head. The question is a task of its own, since it must outlive a tick."""
        if self._posting is None:
            self._posting = asyncio.get_running_loop().create_task(self._post())
        response = await self._wait(self._posted, tick_at_s=tick_at_s)
        if response is not None:
            self._posting = None
            await self._accept(response)
        return response

    async def _posted(self) -> aiohttp.ClientResponse:
        assert self._posting is not None  # noqa: S101  for mypy
        return await asyncio.shield(self._posting)

    def _take(self, data: bytes) -> None:
        """Sort what was read into chunks, the end and failures."""
        if not data:
            self._take_end()
            return
        try:
            payloads = self._splitter.feed(data)
        except ExpertFailed as error:
            self._failure = error
            return
        if not payloads:
            self._since_s = self._at.now_s()  # a comment, or half an event: the expert is alive
        ready = self._ready
        for payload in payloads:
            if payload[0] == DONE[0] and payload.startswith(DONE):
                self._let_go()
                return
            chunk = Chunk(payload)
            if b'"error"' in payload and (failure := error_event(chunk)):
                self._failure = failure
                return
            self._before, self._last = self._last, chunk
            ready.append(chunk)

    def _take_end(self) -> None:
        """The body is at its end, without `[DONE]`: whole only if the answer said that it had finished."""
        self._whole = True
        rest = self._splitter.finish()
        if rest.startswith(DONE):
            return
        if rest and _is_json(rest):
            self._take(b"\n\n")
        if self._last is None and self._failure is None:
            kind = "malformed" if self._begun and not rest else "cut"
            self._failure = ExpertFailed("the expert's stream has no events", kind=kind)
        elif not (_finished(self._last) or _finished(self._before)):
            self._failure = self._failure or ExpertFailed("the stream ended before the answer did", kind="cut")

    def _let_go(self) -> None:
        """`[DONE]`: the rest of the body says nothing, and this is no longer its reader."""
        self._whole = True
        if self._response is not None:
            self._at.lingering.add(self._response)
            self._response = None

    def _hang_up(self) -> None:
        super()._hang_up()
        self._ready.clear()
        if self._posting is not None:
            self._posting.add_done_callback(_discard)
            self._posting.cancel()
            self._posting = None

    def _body(self) -> dict[str, Any]:
        body = {"model": self._at.model, **self._prompt.body, "stream": True}
        if self._at.stream_usage:
            options = body.get("stream_options")
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return body

    def _limit(self) -> tuple[float, str]:
        if not self._begun:
            return self.attempt.started_s + self._at.limits.first_byte_s, "first_byte"
        return self._since_s + self._at.limits.idle_s, "stalled"


def _is_json(payload: bytes) -> bool:
    """Whether an event that lacks its closing line is whole otherwise."""
    try:
        return bool(Chunk(payload).event)
    except ExpertFailed:
        return False


def _finished(chunk: Chunk | None) -> bool:
    """Whether the event carries a finish reason."""
    try:
        choices = chunk.event.get("choices") if chunk is not None else None
    except ExpertFailed:
        return False
    return isinstance(choices, list) and any(isinstance(one, dict) and one.get("finish_reason") for one in choices)


def _discard(posting: asyncio.Task[aiohttp.ClientResponse]) -> None:
    """Close an answer that came after its reader had gone."""
    if not posting.cancelled() and posting.exception() is None:
        posting.result().close()
