"""Every other provider, and embeddings, through litellm's own client: Azure, Bedrock, Cohere and Gemini's vectors."""

import asyncio
import gzip
import logging
import struct
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from conclave.gateway.call import SILENCE
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.litellm.transport import Errand, Meter
from conclave.gateway.experts.litellm_expert import LiteLLMExpert
from conclave.gateway.experts.openai_http import HttpSessions, TimeLimits
from conclave.gateway.experts.openai_upstream import PLAIN_BYTES, VECTORS_BYTES
from conclave.gateway.prompt import Prompt
from conclave.gateway.usage import Usage

from . import provider_wire as wire
from .asking import prompt, read
from .raw_server import CLOSE, EVENT, PLAIN, SSE, STREAM, RawServer, answer, data, piece

pytestmark = [
    wire.needs_litellm,
    # litellm's stream wrapper walks over every attribute of each chunk, those that pydantic is about to drop too
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),
]

AZURE = "azure/my-deployment"
BEDROCK = "bedrock/amazon.nova-lite-v1:0"
AZURE_PLAIN = wire.json_answer({**msgspec.json.decode(PLAIN), "created": 1, "model": "m"})
CLOSED = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"
VERSION = {"api_version": "2024-10-21"}


@pytest.fixture
async def sessions() -> AsyncIterator[HttpSessions]:
    made = HttpSessions()
    yield made
    await wire.put_away(made)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Bedrock's client reads from the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def azure(url: str, sessions: HttpSessions, **more: Any) -> LiteLLMExpert:
    return wire.expert_for(AZURE, url, sessions, params=VERSION, **more)


def bedrock(url: str, sessions: HttpSessions, **more: Any) -> LiteLLMExpert:
    return wire.expert_for(
        BEDROCK, url, sessions, **{"api_key": None, "params": {"aws_region_name": "eu-west-1"}, **more}
    )


def aws_event(kind: str, body: dict[str, Any]) -> bytes:
    """One message of AWS's binary event stream."""
    headers = b"".join(
        bytes([len(name)]) + name + b"\x07" + struct.pack("!H", len(value)) + value
        for name, value in ((b":event-type", kind.encode()), (b":content-type", b"application/json"),
                            (b":message-type", b"event"))
    )  # fmt: skip
    payload = msgspec.json.encode(body)
    head = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    head += struct.pack("!I", zlib.crc32(head))
    whole = head + headers + payload
    return whole + struct.pack("!I", zlib.crc32(whole))


