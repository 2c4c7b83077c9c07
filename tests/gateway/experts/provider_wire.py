"""What Anthropic's and Google's servers say on the wire, for a `RawServer` to say it."""

import importlib.util
from typing import Any

import msgspec
import pytest

from conclave.gateway.experts.litellm.runtime import Runtime
from conclave.gateway.experts.litellm_expert import LiteLLMExpert
from conclave.gateway.experts.openai_http import HttpSessions, TimeLimits

from .raw_server import SSE, answer, piece

needs_litellm = pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="needs the extra `providers`")

KEY = "sk-ant-api03-very-secret"
RUNTIME = Runtime()  # litellm is imported once for all tests
MADE: list[LiteLLMExpert] = []
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
MODELS = {"anthropic": "anthropic/claude-haiku-4-5", "gemini": "gemini/gemini-2.5-flash"}


def expert_for(provider: str, url: str, sessions: HttpSessions, **more: Any) -> LiteLLMExpert:
    """Of a server's root address."""
    facts = {"api_key": KEY, "base_url": url.removesuffix("/v1"), "limits": TimeLimits(silence_s=0.05), **more}
    expert = LiteLLMExpert("e", MODELS.get(provider, provider), runtime=RUNTIME, sessions=sessions, **facts)
    MADE.append(expert)
    return expert


async def put_away(sessions: HttpSessions) -> None:
    """Close the experts that were made, and then their connections."""
    for expert in MADE:
        await expert.aclose()
    MADE.clear()
    await sessions.aclose()


def anthropic(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), msgspec.json.encode(e)) for e in events)


def google(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\r\n\r\n" % msgspec.json.encode(event) for event in events)


def stream(*pieces: bytes) -> list[bytes]:
    """A whole streamed answer; each piece is a read of its own."""
    return [SSE, *map(piece, pieces), piece(b"")]


def json_answer(body: Any, *, status: int = 200, headers: str = "") -> bytes:
    return answer(msgspec.json.encode(body), status=status, headers=headers)


START = {
    "type": "message_start",
    "message": {
        **{"id": "msg_01", "type": "message", "role": "assistant", "model": "claude-haiku-4-5-20251001"},
        **{"content": [], "stop_reason": None, "stop_sequence": None},
        "usage": {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 1},
    },
}
TEXT_BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
STOP_BLOCK = {"type": "content_block_stop", "index": 0}
PING = {"type": "ping"}
STOP = {"type": "message_stop"}


def delta(index: int = 0, **what: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": what}


def text(words: str) -> dict[str, Any]:
    return delta(type="text_delta", text=words)


def ended(reason: str = "end_turn", tokens: int = 12) -> dict[str, Any]:
    said = {"stop_reason": reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": said, "usage": {"output_tokens": tokens}}


ANTHROPIC_TEXT = stream(
    anthropic(START, TEXT_BLOCK, PING), anthropic(text("Grüß")), anthropic(text(' "Gott"')),
    anthropic(STOP_BLOCK, ended(), STOP),
)  # fmt: skip
ANTHROPIC_TOOL = stream(
    anthropic(START, TEXT_BLOCK, text("Let me see."), STOP_BLOCK),
    anthropic(
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}},
        },
        delta(1, type="input_json_delta", partial_json=""),
        delta(1, type="input_json_delta", partial_json='{"city":'),
    ),
    anthropic(
        delta(1, type="input_json_delta", partial_json=' "Graz"}'), {"type": "content_block_stop", "index": 1},
        ended("tool_use"), STOP,
    ),
)  # fmt: skip
ANTHROPIC_THOUGHT = stream(
    anthropic(
        START,
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        delta(type="thinking_delta", thinking="Hmm. "),
        delta(type="signature_delta", signature="c2ln"),
        STOP_BLOCK,
        {**TEXT_BLOCK, "index": 1},
        delta(1, type="text_delta", text="Yes."),
        {**STOP_BLOCK, "index": 1},
        ended(),
        STOP,
    )
)
ANTHROPIC_PLAIN = json_answer(
    {
        **{"id": "msg_02", "type": "message", "role": "assistant", "model": "claude-haiku-4-5-20251001"},
        "content": [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "toolu_2", "name": "get_weather", "input": {"city": "Graz"}},
        ],
        **{"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"input_tokens": 30, "output_tokens": 9},
    }
)


def candidate(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
        **{"modelVersion": "gemini-2.5-flash", "responseId": "resp_1"},
    }


GEMINI_TEXT = stream(
    google(candidate({"text": "Grüß"})), google(candidate({"text": ' "Gott"'})),
    google(candidate({"text": "!"}, finishReason="STOP")),
)  # fmt: skip
GEMINI_TOOL = stream(
    google(candidate({"text": "Let me see."})),
    google(candidate({"functionCall": {"name": "get_weather", "args": {"city": "Graz"}}}, finishReason="STOP")),
)
GEMINI_PLAIN = json_answer(
    candidate(
        {"text": "Let me see."},
        {"functionCall": {"name": "get_weather", "args": {"city": "Graz"}}},
        finishReason="STOP",
    )
)


def anthropic_error(kind: str, message: str, status: int, headers: str = "") -> bytes:
    said = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return json_answer(said, status=status, headers=headers)


def google_error(code: str, message: str, status: int, **more: Any) -> bytes:
    return json_answer({"error": {"code": status, "message": message, "status": code, **more}}, status=status)
