"""Anthropic and Gemini over the gateway's own connections: what is sent, what comes back, how it fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from conclave.gateway.api.chat import parse
from conclave.gateway.call import SILENCE
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.openai_http import HttpSessions, TimeLimits
from conclave.gateway.reply import MOST_SKIPPED, Reply
from conclave.gateway.usage import Usage

from . import provider_wire as wire
from .asking import WITHIN_S, prompt, read
from .raw_server import CLOSE, RESET, SSE, RawServer, piece

pytestmark = wire.needs_litellm

TEXT = {"anthropic": wire.ANTHROPIC_TEXT, "gemini": wire.GEMINI_TEXT}
TOOL = {"anthropic": wire.ANTHROPIC_TOOL, "gemini": wire.GEMINI_TOOL}
PLAIN = {"anthropic": wire.ANTHROPIC_PLAIN, "gemini": wire.GEMINI_PLAIN}
BEGINNING = {
    "anthropic": wire.anthropic(wire.START, wire.TEXT_BLOCK, wire.text("hello")),
    "gemini": wire.google(wire.candidate({"text": "hello"})),
}
both = pytest.mark.parametrize("provider", ["anthropic", "gemini"])


@pytest.fixture
async def sessions() -> AsyncIterator[HttpSessions]:
    made = HttpSessions()
    yield made
    await wire.put_away(made)


def decoded(given: Sequence[bytes]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(one) for one in given if one != SILENCE.data]


def content(chunks: Sequence[dict[str, Any]], name: str = "content") -> str:
    return "".join(choice["delta"].get(name) or "" for chunk in chunks for choice in chunk["choices"])


@both
async def test_a_streamed_text_is_a_stream_of_chat_completion_chunks(provider: str, sessions: HttpSessions) -> None:
    async with RawServer(TEXT[provider]) as server:
        given, attempt, error = await read(wire.expert_for(provider, server.url, sessions), prompt(True))
    chunks = decoded(given)
    assert error is None
    assert content(chunks).removesuffix("!") == 'Grüß "Gott"'
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]] == [None] * (len(chunks) - 2) + ["stop"]
    assert {(c["id"], c["model"], c["object"]) for c in chunks} == {
        (chunks[0]["id"], chunks[0]["model"], "chat.completion.chunk")
    }
    assert chunks[-1]["choices"] == []
    counted = Usage.of(chunks[-1]["usage"])
    expected = {"anthropic": (30, 12, 5), "gemini": (7, 3, None)}[provider]
    assert (counted.prompt_tokens, counted.completion_tokens, counted.cached_tokens) == expected
    assert attempt.failure is None
    assert attempt.upstream_status == 200
    assert attempt.ended_s is not None


@both
async def test_a_streamed_tool_call_is_put_together_as_openai_clients_do(provider: str, sessions: HttpSessions) -> None:
    async with RawServer(TOOL[provider]) as server:
        given, _, error = await read(wire.expert_for(provider, server.url, sessions), prompt(True, tools=wire.TOOLS))
    assert error is None
    chunks = decoded(given)
    calls = [call for c in chunks for choice in c["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["id"]
    assert calls[0]["function"]["name"] == "get_weather"
    arguments = "".join(call["function"].get("arguments", "") for call in calls)
    assert msgspec.json.decode(arguments) == {"city": "Graz"}
    assert content(chunks) == "Let me see."
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "tool_calls"


@both
async def test_a_plain_answer_is_a_chat_completion(provider: str, sessions: HttpSessions) -> None:
    async with RawServer(PLAIN[provider]) as server:
        given, attempt, error = await read(wire.expert_for(provider, server.url, sessions), prompt(False))
    assert error is None
    (whole,) = decoded(given)
    (choice,) = whole["choices"]
    assert whole["object"] == "chat.completion"
    assert whole["id"] in ("msg_02", "resp_1")
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "Let me see."
    (call,) = choice["message"]["tool_calls"]
    assert msgspec.json.decode(call["function"]["arguments"]) == {"city": "Graz"}
    assert whole["usage"]["total_tokens"] == {"anthropic": 39, "gemini": 10}[provider]
    assert attempt.failure is None


async def test_thoughts_are_told_apart_from_the_answer(sessions: HttpSessions) -> None:
    async with RawServer(wire.ANTHROPIC_THOUGHT) as server:
        expert = wire.expert_for("anthropic", server.url, sessions)
        given, _, error = await read(expert, prompt(True, thinking={"type": "enabled", "budget_tokens": 1024}))
    assert error is None
    chunks = decoded(given)
    assert content(chunks) == "Yes."
    assert content(chunks, "reasoning_content") == "Hmm. "
    blocks = [b for c in chunks for choice in c["choices"] for b in choice["delta"].get("thinking_blocks", ())]
    assert blocks[-1]["signature"] == "c2ln"
    assert server.requests[0].body["thinking"] == {"type": "enabled", "budget_tokens": 1024}


async def test_anthropic_is_asked_in_its_own_words(sessions: HttpSessions) -> None:
    said = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function",
                                              "function": {"name": "get_weather", "arguments": '{"city": "Graz"}'}}]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ]  # fmt: skip
    async with RawServer(wire.ANTHROPIC_TEXT) as server:
        expert = wire.expert_for("anthropic", server.url, sessions)
        more = {"tools": wire.TOOLS, "max_tokens": 9, "stop": "x", "n": 1, "user": None, "seed": 7, "store": False}
        asked = prompt(True, **{**more, "messages": said, "stream_options": {"include_usage": True}})
        await read(expert, asked)
        (request,) = server.requests
    assert request.head.startswith("POST /v1/messages HTTP/1.1")
    assert request.header("x-api-key") == wire.KEY
    assert request.header("authorization") is None
    assert request.header("anthropic-version") == "2023-06-01"
    body = request.body
    assert body["model"] == "claude-haiku-4-5"
    assert body["stream"] is True
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    assert body["max_tokens"] == 9
    assert body["stop_sequences"] == ["x"]
    assert body["tools"][0]["input_schema"]["required"] == ["city"]
    user, assistant, result = body["messages"]
    assert user["content"][0]["source"] == {"type": "url", "url": "https://a.example/b.png"}
    assert assistant["content"][0]["input"] == {"city": "Graz"}
    assert result["content"][0]["tool_use_id"] == "c"
    assert not body.keys() & {"n", "seed", "store", "user", "stream_options"}
    assert said[0]["role"] == "developer", "what the client sent must not change: another expert may be asked with it"


async def test_gemini_is_asked_in_its_own_words(sessions: HttpSessions) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [picture]}]
    schema = {"type": "object", "properties": {"x": {"type": "string"}}}
    async with RawServer(wire.GEMINI_TEXT) as server:
        expert = wire.expert_for("gemini", server.url, sessions)
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        await read(expert, prompt(True, messages=said, temperature=0.5, response_format=form))
        (request,) = server.requests
    assert request.head.startswith("POST /v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse HTTP/1.1")
    assert request.header("x-goog-api-key") == wire.KEY
    assert wire.KEY not in request.head.partition("\r\n")[0]
    assert request.body["system_instruction"] == {"parts": [{"text": "Be brief."}]}
    assert request.body["contents"][0]["parts"][0]["inline_data"] == {"data": "AAAA", "mime_type": "image/png"}
    assert request.body["generationConfig"]["temperature"] == 0.5
    assert request.body["generationConfig"]["response_mime_type"] == "application/json"


async def test_a_trace_goes_along_and_the_keys_header_cannot_be_replaced_by_a_client(sessions: HttpSessions) -> None:
    async with RawServer(wire.ANTHROPIC_PLAIN) as server:
        expert = wire.expert_for("anthropic", server.url, sessions)
        asked = prompt(False)
        with_trace = type(asked)(asked.body, stream=False, headers={"traceparent": "00-1-2-01"})
        await read(expert, with_trace)
        _, _, error = await read(expert, prompt(False, extra_headers={"x-api-key": "mine"}))
    assert server.requests[0].header("traceparent") == "00-1-2-01"
    assert len(server.requests) == 1
    assert isinstance(error, ExpertFailed)


@both
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_base", "http://evil.example"),
        ("base_url", "http://evil.example"),
        ("api_key", "mine"),
        ("mock_response", "hi"),
        ("extra_headers", {"host": "evil.example"}),
        ("extra_body", {"a": 1}),
        ("custom_llm_provider", "openai"),
        ("fallbacks", ["openai/gpt-4o"]),
        ("logit_bias", {"1": 5}),
        ("vertex_credentials", "{}"),
    ],
)
async def test_what_the_provider_does_not_know_is_refused_by_name_and_never_sent(
    provider: str, name: str, value: object, sessions: HttpSessions
) -> None:
    """litellm takes its settings beside the parameters: a client that could set `api_base` would be sent the key."""
    async with RawServer(PLAIN[provider]) as server:
        _, attempt, error = await read(wire.expert_for(provider, server.url, sessions), prompt(False, **{name: value}))
    assert isinstance(error, ExpertFailed)
    assert (error.kind, error.param, error.final) == ("rejected", name, False)
    assert attempt.failure == "rejected"
    assert server.requests == []


async def test_an_operator_may_have_unknown_parameters_dropped(sessions: HttpSessions) -> None:
    async with RawServer(wire.ANTHROPIC_PLAIN) as server:
        expert = wire.expert_for(
            "anthropic", server.url, sessions, params={"drop_params": True, "max_tokens": 77, "top_k": 3}
        )
        _, _, error = await read(expert, prompt(False, logit_bias={"1": 5}, api_base="http://evil.example", top_k=4))
        (request,) = server.requests
    assert error is None
    assert request.body["max_tokens"] == 77
    assert request.body["top_k"] == 4
    assert not request.body.keys() & {"logit_bias", "api_base", "drop_params"}


@pytest.mark.parametrize(
    ("provider", "part"),
    [
        pytest.param("gemini", {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}, id="gemini"),
        pytest.param("gemini", {"type": "image_url", "image_url": "http://127.0.0.1/b.png"}, id="a-bare-string"),
        pytest.param("gemini", {"type": "image_url", "image_url": {"url": "gs://bucket/b.png"}}, id="a-bucket"),
        pytest.param("gemini", {"type": "file", "file": {"file_id": "https://a.example/b.pdf"}}, id="a-file"),
        pytest.param("anthropic", {"type": "image_url", "image_url": {"url": "http://10.0.0.1/b.png"}}, id="http"),
        pytest.param("anthropic", {"type": "image_url", "image_url": {"url": "FILE:///etc/passwd"}}, id="a-path"),
    ],
)
async def test_no_address_of_a_clients_is_fetched(provider: str, part: dict[str, Any], sessions: HttpSessions) -> None:
    said = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]
    async with RawServer(PLAIN[provider]) as server:
        _, _, error = await read(wire.expert_for(provider, server.url, sessions), prompt(False, messages=said))
    assert isinstance(error, ExpertFailed)
    assert (error.kind, error.final, error.code) == ("rejected", False, "unsupported_url")
    assert (error.param or "").startswith("messages[0].content[1]")
    assert server.requests == []


FAILURES = {
    "overloaded": (
        "anthropic", wire.anthropic_error("overloaded_error", "Overloaded", 529), ("status", 529, False, None),
    ),
    "anthropic-429": (
        "anthropic", wire.anthropic_error("rate_limit_error", "slow down", 429, "retry-after: 12\r\n"),
        ("rate_limited", 429, False, 12.0),
    ),
    "google-429": (
        "gemini",
        wire.google_error("RESOURCE_EXHAUSTED", "You exceeded your current quota", 429, details=[
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]),
        ("rate_limited", 429, False, 34.5),
    ),
    "anthropic-401": (
        "anthropic", wire.anthropic_error("authentication_error", "invalid key", 401), ("status", 401, False, None),
    ),
    "google-bad-key": (
        "gemini", wire.google_error("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", 400),
        ("status", 400, False, None),
    ),
    "no-credit": (
        "anthropic",
        wire.anthropic_error("invalid_request_error", "Your credit balance is too low to access the API.", 400),
        ("status", 400, False, None),
    ),
    "too-long": (
        "anthropic", wire.anthropic_error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", 400),
        ("rejected", 400, False, None),
    ),
    "google-too-long": (
        "gemini",
        wire.google_error("INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens", 400),
        ("rejected", 400, False, None),
    ),
    "bad-request": (
        "anthropic", wire.anthropic_error("invalid_request_error", "temperature: range: 0..1", 400),
        ("rejected", 400, True, None),
    ),
    "no-such-model": (
        "gemini", wire.google_error("NOT_FOUND", "models/x is not found", 404), ("status", 404, False, None),
    ),
    "html": ("anthropic", b"HTTP/1.1 502 Bad\r\ncontent-length: 6\r\n\r\n<html>", ("status", 502, False, None)),
}  # fmt: skip


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize(("provider", "said", "expected"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_refusal_means_what_the_provider_means(
    *, provider: str, said: bytes, expected: tuple[Any, ...], streamed: bool, sessions: HttpSessions
) -> None:
    async with RawServer(said) as server:
        given, attempt, error = await read(wire.expert_for(provider, server.url, sessions), prompt(streamed))
    assert isinstance(error, ExpertFailed)
    assert (error.kind, error.upstream_status, error.final, error.retry_after_s) == expected
    assert attempt.failure == error.kind
    assert attempt.upstream_status == error.upstream_status
    assert decoded(given) == []
    if "too-long" in str(said):
        assert error.code == "context_length_exceeded"


@both
@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "plain"])
async def test_no_error_shows_the_key_or_an_address(provider: str, streamed: bool, sessions: HttpSessions) -> None:
    words = f"bad value in {wire.KEY} at https://internal.example/v1?key={wire.KEY}"
    said = {"anthropic": wire.anthropic_error("invalid_request_error", words, 400),
            "gemini": wire.google_error("INVALID_ARGUMENT", words, 400)}[provider]  # fmt: skip
    async with RawServer(said) as server:
        _, _, error = await read(wire.expert_for(provider, server.url, sessions), prompt(streamed))
    assert isinstance(error, ExpertFailed)
    assert "bad value" in error.message
    assert wire.KEY not in repr(error.__dict__)
    assert "internal.example" not in repr(error.__dict__)


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
EXHAUSTED = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}
BROKEN = {
    "anthropic-error-event": ("anthropic", [piece(wire.anthropic(OVERLOADED))], "error_event"),
    "gemini-error-event": ("gemini", [piece(wire.google(EXHAUSTED))], "error_event"),
    "anthropic-cut": ("anthropic", [CLOSE], "cut"),
    "gemini-cut": ("gemini", [RESET], "cut"),
    "anthropic-ends-early": ("anthropic", [piece(b"")], "cut"),
    "gemini-ends-early": ("gemini", [piece(b"")], "cut"),
    "anthropic-event-without-end": ("anthropic", [piece(b"data: " + b"x" * 5_000_000)], "malformed"),
}  # fmt: skip


@pytest.mark.parametrize(("provider", "then", "kind"), BROKEN.values(), ids=BROKEN.keys())
async def test_what_breaks_in_the_middle_is_told_after_what_came_before(
    provider: str, then: list[object], kind: str, sessions: HttpSessions
) -> None:
    async with RawServer([SSE, piece(BEGINNING[provider]), *then]) as server:
        given, attempt, error = await read(wire.expert_for(provider, server.url, sessions), prompt(True))
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == kind
    assert content(decoded(given)) == "hello"


UNREADABLE = {
    "anthropic-garbage": ("anthropic", b"data: {nonsense\n\n"),
    "anthropic-odd-block": ("anthropic", wire.anthropic({"type": "content_block_start", "index": 1})),
    "anthropic-choices": ("anthropic", b'data: {"type": "message_delta", "choices": []}\n\n'),
    "gemini-garbage": ("gemini", b'data: {"candidates": 7}\n\n'),
    "gemini-no-object": ("gemini", b"data: [1]\n\n"),
}
ENDING = {
    "anthropic": wire.anthropic(wire.text(" there"), wire.STOP_BLOCK, wire.ended(), wire.STOP),
    "gemini": wire.google(wire.candidate({"text": " there"}, finishReason="STOP")),
}


async def shown(provider: str, server: RawServer, sessions: HttpSessions) -> tuple[list[bytes], dict[str, Any]]:
    """What a client sees of a stream."""
    reply = Reply(parse(b'{"model":"m","stream":true,"messages":[{"role":"user","content":"a"}]}'), digest_key=b"k")
    upstream = wire.expert_for(provider, server.url, sessions).open(prompt(True), deadline_s=time.monotonic() + 60)
    try:
        given = [out.data async for chunk in upstream for out in reply.feed(chunk)]
        given += [out.data for out in reply.finish({})]
    finally:
        upstream.close()
    return given, msgspec.json.decode(given[-1])["conclave"]


@pytest.mark.parametrize("times", [1, MOST_SKIPPED])
@pytest.mark.parametrize(("provider", "event"), UNREADABLE.values(), ids=UNREADABLE)
async def test_unreadable_events_after_the_first_word_are_passed_over(
    *, provider: str, event: bytes, times: int, sessions: HttpSessions
) -> None:
    script = [SSE, piece(BEGINNING[provider]), piece(event * times), piece(ENDING[provider]), piece(b"")]
    async with RawServer(script) as server:
        given, explained = await shown(provider, server, sessions)
    assert content(decoded(given)) == "hello there"
    assert explained == {"skipped_events": times}


@pytest.mark.parametrize(("provider", "event"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("begun", [True, False], ids=["too-many", "before-the-first-word"])
async def test_more_unreadable_events_than_that_end_the_stream(
    *, provider: str, event: bytes, begun: bool, sessions: HttpSessions
) -> None:
    said = BEGINNING[provider] + event * (MOST_SKIPPED + 1) if begun else event
    async with RawServer([SSE, piece(said), piece(ENDING[provider]), piece(b"")]) as server:
        with pytest.raises(ExpertFailed) as failed:
            await shown(provider, server, sessions)
    assert failed.value.kind == "malformed"


async def test_an_error_before_the_first_event_is_a_failure_without_a_word(sessions: HttpSessions) -> None:
    async with RawServer([SSE, piece(wire.anthropic(OVERLOADED))]) as server:
        given, _, error = await read(wire.expert_for("anthropic", server.url, sessions), prompt(True))
    assert isinstance(error, ExpertFailed)
    assert (error.kind, error.code, decoded(given)) == ("error_event", "overloaded_error", [])


async def test_an_event_cut_into_single_bytes_is_read_all_the_same(sessions: HttpSessions) -> None:
    whole = wire.anthropic(wire.START, wire.TEXT_BLOCK, wire.text("a"), wire.STOP_BLOCK, wire.ended(), wire.STOP)
    async with RawServer([SSE, *(piece(whole[i : i + 1]) for i in range(len(whole))), piece(b"")]) as server:
        given, _, error = await read(wire.expert_for("anthropic", server.url, sessions), prompt(True))
    assert error is None
    assert content(decoded(given)) == "a"


async def test_the_providers_own_end_is_the_end_even_if_the_connection_goes_on(sessions: HttpSessions) -> None:
    whole = wire.anthropic(wire.START, wire.TEXT_BLOCK, wire.text("a"), wire.STOP_BLOCK, wire.ended(), wire.STOP)
    async with RawServer([SSE, piece(whole)]) as server:
        expert = wire.expert_for("anthropic", server.url, sessions, limits=TimeLimits(idle_s=0.5, linger_s=0.1))
        given, attempt, error = await read(expert, prompt(True))
    assert (error, attempt.failure) == (None, None)
    assert content(decoded(given)) == "a"


@both
async def test_a_pause_is_silence_and_not_the_end(provider: str, sessions: HttpSessions) -> None:
    async with RawServer([SSE, piece(BEGINNING[provider])]) as server:
        upstream = wire.expert_for(provider, server.url, sessions).open(prompt(True), deadline_s=time.monotonic() + 60)
        got = [await anext(upstream) for _ in range(4)]
        upstream.close()
    assert SILENCE in got


@both
async def test_silence_past_the_idle_limit_is_a_stall(provider: str, sessions: HttpSessions) -> None:
    async with RawServer([SSE, piece(BEGINNING[provider])]) as server:
        expert = wire.expert_for(provider, server.url, sessions, limits=TimeLimits(idle_s=0.1))
        _, attempt, error = await read(expert, prompt(True))
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "stalled"


async def test_the_deadline_ends_everything(sessions: HttpSessions) -> None:
    async with RawServer([SSE]) as server:
        _, _, error = await read(wire.expert_for("gemini", server.url, sessions), prompt(True), in_s=0.1)
    assert isinstance(error, DeadlineExceeded)


@both
@pytest.mark.parametrize("moment", ["head", "stream", "plain"])
async def test_a_client_that_leaves_closes_the_connection(provider: str, moment: str, sessions: HttpSessions) -> None:
    scripts: dict[str, list[object]] = {"head": [], "stream": [SSE, piece(BEGINNING[provider])], "plain": []}
    async with RawServer(scripts[moment]) as server:
        expert = wire.expert_for(provider, server.url, sessions, limits=TimeLimits(silence_s=0.02))
        upstream = expert.open(prompt(moment != "plain"), deadline_s=time.monotonic() + 60)
        reading = asyncio.create_task(upstream.__anext__())
        await server.asked.wait()
        if moment != "plain":
            await reading
        else:
            reading.cancel()
        upstream.close()
        left_s = time.monotonic()
        await asyncio.wait_for(server.gone.wait(), 5)
        gone_after_s = time.monotonic() - left_s
    assert gone_after_s < WITHIN_S
    assert upstream.attempt.ended_s is not None


@both
async def test_a_connection_is_used_again(provider: str, sessions: HttpSessions) -> None:
    async with RawServer(TEXT[provider]) as server:
        expert = wire.expert_for(provider, server.url, sessions)
        for _ in range(3):
            _, _, error = await read(expert, prompt(True))
            assert error is None
            await asyncio.sleep(0.02)
        assert server.connections == 1


async def test_a_server_that_is_not_there_cannot_be_reached(sessions: HttpSessions) -> None:
    _, attempt, error = await read(wire.expert_for("anthropic", "http://127.0.0.1:1", sessions), prompt(True))
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "connect"


async def test_a_blocked_question_is_a_content_filter(sessions: HttpSessions) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7},
               "modelVersion": "g", "responseId": "r"}  # fmt: skip
    async with RawServer(wire.stream(wire.google(blocked))) as server:
        given, _, error = await read(wire.expert_for("gemini", server.url, sessions), prompt(True))
    assert error is None
    assert [c["choices"][0]["finish_reason"] for c in decoded(given) if c["choices"]][-1] == "content_filter"