AWS_STREAM = SSE.replace(b"text/event-stream", b"application/vnd.amazon.eventstream")
NOVA = [
    AWS_STREAM,
    piece(aws_event("messageStart", {"role": "assistant"})),
    piece(aws_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Good"}})),
    piece(aws_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": " day"}})),
    piece(aws_event("messageStop", {"stopReason": "end_turn"})),
    piece(aws_event("metadata", {"usage": {"inputTokens": 8, "outputTokens": 2, "totalTokens": 10}})),
    piece(b""),
]
NOVA_PLAIN = wire.json_answer(
    {
        "output": {"message": {"role": "assistant", "content": [{"text": "Good day"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 8, "outputTokens": 2, "totalTokens": 10},
    }
)


def decoded(given: list[bytes]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(one) for one in given if one != SILENCE.data]


def content(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


async def test_azure_streams(sessions: HttpSessions) -> None:
    async with RawServer(STREAM) as server:
        given, attempt, error = await read(azure(server.url, sessions), prompt(True, temperature=0.1))
        (request,) = server.requests
    chunks = decoded(given)
    assert error is None
    assert content(chunks) == "hi"
    assert chunks[-1]["choices"] == []
    assert Usage.of(chunks[-1]["usage"]).prompt_tokens == 1
    assert "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21" in request.head
    assert request.header("api-key") == wire.KEY
    assert request.body["temperature"] == 0.1
    assert (attempt.failure, attempt.upstream_status) == (None, 200)


async def test_azure_answers_plainly(sessions: HttpSessions) -> None:
    async with RawServer(
        PLAIN and wire.json_answer({**msgspec.json.decode(PLAIN), "created": 1, "model": "m"})
    ) as server:
        given, attempt, error = await read(azure(server.url, sessions), prompt(False))
    assert error is None
    (whole,) = decoded(given)
    assert whole["choices"][0]["message"]["content"] == "hi"
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert attempt.ended_s is not None


async def test_bedrock_streams(sessions: HttpSessions) -> None:
    async with RawServer(NOVA) as server:
        given, _, error = await read(bedrock(server.url, sessions), prompt(True))
        (request,) = server.requests
    chunks = decoded(given)
    assert error is None
    assert content(chunks) == "Good day"
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "stop"
    assert Usage.of(chunks[-1]["usage"]).completion_tokens == 2
    assert "AWS4-HMAC-SHA256" in (request.header("authorization") or "")


async def test_bedrock_answers_plainly(sessions: HttpSessions) -> None:
    async with RawServer(NOVA_PLAIN) as server:
        given, _, error = await read(bedrock(server.url, sessions), prompt(False))
    assert error is None
    assert decoded(given)[0]["choices"][0]["message"]["content"] == "Good day"
    assert decoded(given)[0]["usage"]["total_tokens"] == 10


async def test_gemini_gives_vectors(sessions: HttpSessions) -> None:
    vectors = wire.json_answer({"embeddings": [{"values": [0.5, -0.25]}, {"values": [1.0, 0.0]}]})
    async with RawServer(vectors) as server:
        expert = wire.expert_for("gemini/gemini-embedding-001", f"{server.url[:-3]}/v1beta", sessions)
        asked = Prompt({"input": ["a", "b"], "dimensions": 2}, stream=False, operation="embeddings")
        given, attempt, error = await read(expert, asked)
        (request,) = server.requests
    assert error is None
    (listed,) = decoded(given)
    assert listed["object"] == "list"
    assert [(one["index"], one["embedding"], one["object"]) for one in listed["data"]] == [
        (0, [0.5, -0.25], "embedding"), (1, [1.0, 0.0], "embedding"),
    ]  # fmt: skip
    assert listed["usage"].keys() >= {"prompt_tokens", "total_tokens"}
    assert request.header("x-goog-api-key") == wire.KEY
    assert attempt.failure is None


@pytest.mark.parametrize("operation", ["completions", "moderations"])
async def test_what_a_provider_has_not_is_refused(operation: Any, sessions: HttpSessions) -> None:
    asked = Prompt({"prompt": "a", "input": "a"}, stream=False, operation=operation)
    _, _, error = await read(wire.expert_for("anthropic", "http://127.0.0.1:1", sessions), asked)
    assert isinstance(error, ExpertFailed)
    assert (error.kind, error.final) == ("rejected", False)


async def test_a_parameter_that_is_a_setting_of_litellms_is_refused(sessions: HttpSessions) -> None:
    async with RawServer(STREAM) as server:
        _, _, error = await read(azure(server.url, sessions), prompt(True, mock_response="hi"))
    assert isinstance(error, ExpertFailed)
    assert (error.kind, error.param) == ("rejected", "mock_response")
    assert server.requests == []


async def test_a_provider_that_litellm_does_not_know_is_not_the_clients_fault(sessions: HttpSessions) -> None:
    expert = wire.expert_for("nowhere/model", "http://127.0.0.1:1", sessions)
    _, attempt, error = await read(expert, prompt(False))
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "connect"


def refusal(status: int, code: str, message: str, headers: str = "") -> bytes:
    return wire.json_answer({"error": {"code": code, "message": message}}, status=status, headers=headers)


SECRETIVE = f"bad {wire.KEY} at https://internal.example/x"
REFUSALS = {
    "429": (refusal(429, "429", "slow", "retry-after: 7\r\n"), ("rate_limited", 429, False, 7.0), None),
    "401": (refusal(401, "401", "Access denied due to invalid subscription key"), ("status", 401, False, None), None),
    "404": (refusal(404, "DeploymentNotFound", "no deployment"), ("status", 404, False, None), None),
    "500": (refusal(500, "500", "oops"), ("status", 500, False, None), None),
    "503": (refusal(503, "503", "busy"), ("status", 503, False, None), None),
    "400": (refusal(400, "x", SECRETIVE), ("rejected", 400, True, None), "bad [key] at [address]"),
    "too-long": (
        refusal(400, "context_length_exceeded", "This model's maximum context length is 8 tokens."),
        ("rejected", 400, False, None), None,
    ),
    "filtered": (
        refusal(400, "content_filter", "The response was filtered: content management policy"),
        ("rejected", 400, True, None), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize(("said", "expected", "words"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refusal_means_what_the_provider_means(
    *, said: bytes, expected: tuple[Any, ...], words: str | None, streamed: bool, sessions: HttpSessions
) -> None:
    async with RawServer(said) as server:
        _, attempt, error = await read(azure(server.url, sessions), prompt(streamed))
        assert len(server.requests) == 1, "litellm must not retry: the pool does"
    assert isinstance(error, ExpertFailed)
    assert (error.kind, error.upstream_status, error.final, error.retry_after_s) == expected
    assert attempt.failure == error.kind
    assert wire.KEY not in repr(error.__dict__)
    if words:
        assert error.message == words


async def test_nothing_is_printed_or_logged_by_litellm(
    sessions: HttpSessions, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with RawServer(refusal(400, "x", SECRETIVE), STREAM) as server:
        expert = azure(server.url, sessions)
        for _ in range(2):
            await read(expert, prompt(True, messages=[{"role": "user", "content": "my private words"}]))
    shown = "".join(capfd.readouterr()) + caplog.text
    assert wire.KEY not in shown
    assert "private words" not in shown
    assert "LiteLLM" not in shown


@pytest.mark.parametrize("then", [[CLOSE], [piece(b"data: {nonsense\n\n")]], ids=["cut", "garbage"])
async def test_what_breaks_in_the_middle_is_a_failure_after_what_came_before(
    then: list[object], sessions: HttpSessions
) -> None:
    async with RawServer([SSE, piece(data(EVENT)), *then]) as server:
        given, attempt, error = await read(azure(server.url, sessions), prompt(True))
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure
    assert error.kind in ("cut", "error_event", "stalled")
    assert content(decoded(given)) == "hi"


async def test_silence_then_a_stall(sessions: HttpSessions) -> None:
    async with RawServer([SSE, piece(data(EVENT))]) as server:
        expert = azure(server.url, sessions, limits=TimeLimits(silence_s=0.03, idle_s=0.15))
        given, attempt, error = await read(expert, prompt(True))
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "stalled"
    assert SILENCE.data in given


async def test_a_plain_answer_that_does_not_come_is_told_at_its_limit(sessions: HttpSessions) -> None:
    async with RawServer([]) as server:
        _, attempt, error = await read(azure(server.url, sessions, limits=TimeLimits(plain_s=0.15)), prompt(False))
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "first_byte"


async def test_the_deadline_ends_everything(sessions: HttpSessions) -> None:
    async with RawServer([]) as server:
        _, _, error = await read(azure(server.url, sessions), prompt(True), in_s=0.1)
    assert isinstance(error, DeadlineExceeded)


@pytest.mark.parametrize("make", [azure, bedrock], ids=["azure", "bedrock"])
@pytest.mark.parametrize("moment", ["head", "stream", "plain"])
async def test_a_client_that_leaves_closes_the_connection(make: Any, moment: str, sessions: HttpSessions) -> None:
    beginning = [AWS_STREAM, *NOVA[1:3]] if make is bedrock else [SSE, piece(data(EVENT))]
    async with RawServer(beginning if moment == "stream" else []) as server:
        expert = make(server.url, sessions, limits=TimeLimits(silence_s=0.02))
        upstream = expert.open(prompt(moment != "plain"), deadline_s=time.monotonic() + 60)
        reading = asyncio.create_task(upstream.__anext__())
        await asyncio.wait_for(server.asked.wait(), 20)
        if moment == "plain":
            reading.cancel()
        else:
            await reading
        upstream.close()
        await asyncio.wait_for(server.gone.wait(), 5)
    assert upstream.attempt.ended_s is not None


async def test_the_end_of_a_stream_is_told_once_and_then_again(sessions: HttpSessions) -> None:
    async with RawServer(STREAM) as server:
        upstream = azure(server.url, sessions).open(prompt(True), deadline_s=time.monotonic() + 60)
        async for _ in upstream:
            pass
        with pytest.raises(StopAsyncIteration):
            await anext(upstream)
        upstream.close()
        upstream.close()
    assert upstream.attempt.failure is None


@pytest.mark.parametrize("make", [azure, bedrock], ids=["azure", "bedrock"])
async def test_a_redirect_leads_nowhere_that_the_gateway_may_not_go(make: Any, sessions: HttpSessions) -> None:
    """The metadata service of a cloud hands out credentials to whoever asks."""
    there = b"HTTP/1.1 307 Moved\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n"
    async with RawServer(there) as server:
        _, attempt, error = await read(make(server.url, sessions), prompt(False))
        assert len(server.requests) == 1
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure
    assert "169.254" not in error.message


@pytest.mark.parametrize("make", [azure, bedrock], ids=["azure", "bedrock"])
async def test_no_proxy_is_taken_from_the_environment(
    make: Any, sessions: HttpSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RawServer(CLOSED) as proxy, RawServer(NOVA_PLAIN if make is bedrock else AZURE_PLAIN) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        _, _, error = await read(make(server.url, sessions), prompt(False))
        assert (error, proxy.connections, len(server.requests)) == (None, 0, 1)


def test_an_address_that_may_not_be_asked_is_refused_at_once() -> None:
    with pytest.raises(OSError, match="link-local"):
        wire.expert_for("anthropic", "http://169.254.169.254/v1", HttpSessions())


async def test_a_long_pause_of_the_reader_is_not_the_providers_silence(sessions: HttpSessions) -> None:
    async with RawServer(STREAM) as server:
        upstream = azure(server.url, sessions, limits=TimeLimits(idle_s=0.1)).open(
            prompt(True), deadline_s=time.monotonic() + 60
        )
        given = []
        async for chunk in upstream:
            given.append(chunk.data)
            await asyncio.sleep(0.15)
    assert content(decoded(given)) == "hi"
    assert upstream.attempt.failure is None


@pytest.mark.parametrize("make", [azure, bedrock], ids=["azure", "bedrock"])
async def test_a_question_that_may_have_been_heard_is_not_put_again(make: Any, sessions: HttpSessions) -> None:
    """litellm would; the pool knows what may be retried, and counts it."""
    async with RawServer([CLOSE]) as server:
        _, attempt, error = await read(make(server.url, sessions), prompt(False))
        assert len(server.requests) == 1
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "connect"


async def test_nobody_there_is_a_connection_that_failed(sessions: HttpSessions) -> None:
    for make in (azure, bedrock):
        _, _, error = await read(make("http://127.0.0.1:1/v1", sessions), prompt(False))
        assert isinstance(error, ExpertFailed)
        assert error.kind == "connect"


GEMINI_VECTORS = {"embeddings": [{"values": [0.5, -0.25]}]}
EMBED = Prompt({"input": ["a"]}, stream=False, operation="embeddings")


def vectors(url: str, sessions: HttpSessions, **more: Any) -> LiteLLMExpert:
    return wire.expert_for("gemini/gemini-embedding-001", f"{url[:-3]}/v1beta", sessions, **more)


TRACED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
ASKED = {
    "azure": (azure, AZURE_PLAIN, prompt(False)),
    "azure-stream": (azure, STREAM, prompt(True)),
    "bedrock": (bedrock, NOVA_PLAIN, prompt(False)),
    "bedrock-stream": (bedrock, NOVA, prompt(True)),
    "gemini-vectors": (vectors, wire.json_answer(GEMINI_VECTORS), EMBED),
    "azure-vectors": (
        azure, wire.json_answer({"object": "list", "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1},
                                 "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}), EMBED,
    ),
}  # fmt: skip
each = pytest.mark.parametrize(("make", "script", "asked"), ASKED.values(), ids=ASKED)


@each
async def test_the_trace_goes_on_and_no_answer_may_be_compressed(
    *, make: Any, script: Any, asked: Prompt, sessions: HttpSessions
) -> None:
    async with RawServer(script) as server:
        _, _, error = await read(make(server.url, sessions), replace(asked, headers=TRACED))
        (request,) = server.requests
    assert error is None
    assert {name: request.header(name) for name in TRACED} == TRACED
    assert request.header("accept-encoding") == "identity"


@each
async def test_the_deadline_ends_whatever_is_asked(
    *, make: Any, script: Any, asked: Prompt, sessions: HttpSessions
) -> None:
    async with RawServer([]) as server:
        expert = make(server.url, sessions)
        began = time.monotonic()
        _, _, error = await read(expert, asked, in_s=0.3)
        assert time.monotonic() - began < 2
        await asyncio.wait_for(server.gone.wait(), 5)
    assert isinstance(error, DeadlineExceeded)


GZIP = "content-encoding: gzip\r\n"


@each
async def test_a_compressed_answer_is_refused(*, make: Any, script: Any, asked: Prompt, sessions: HttpSessions) -> None:
    said = answer(gzip.compress(b" " * 1_000_000), kind="text/event-stream", headers=GZIP)
    async with RawServer(said) as server:
        given, attempt, error = await read(make(server.url, sessions), asked)
        assert len(server.requests) == 1
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "malformed"
    assert "compressed" in error.message
    assert not set(given) - {SILENCE.data}  # the first import of a provider's parts may take its time


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "plain"])
async def test_of_a_compressed_refusal_the_status_counts(*, streamed: bool, sessions: HttpSessions) -> None:
    body = gzip.compress(b'{"error": {"message": "my words"}}')
    async with RawServer(answer(body, status=429, headers=GZIP + "retry-after: 7\r\n")) as server:
        _, _, error = await read(azure(server.url, sessions), prompt(streamed))
    assert isinstance(error, ExpertFailed)
    assert (error.kind, error.upstream_status, error.retry_after_s) == ("rate_limited", 429, 7.0)


@pytest.mark.parametrize("make", [azure, bedrock], ids=["azure", "bedrock"])
async def test_an_answer_beyond_the_limit_is_not_read_to_its_end(*, make: Any, sessions: HttpSessions) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    much = [head, *[piece(b" " * 1_000_000)] * 200]
    async with RawServer(much) as server:
        _, attempt, error = await read(make(server.url, sessions), prompt(False))
        await asyncio.wait_for(server.gone.wait(), 5)
        assert len(server.requests) == 1
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "malformed"
    assert "too large" in error.message


async def test_an_event_without_an_end_ends_the_stream(sessions: HttpSessions) -> None:
    endless = [SSE, piece(data(EVENT)), piece(b"data: "), *[piece(b"x" * 1_000_000)] * 200]
    async with RawServer(endless) as server:
        given, attempt, error = await read(azure(server.url, sessions), prompt(True))
        await asyncio.wait_for(server.gone.wait(), 5)
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "malformed"
    assert content(decoded(given)) == "hi"


async def test_a_long_stream_of_short_events_has_no_limit(sessions: HttpSessions) -> None:
    event = EVENT.replace(b'"hi"', b'"%b"' % (b"x" * 900_000))
    async with RawServer([SSE, *[piece(data(event))] * 6, STREAM.removeprefix(SSE)]) as server:
        given, _, error = await read(azure(server.url, sessions), prompt(True))
    assert error is None
    assert len(content(decoded(given))) == 6 * 900_000 + 2


def test_vectors_may_be_larger_than_words() -> None:
    """And each has its limit: one byte more is a failure that the call remembers."""
    errand = Errand(lambda _: pytest.fail("nobody asks"), {}, most_bytes=100)
    meter = Meter(errand)
    meter.count(b"x" * 100)
    with pytest.raises(ExpertFailed, match="too large"):
        meter.count(b"x")
    assert errand.failure is not None
    assert VECTORS_BYTES > PLAIN_BYTES
