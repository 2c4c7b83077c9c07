"""An OpenAI-compatible expert against servers that say every wrong thing there is, over real sockets on 127.0.0.1."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conclave.gateway.call import SILENCE, Attempt
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.openai_http import HttpSessions, OpenAIExpert, TimeLimits
from conclave.gateway.prompt import Prompt

from .raw_server import CLOSE, EVENT, FINISH, PLAIN, RESET, SSE, STREAM, USAGE, RawServer, answer, data, piece

BODY = {"messages": [{"role": "user", "content": "hello"}]}
QUICK = TimeLimits(connect_s=0.5, first_byte_s=0.05, plain_s=0.05, idle_s=0.05)
PATIENT = TimeLimits()
SECRET = "sk-very-secret"  # noqa: S105
WITHIN_S = 0.05  # of leaving, the upstream's socket must be closed


@asynccontextmanager
async def expert_at(url: str, limits: TimeLimits = PATIENT, **facts: Any) -> AsyncIterator[OpenAIExpert]:
    expert = OpenAIExpert("e", url, "m", api_key=SECRET, limits=limits, **facts)
    try:
        yield expert
    finally:
        await expert.aclose()


def prompt(stream: bool, **more: Any) -> Prompt:
    return Prompt({**BODY, **({"stream": True} if stream else {}), **more}, stream=stream)


async def read(
    expert: OpenAIExpert, asked: Prompt, *, in_s: float = 60.0
) -> tuple[list[bytes], Attempt, BaseException | None]:
    """What was given, and how it ended."""
    given: list[bytes] = []
    upstream = expert.open(asked, deadline_s=time.monotonic() + in_s)
    try:
        async for chunk in upstream:
            given.append(chunk.data)
    except (ExpertFailed, DeadlineExceeded) as error:
        return given, upstream.attempt, error
    finally:
        upstream.close()
    return given, upstream.attempt, None


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_the_bytes_of_an_answer_pass_untouched(stream: bool) -> None:
    async with RawServer(STREAM if stream else answer(PLAIN)) as server, expert_at(server.url) as expert:
        given, attempt, error = await read(expert, prompt(stream))
    assert given == ([EVENT, FINISH, USAGE] if stream else [PLAIN])
    assert error is None
    assert (attempt.upstream_status, attempt.failure, attempt.model) == (200, None, "m")
    assert attempt.deployment == server.url.removeprefix("http://").removesuffix("/v1")
    assert attempt.first_byte_s is not None
    assert attempt.ended_s is not None
    assert attempt.started_s <= attempt.first_byte_s <= attempt.ended_s


async def test_the_request_is_the_prompt_with_the_deployments_model_and_key() -> None:
    async with RawServer(answer(PLAIN)) as server, expert_at(server.url + "/") as expert:
        await read(expert, prompt(False, temperature=0.5, x_unknown={"a": [1, None]}))
    [request] = server.requests
    assert request.head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert request.body == {"model": "m", **BODY, "temperature": 0.5, "x_unknown": {"a": [1, None]}}
    assert request.header("authorization") == f"Bearer {SECRET}"
    assert request.header("content-type") == "application/json"
    assert request.header("accept-encoding") == "identity"
    assert request.header("cookie") is None


@pytest.mark.parametrize(
    ("more", "stream_usage", "options"),
    [
        pytest.param({}, True, {"include_usage": True}, id="usage is always asked for"),
        pytest.param(
            {"stream_options": {"include_usage": False, "x": 1}}, True, {"include_usage": True, "x": 1}, id="merged"
        ),
        pytest.param({"stream_options": {"x": 1}}, False, {"x": 1}, id="left alone"),
        pytest.param({}, False, None, id="left out"),
    ],
)
async def test_stream_options(more: dict[str, Any], stream_usage: bool, options: object) -> None:
    async with RawServer(STREAM) as server, expert_at(server.url, stream_usage=stream_usage) as expert:
        await read(expert, prompt(True, **more))
    assert server.requests[0].body["stream"] is True
    assert server.requests[0].body.get("stream_options") == options


async def test_a_stream_held_back_is_asked_for_as_a_plain_answer() -> None:
    asked = Prompt({**BODY, "stream": True, "stream_options": {"include_usage": True}}, stream=False)
    async with RawServer(answer(PLAIN)) as server, expert_at(server.url) as expert:
        assert (await read(expert, asked))[0] == [PLAIN]
    assert server.requests[0].body == {"model": "m", **BODY, "stream": False}


async def test_a_request_of_many_megabytes_arrives_whole() -> None:
    text = "é" * 2_000_000
    async with RawServer(answer(PLAIN)) as server, expert_at(server.url) as expert:
        assert (await read(expert, prompt(False, user=text)))[2] is None
    assert server.requests[0].body["user"] == text


FAULTS: list[tuple[str, Sequence[object], str]] = [
    ("closed unanswered", [CLOSE], "connect"),
    ("reset unanswered", [RESET], "connect"),
    ("never answered", [], "first_byte"),
    ("slow headers", [b"HTTP/1.1 200 OK\r\ncontent-", b"type: text/eve"], "first_byte"),
    ("headers and no byte", [SSE], "first_byte"),
    ("no HTTP", [b"hello, who is there?\r\n\r\n"], "malformed"),
    ("endless header", [b"HTTP/1.1 200 OK\r\nx: " + b"x" * 70_000 + b"\r\n\r\n"], "malformed"),
    ("compressed", [answer(PLAIN, headers="content-encoding: gzip\r\n")], "malformed"),
    ("HTML", [answer(b"<html>busy</html>", kind="text/html")], "malformed"),
    ("error object", [answer(b'{"error":{"message":"no","code":"x"}}')], "error_event"),
    ("error object of vLLM", [answer(b'{"object":"error","message":"no"}')], "error_event"),
    ("JSON that is no completion", [answer(b'{"hello":1}')], "malformed"),
    ("JSON that is no object", [answer(b"[]")], "malformed"),
    ("redirect", [answer(b"", status=302, headers="location: http://127.0.0.1:1/\r\n")], "status"),
    *(
        (f"HTTP {code}", [answer(b"{}", status=code)], "status")
        for code in (401, 403, 404, 408, 409, 500, 502, 503, 529)
    ),
    ("HTTP 429", [answer(b"{}", status=429)], "rate_limited"),
    *((f"HTTP {code}", [answer(b"{}", status=code)], "rejected") for code in (400, 413, 422)),
]
STREAM_FAULTS: list[tuple[str, Sequence[object], str]] = [
    ("reset in the first event", [SSE, piece(b"data: {")[:-4], RESET], "cut"),
    ("half an event, and the end", [SSE, piece(b"data: {"), piece(b"")], "cut"),
    ("empty body", [SSE, piece(b"")], "cut"),
    ("no event stream", [SSE, piece(b"all our models are busy"), piece(b"")], "malformed"),
    ("a plain completion", [answer(PLAIN)], "malformed"),
    ("malformed error event", [SSE, piece(data(b'{"error":'))], "malformed"),
    ("an event without an end", [SSE, piece(b"data: " + b"x" * 5_000_000)], "malformed"),
]
LATE_FAULTS: list[tuple[str, Sequence[object], str]] = [
    ("stalled", [], "stalled"),
    ("stalled in an event", [piece(b"data: {")], "stalled"),
    ("closed", [CLOSE], "cut"),
    ("reset", [RESET], "cut"),
    ("closed in a piece", [piece(data(EVENT))[:-9], CLOSE], "cut"),
    ("chunked encoding broken", [b"zz\r\n"], "cut"),
    ("no finish, no [DONE]", [piece(b"")], "cut"),
    ("half an event at the end", [piece(b'data: {"choi'), piece(b"")], "cut"),
    ("error event", [piece(data(b'{"error":{"message":"no"}}'))], "error_event"),
    ("error event in a chunk", [piece(data(EVENT[:-1] + b', "error": {"code":502}}'))], "error_event"),
]
PLAIN_FAULTS: list[tuple[str, Sequence[object], str]] = [
    ("content-length too large", [answer(PLAIN).replace(b"length: ", b"length: 9"), CLOSE], "cut"),
    ("stalled", [answer(PLAIN)[:-9]], "stalled"),
    ("reset midway", [answer(PLAIN)[:-9], RESET], "cut"),
    ("content-length too small", [answer(PLAIN).replace(b"length: 1", b"length: ")], "malformed"),
    ("no length, closed midway", [b"HTTP/1.1 200 OK\r\n\r\n" + PLAIN[:-9], CLOSE], "malformed"),
    ("an event stream", [STREAM], "malformed"),
    ("empty body", [answer(b"")], "malformed"),
]


@pytest.mark.parametrize(
    ("stream", "script", "kind"),
    [
        *(pytest.param(True, script, kind, id=f"stream: {name}") for name, script, kind in FAULTS + STREAM_FAULTS),
        *(pytest.param(False, script, kind, id=f"plain: {name}") for name, script, kind in FAULTS + PLAIN_FAULTS),
    ],
)
async def test_each_fault_has_its_kind(stream: bool, script: Sequence[object], kind: str) -> None:
    async with RawServer(script) as server, expert_at(server.url, QUICK) as expert:
        given, attempt, error = await read(expert, prompt(stream))
    assert isinstance(error, ExpertFailed)
    assert (error.kind, attempt.failure) == (kind, kind)
    assert SECRET not in str(error)
    assert given == []
    assert attempt.ended_s is not None


@pytest.mark.parametrize(
    ("script", "kind"), [pytest.param(script, kind, id=name) for name, script, kind in LATE_FAULTS]
)
async def test_each_fault_after_the_first_chunk_has_its_kind(script: Sequence[object], kind: str) -> None:
    taken = asyncio.Event()

    class Late(RawServer):
        async def _say(self, script: Sequence[object], writer: asyncio.StreamWriter) -> bool:
            await super()._say([SSE, piece(data(EVENT))], writer)
            await taken.wait()
            return await super()._say(script, writer)

    async with Late(script) as server, expert_at(server.url, QUICK) as expert:
        upstream = expert.open(prompt(True), deadline_s=time.monotonic() + 60)
        assert (await anext(upstream)).data == EVENT
        taken.set()
        with pytest.raises(ExpertFailed) as caught:
            await anext(upstream)
    assert (caught.value.kind, upstream.attempt.failure) == (kind, kind)
    assert upstream.attempt.ended_s is not None


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_nobody_listening_is_a_failure_to_connect(stream: bool) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with expert_at(f"http://127.0.0.1:{unused.getsockname()[1]}") as expert:
            _, attempt, error = await read(expert, prompt(stream))
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "connect"
    assert attempt.upstream_status is None


@pytest.mark.parametrize(
    ("payloads", "rest"),
    [
        pytest.param([EVENT, FINISH], b"", id="finish reason last"),
        pytest.param([EVENT, FINISH, USAGE], b"", id="finish reason before usage"),
        pytest.param([EVENT, FINISH], b"data: [DONE]", id="[DONE] without its empty line"),
        pytest.param([EVENT], b"data: [DONE]\n", id="[DONE] with half of it"),
        pytest.param([EVENT, FINISH], b'data: {"choi', id="half an event after the finish"),
    ],
)
async def test_a_stream_that_said_it_finished_is_whole_without_done(payloads: list[bytes], rest: bytes) -> None:
    async with RawServer([SSE, piece(data(*payloads) + rest), piece(b"")]) as server, expert_at(server.url) as expert:
        given, _, error = await read(expert, prompt(True))
    assert (given, error) == (payloads, None)


async def test_a_last_event_without_its_empty_line_still_counts() -> None:
    async with (
        RawServer([SSE, piece(data(EVENT) + b"data: " + FINISH), piece(b"")]) as server,
        expert_at(server.url) as expert,
    ):
        assert (await read(expert, prompt(True)))[::2] == ([EVENT, FINISH], None)


async def test_what_follows_done_is_ignored() -> None:
    script = [SSE, piece(data(EVENT, FINISH, b"[DONE]", EVENT, b'{"error":1}')), piece(data(EVENT)), piece(b"")]
    async with RawServer(script) as server, expert_at(server.url) as expert:
        assert (await read(expert, prompt(True)))[::2] == ([EVENT, FINISH], None)


async def test_the_word_error_in_an_answer_is_no_error() -> None:
    said = EVENT.replace(b'"hi"', rb'"say \"error\": {\"error\"}"')
    named = EVENT.replace(b'{"content":"hi"}', b'{"tool_calls":[{"function":{"name":"error"}}]}')
    script = [SSE, piece(data(said, named, b'{"choices":[],"error":null}', FINISH)), piece(b"")]
    async with RawServer(script) as server, expert_at(server.url) as expert:
        given, _, error = await read(expert, prompt(True))
    assert (len(given), error) == (4, None)


@settings(max_examples=30, deadline=None)
@given(
    places=st.lists(st.integers(1, 900), max_size=8),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    end=st.integers(0, 900),
)
def test_a_stream_cut_into_any_reads_and_ended_anywhere_is_a_beginning_of_it(
    places: list[int], line_end: bytes, end: int
) -> None:
    """What is given is always a prefix of the events; it is whole if and only if the finish reason or [DONE] came."""
    stream = data(EVENT, EVENT, FINISH, USAGE, b"[DONE]").replace(b"\n", line_end)[: end or None]
    edges = sorted({0, len(stream), *(place for place in places if place < len(stream))})
    script = [SSE, *(piece(stream[a:b]) for a, b in pairwise(edges)), piece(b"")]

    async def outcome() -> tuple[list[bytes], Attempt, BaseException | None]:
        async with RawServer(script) as server, expert_at(server.url) as expert:
            return await read(expert, prompt(True))

    given, attempt, error = asyncio.run(outcome())
    assert given == [EVENT, EVENT, FINISH, USAGE][: len(given)]
    assert (error is None) == (FINISH in given)
    assert attempt.failure in ([None] if error is None else ["cut"] if given else ["cut", "malformed"])


@pytest.mark.parametrize("answered", [[], [SSE], [SSE, piece(data(EVENT))]], ids=["unanswered", "headers", "midway"])
async def test_a_quiet_stream_says_silence_and_loses_nothing(answered: list[bytes]) -> None:
    go_on = asyncio.Event()

    class Slow(RawServer):
        async def _say(self, script: Sequence[object], writer: asyncio.StreamWriter) -> bool:
            await super()._say(answered, writer)
            await go_on.wait()
            return await super()._say(script, writer)

    async with (
        Slow(STREAM[len(b"".join(answered)) :]) as server,
        expert_at(server.url, TimeLimits(silence_s=0.01)) as expert,
    ):
        upstream = expert.open(prompt(True), deadline_s=time.monotonic() + 60)
        given, silences = [], 0
        async for chunk in upstream:
            if chunk is SILENCE:
                silences += 1
                if silences == 3:
                    go_on.set()
            else:
                given.append(chunk.data)
        upstream.close()
    assert silences >= 3
    assert given == [EVENT, FINISH, USAGE]
    assert len(server.requests) == 1


async def test_a_plain_answer_knows_no_silence() -> None:
    async with RawServer([]) as server, expert_at(server.url, TimeLimits(silence_s=0.01, plain_s=0.06)) as expert:
        given, _, error = await read(expert, prompt(False))
    assert given == []
    assert isinstance(error, ExpertFailed)
    assert error.kind == "first_byte"


async def test_comments_are_bytes_so_they_keep_a_stream_from_stalling_and_the_reader_hears_silence() -> None:
    class Pinging(RawServer):
        async def _say(self, script: Sequence[object], writer: asyncio.StreamWriter) -> bool:
            writer.write(SSE)
            for _ in range(12):
                writer.write(piece(b": PROCESSING\n\n"))
                await asyncio.sleep(0.01)
            return await super()._say(script, writer)

    limits = TimeLimits(first_byte_s=0.08, idle_s=0.08, silence_s=0.03)
    async with Pinging(STREAM[len(SSE) :]) as server, expert_at(server.url, limits) as expert:
        given, _, error = await read(expert, prompt(True))
    assert error is None
    assert SILENCE.data in given
    assert given[-3:] == [EVENT, FINISH, USAGE]


async def test_the_time_that_the_reader_takes_is_not_the_experts() -> None:
    async with RawServer([SSE, piece(data(EVENT))], STREAM) as server, expert_at(server.url, QUICK) as expert:
        upstream = expert.open(prompt(True), deadline_s=time.monotonic() + 60)
        await anext(upstream)
        await asyncio.sleep(QUICK.idle_s * 1.5)
        asked_s = time.monotonic()
        with pytest.raises(ExpertFailed):
            await anext(upstream)
        assert time.monotonic() - asked_s >= QUICK.idle_s * 0.9


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "script",
    [[], [SSE], [SSE, piece(data(EVENT))], [answer(b"no", status=500)[:-1]]],
    ids=["unanswered", "headers", "midway", "error"],
)
async def test_past_the_deadline_the_call_ends_whatever_the_expert_does(stream: bool, script: list[bytes]) -> None:
    async with RawServer(script) as server, expert_at(server.url) as expert:
        began_s = time.monotonic()
        _, attempt, error = await read(expert, prompt(stream), in_s=0.06)
        assert time.monotonic() - began_s < 0.5
        async with asyncio.timeout(WITHIN_S):
            await server.gone.wait()
    if script and script[0].startswith(b"HTTP/1.1 500"):
        assert attempt.failure == "status", "what failed is known already"
    else:
        assert isinstance(error, DeadlineExceeded)
        assert attempt.failure is None


async def test_a_deadline_that_has_passed_asks_nobody() -> None:
    async with RawServer(STREAM) as server, expert_at(server.url) as expert:
        for stream in (False, True):
            assert isinstance((await read(expert, prompt(stream), in_s=-1))[2], DeadlineExceeded)
    assert server.connections == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("script", [[], [SSE], [SSE, piece(data(EVENT))]], ids=["unanswered", "headers", "midway"])
@pytest.mark.parametrize("how", ["cancelled", "closed by another task"])
async def test_the_upstream_is_closed_within_50_ms_when_the_client_leaves(
    stream: bool, script: list[bytes], how: str
) -> None:
    async with RawServer(script) as server, expert_at(server.url) as expert:
        upstream = expert.open(prompt(stream), deadline_s=time.monotonic() + 60)
        if stream and len(script) == 2:
            await anext(upstream)
        waiting = asyncio.ensure_future(anext(upstream))
        await server.asked.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        if how == "cancelled":
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert waiting.cancelled()
        upstream.close()
        upstream.close()
        async with asyncio.timeout(WITHIN_S):
            await server.gone.wait()
        if how != "cancelled":
            with pytest.raises(ExpertFailed) as caught:
                await waiting
            assert caught.value.kind == "cut"
        assert [chunk async for chunk in upstream] == []
        assert upstream.attempt.ended_s is not None


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_an_upstream_closed_before_it_began_never_asks(stream: bool) -> None:
    async with RawServer(STREAM) as server, expert_at(server.url) as expert:
        upstream = expert.open(prompt(stream), deadline_s=time.monotonic() + 60)
        upstream.close()
        assert [chunk async for chunk in upstream] == []
    assert server.connections == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_closing_while_the_connection_is_being_made_leaves_nothing_behind(stream: bool) -> None:
    async with RawServer(STREAM) as server, expert_at(server.url) as expert:
        upstream = expert.open(prompt(stream), deadline_s=time.monotonic() + 60)
        waiting = asyncio.ensure_future(anext(upstream))
        await asyncio.sleep(0)
        upstream.close()
        with pytest.raises(ExpertFailed):
            await waiting
        assert server.requests == []


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_connection_is_used_again_after_a_whole_answer(stream: bool) -> None:
    async with RawServer(STREAM if stream else answer(PLAIN)) as server, expert_at(server.url) as expert:
        for _ in range(3):
            assert (await read(expert, prompt(stream)))[2] is None
    assert (len(server.requests), server.connections) == (3, 1)


async def test_a_connection_whose_end_comes_after_done_is_used_again() -> None:
    script = [STREAM[: -len(piece(b""))], piece(b"")]
    async with RawServer(script) as server, expert_at(server.url) as expert:
        for _ in range(3):
            assert (await read(expert, prompt(True)))[2] is None
            for _ in range(10):
                await asyncio.sleep(0)
    assert server.connections == 1


async def test_a_connection_is_used_again_after_an_error_was_read() -> None:
    async with RawServer(answer(b"{}", status=429), answer(PLAIN)) as server, expert_at(server.url) as expert:
        await read(expert, prompt(False))
        assert (await read(expert, prompt(False)))[0] == [PLAIN]
    assert server.connections == 1


async def test_an_expert_that_talks_on_after_done_is_hung_up_on() -> None:
    limits = TimeLimits(linger_s=0.02)
    async with RawServer([STREAM[: -len(piece(b""))]]) as server, expert_at(server.url, limits) as expert:
        assert (await read(expert, prompt(True)))[2] is None
        assert not server.gone.is_set()
        async with asyncio.timeout(1):
            await server.gone.wait()


def rejected(**error: Any) -> bytes:
    return answer(msgspec.json.encode({"error": error}), status=400)


async def failed_with(script: bytes) -> ExpertFailed:
    async with RawServer(script) as server, expert_at(server.url, wall_s=lambda: 1_000_000.0) as expert:
        error = (await read(expert, prompt(True)))[2]
    assert isinstance(error, ExpertFailed)
    return error


async def test_a_rejection_carries_the_upstreams_words_and_is_final() -> None:
    error = await failed_with(rejected(message="temperature is too high", param="temperature", code="bad_value"))
    assert (error.message, error.param, error.code) == ("temperature is too high", "temperature", "bad_value")
    assert error.final
    assert error.upstream_status == 400


@pytest.mark.parametrize(
    "words",
    [
        {"code": "context_length_exceeded", "message": "long"},
        {"code": 400, "message": "the maximum context length is 9"},
    ],
    ids=["by code", "by message"],
)
async def test_a_prompt_too_long_for_this_expert_may_fit_another(words: dict[str, Any]) -> None:
    error = await failed_with(rejected(**words))
    assert (error.kind, error.final, error.code) == ("rejected", False, "context_length_exceeded")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b'{"error":"model not loaded"}', "model not loaded", id="a string"),
        pytest.param(b'{"object":"error","message":"no such field"}', "no such field", id="no envelope"),
        pytest.param(b'{"detail":"bad field"}', "bad field", id="FastAPI"),
        pytest.param(b'{"detail":[{"loc":1}]}', "the expert rejected the request (HTTP 400)", id="no words"),
        pytest.param(b"<html>", "the expert rejected the request (HTTP 400)", id="HTML"),
        pytest.param(b"[" * 70_000, "the expert rejected the request (HTTP 400)", id="deep and long"),
        pytest.param(b'{"error":{"message":"key sk-very-secret is bad"}}', "key [key] is bad", id="our key"),
    ],
)
async def test_every_shape_of_error_body_is_understood(body: bytes, message: str) -> None:
    assert (await failed_with(answer(body, status=400))).message == message


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_only_a_rejection_repeats_what_the_server_said(status: int) -> None:
    error = await failed_with(answer(b'{"error":{"message":"account acme, key sk-very-secret"}}', status=status))
    assert error.message == f"the expert answered HTTP {status}"


@pytest.mark.parametrize(
    ("headers", "retry_after_s"),
    [
        pytest.param("", None, id="not told"),
        pytest.param("retry-after: 7\r\n", 7.0, id="seconds"),
        pytest.param("retry-after: 7\r\nretry-after-ms: 250\r\n", 0.25, id="milliseconds first"),
        pytest.param(f"retry-after: {formatdate(1_000_030.0, usegmt=True)}\r\n", 30.0, id="date"),
        pytest.param(f"retry-after: {formatdate(999_000.0, usegmt=True)}\r\n", 0.0, id="date in the past"),
        pytest.param("retry-after: soon\r\n", None, id="nonsense"),
        pytest.param("retry-after: nan\r\n", None, id="nan"),
        pytest.param("retry-after: -3\r\n", None, id="negative"),
        pytest.param("retry-after: 999999999\r\n", 86_400.0, id="bounded"),
    ],
)
async def test_retry_after_in_each_form(headers: str, retry_after_s: float | None) -> None:
    error = await failed_with(answer(b'{"error":{"code":"slow_down"}}', status=429, headers=headers))
    assert (error.kind, error.retry_after_s, error.code) == ("rate_limited", retry_after_s, "slow_down")


async def test_experts_may_share_a_session_whose_owner_closes_it() -> None:
    sessions = HttpSessions()
    async with RawServer(answer(PLAIN)) as server:
        for _ in range(2):
            async with expert_at(server.url, session=sessions.get) as expert:
                assert (await read(expert, prompt(False)))[2] is None
        assert server.connections == 1
        await sessions.aclose()
        await sessions.aclose()


async def test_a_plain_answer_is_bounded() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n" + PLAIN[:-1]
    async with RawServer([head, *([b" " * 4_000_000] * 9), b"}", CLOSE]) as server, expert_at(server.url) as expert:
        error = (await read(expert, prompt(False)))[2]
    assert isinstance(error, ExpertFailed)
    assert error.kind == "malformed"
    assert "too large" in error.message


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://a/v1", "http:///v1", "http://user:pass@a/v1", "http://a/v1?key=1", "http://a/v1#x"],
)
def test_a_base_url_that_is_no_servers_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        OpenAIExpert("e", url, "m")


@pytest.mark.parametrize("key", ["", "a\r\nx: y", "ключ"])
def test_a_key_that_is_no_header_value_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="api_key"):
        OpenAIExpert("e", "http://a", "m", api_key=key)


def test_the_key_is_in_no_representation() -> None:
    expert = OpenAIExpert("e", "http://a", "m", api_key=SECRET)
    assert SECRET not in repr(expert) + repr(vars(expert))


def test_time_limits_are_more_than_nothing() -> None:
    with pytest.raises(ValueError, match="idle_s"):
        TimeLimits(idle_s=0)


def test_the_module_leaves_aiohttp_alone_until_an_expert_is_made() -> None:
    code = "import sys; import conclave.gateway.experts.openai_http; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
