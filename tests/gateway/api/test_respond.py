"""The endpoint alone: a scripted pipeline behind it, a scripted ASGI client before it."""

import asyncio
import gc
import json
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.api.chat import parse
from conclave.gateway.api.respond import SLOW_READER_S, WATCH_AFTER_S, Respond
from conclave.gateway.call import END, SILENCE, Call, Chunk
from conclave.gateway.errors import DeadlineExceeded, Forbidden

Script = Callable[[Call], AsyncGenerator[Chunk, None]]
BODY = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "hi"}]}).encode()
STREAM = BODY[:-1] + b', "stream": true}'


class Scripted:
    """A pipeline that reads the body like the real one, then follows a script."""

    def __init__(self, script: Script, *, max_bytes: int = 1000, timeout_s: float = 5) -> None:
        self.script, self.max_bytes, self.timeout_s = script, max_bytes, timeout_s
        self.ended_with: BaseException | None = None

    async def answer(self, call: Call) -> AsyncGenerator[Chunk, None]:
        try:
            call.request = parse(await call.source.read(max_bytes=self.max_bytes, timeout_s=self.timeout_s))
            async for chunk in self.script(call):
                yield chunk
        except BaseException as error:
            self.ended_with = error
            raise


class Wire:
    """An ASGI client: gives the body's pieces, then waits, or leaves; keeps what it was sent."""

    def __init__(self, *pieces: bytes, leaves: bool = False) -> None:
        self.pieces, self.leaves = list(pieces), leaves
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.pieces:
            piece = self.pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}
        if not self.leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def head(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    async def call(self, pipeline: Any) -> "Wire":
        scope = {"type": "http", "headers": [], "client": ("127.0.0.1", 1)}
        await asyncio.wait_for(Respond(lambda: pipeline, parse)(scope, self.receive, self.send), 5)
        return self


def says(*chunks: Chunk | BaseException | Awaitable[Any]) -> Script:
    async def script(_: Call) -> AsyncGenerator[Chunk, None]:
        for chunk in chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            if isinstance(chunk, Chunk):
                yield chunk
            else:
                await chunk

    return script


async def test_a_plain_answer_leaves_whole_with_its_length() -> None:
    wire = await Wire(BODY).call(Scripted(says(Chunk(b'{"a":1}'), END)))
    assert (wire.status, wire.body, wire.head[b"content-length"]) == (200, b'{"a":1}', b"7")
    assert wire.head[b"x-request-id"].startswith(b"req_")


async def test_a_plain_answer_waits_for_the_record() -> None:
    wire = Wire(BODY)
    await wire.call(Scripted(says(Chunk(b"{}"), DeadlineExceeded("late"))))
    assert wire.status == 504


async def test_a_stream_is_framed_and_ends_with_done() -> None:
    wire = await Wire(STREAM).call(Scripted(says(SILENCE, Chunk(b'{"a":\n1}'), END)))
    assert wire.body == b': keep-alive\n\ndata: {"a": 1}\n\ndata: [DONE]\n\n'
    assert wire.head[b"content-type"].startswith(b"text/event-stream")
    assert wire.head[b"cache-control"] == b"no-cache"
    assert wire.sent[-1]["more_body"] is False


async def test_an_early_failure_keeps_its_status_also_for_a_stream() -> None:
    wire = await Wire(STREAM).call(Scripted(says(Forbidden("not yours"))))
    assert (wire.status, wire.head[b"x-should-retry"]) == (403, b"false")
    assert json.loads(wire.body)["error"] == {
        "message": "not yours", "type": "permission_error", "param": None, "code": "forbidden"
    }  # fmt: skip


async def test_a_late_failure_is_the_streams_last_event() -> None:
    wire = await Wire(STREAM).call(Scripted(says(Chunk(b"{}"), DeadlineExceeded("late"))))
    assert wire.status == 200
    *_, last = wire.body.strip().split(b"\n\n")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "deadline_exceeded"
    assert b"[DONE]" not in wire.body


async def test_a_bug_is_a_500_without_its_words() -> None:
    wire = await Wire(BODY).call(Scripted(says(ZeroDivisionError("secret"))))
    assert wire.status == 500
    assert b"secret" not in wire.body


async def test_a_client_that_leaves_cancels_the_call() -> None:
    pipeline = Scripted(says(Chunk(b"{}"), asyncio.Event().wait()))
    await Wire(STREAM, leaves=True).call(pipeline)
    assert isinstance(pipeline.ended_with, asyncio.CancelledError)


async def test_a_server_that_stops_is_not_a_client_that_left() -> None:
    pipeline = Scripted(says(asyncio.Event().wait()))
    task = asyncio.ensure_future(Wire(STREAM).call(pipeline))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_client_that_leaves_before_its_body_is_whole_gets_nothing() -> None:
    wire = Wire(leaves=True)
    await wire.call(Scripted(says(END)))
    assert wire.sent == []


async def test_a_body_in_pieces_is_one_body() -> None:
    wire = await Wire(BODY[:5], b"", BODY[5:]).call(Scripted(says(Chunk(b"{}"), END)))
    assert wire.status == 200


async def test_a_body_over_the_limit_is_read_away_and_refused() -> None:
    wire = await Wire(b" " * 800, b" " * 800, b" ").call(Scripted(says(END)))
    assert wire.status == 413
    assert not wire.pieces
    assert json.loads(wire.body)["error"]["code"] == "request_too_large"


async def test_a_body_that_does_not_come_times_out() -> None:
    wire = Wire(BODY[:5], BODY[5:])
    receive = wire.receive

    async def slow() -> dict[str, Any]:
        if len(wire.pieces) == 1:
            await asyncio.Event().wait()
        return await receive()

    wire.receive = slow  # type: ignore[method-assign]
    await wire.call(Scripted(says(END), timeout_s=0.05))
    assert wire.status == 408


async def test_a_client_that_does_not_read_is_taken_for_gone_after_the_deadline() -> None:
    class Stuck(Wire):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

    def late(call: Call) -> AsyncGenerator[Chunk, None]:
        call.grant = Grant("t", None, Scope(), deadline_s=time.monotonic() - SLOW_READER_S + 0.05)
        return says(Chunk(b"{}"), Chunk(b"{}"), END)(call)

    pipeline = Scripted(late)
    await Stuck(STREAM).call(pipeline)
    assert isinstance(pipeline.ended_with, GeneratorExit)


async def test_a_call_that_is_cut_by_a_stop_says_so() -> None:
    for body, said in ((BODY, b'"code":"unavailable"'), (STREAM, b'data: {"error"')):
        wire, begun = Wire(body), asyncio.Event()

        async def until_cut(_: Call, begun: asyncio.Event = begun, body: bytes = body) -> AsyncGenerator[Chunk, None]:
            if body is STREAM:
                yield Chunk(b"{}")
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(wire.call(Scripted(until_cut)))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert said in wire.body


@pytest.mark.parametrize("fate", ["answered at once", "watched", "refused"])
async def test_a_call_that_is_over_is_freed_at_once_and_not_by_the_garbage_collector(fate: str) -> None:
    seen: list[weakref.ref[Any]] = []

    async def script(call: Call) -> AsyncGenerator[Chunk, None]:
        seen.append(weakref.ref(call.source))
        if fate == "watched":
            await asyncio.sleep(1.5 * WATCH_AFTER_S)
        if fate == "refused":
            try:
                raise Forbidden("no")
            except Forbidden as error:
                call.end(0.0, error)
                raise
        yield Chunk(b"{}")
        yield END

    class Forgetful(Scripted):
        async def answer(self, call: Call) -> AsyncGenerator[Chunk, None]:
            call.request = parse(await call.source.read(max_bytes=self.max_bytes, timeout_s=self.timeout_s))
            async for chunk in self.script(call):
                yield chunk

    wire = Wire(BODY)
    gc.collect()
    gc.disable()
    try:
        await wire.call(Forgetful(script))
        await asyncio.sleep(0)  # the watching task hears that it is over
        await asyncio.sleep(0)
        assert seen[0]() is None
    finally:
        gc.enable()
