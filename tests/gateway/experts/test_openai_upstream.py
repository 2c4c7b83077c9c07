"""An answer's reader against servers that say every wrong thing there is, or nothing; real sockets on 127.0.0.1."""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conclave.gateway.call import SILENCE, Attempt
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.api import Upstream
from conclave.gateway.experts.openai_http import TimeLimits

from .asking import IDLE_S, SECRET, WITHIN_S, expert_at, limits_for, prompt, read
from .raw_server import CLOSE, EVENT, FINISH, PLAIN, RESET, SSE, STREAM, USAGE, RawServer, answer, data, piece

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
    async with RawServer(script) as server, expert_at(server.url, limits_for(kind)) as expert:
        given, attempt, error = await read(expert, prompt(stream))
    assert isinstance(error, ExpertFailed)
    assert (error.kind, attempt.failure) == (kind, kind)
    assert SECRET not in str(error)
    assert set(given) <= {SILENCE.data}
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

    async def after_the_first(upstream: Upstream) -> None:
        async for chunk in upstream:
            if chunk is not SILENCE:
                assert chunk.data == EVENT
                taken.set()

    async with Late(script) as server, expert_at(server.url, limits_for(kind)) as expert:
        upstream = expert.open(prompt(True), deadline_s=time.monotonic() + 60)
        with pytest.raises(ExpertFailed) as caught:
            await after_the_first(upstream)
    assert taken.is_set()
    assert (caught.value.kind, upstream.attempt.failure) == (kind, kind)
    assert upstream.attempt.ended_s is not None


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
            for _ in range(20):
                writer.write(piece(b": PROCESSING\n\n"))
                await asyncio.sleep(0.01)
            return await super()._say(script, writer)

    limits = TimeLimits(first_byte_s=0.15, idle_s=0.15, silence_s=0.03)
    async with Pinging(STREAM[len(SSE) :]) as server, expert_at(server.url, limits) as expert:
        given, _, error = await read(expert, prompt(True))
    assert error is None
    assert SILENCE.data in given
    assert given[-3:] == [EVENT, FINISH, USAGE]


async def test_the_time_that_the_reader_takes_is_not_the_experts() -> None:
    limits = TimeLimits(idle_s=IDLE_S)
    async with RawServer([SSE, piece(data(EVENT))], STREAM) as server, expert_at(server.url, limits) as expert:
        upstream = expert.open(prompt(True), deadline_s=time.monotonic() + 60)
        await anext(upstream)
        await asyncio.sleep(IDLE_S * 1.5)
        asked_s = time.monotonic()
        with pytest.raises(ExpertFailed):
            await anext(upstream)
        assert time.monotonic() - asked_s >= IDLE_S * 0.9


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "script",
    [[], [SSE], [SSE, piece(data(EVENT))], [answer(b"no", status=500)[:-1]]],
    ids=["unanswered", "headers", "midway", "error"],
)
async def test_past_the_deadline_the_call_ends_whatever_the_expert_does(stream: bool, script: list[bytes]) -> None:
    async with RawServer(script) as server, expert_at(server.url) as expert:
        began_s = time.monotonic()
        _, attempt, error = await read(expert, prompt(stream), in_s=0.15)
        assert time.monotonic() - began_s < 1
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


async def test_a_plain_answer_is_bounded() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n" + PLAIN[:-1]
    async with RawServer([head, *([b" " * 4_000_000] * 9), b"}", CLOSE]) as server, expert_at(server.url) as expert:
        error = (await read(expert, prompt(False)))[2]
    assert isinstance(error, ExpertFailed)
    assert error.kind == "malformed"
    assert "too large" in error.message
