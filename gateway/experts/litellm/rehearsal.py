"""One question in each dialect that nobody is asked, in the thread that imports litellm.

litellm imports and builds much when it is first used (0.8 s for Anthropic); this way no call waits for it in the event
loop, and its one-time warnings are not printed in the middle of a log.
"""

from types import ModuleType
from typing import Any, Final

import msgspec

from conclave.gateway.call import Chunk
from conclave.gateway.experts.litellm.anthropic import AnthropicDialect
from conclave.gateway.experts.litellm.dialect import Account, Dialect
from conclave.gateway.experts.litellm.gemini import GeminiDialect
from conclave.gateway.prompt import Prompt

SAID: Final[dict[str, Any]] = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}],
    "tools": [{"type": "function", "function": {"name": "wave", "parameters": {"type": "object", "properties": {}}}}],
    "max_tokens": 1,
}
MESSAGE: Final[dict[str, Any]] = {
    **{"type": "message", "id": "msg_0", "role": "assistant", "model": "claude", "stop_reason": "end_turn"},
    "content": [{"type": "text", "text": "Hello."}, {"type": "tool_use", "id": "t", "name": "wave", "input": {}}],
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
CANDIDATE: Final[dict[str, Any]] = {
    "candidates": [
        {
            "content": {"role": "model", "parts": [{"text": "Hello."}, {"functionCall": {"name": "wave", "args": {}}}]},
            "finishReason": "STOP",
        }
    ],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
    "modelVersion": "gemini",
    "responseId": "0",
}
EVENTS: Final[tuple[dict[str, Any], ...]] = (
    {"type": "message_start", "message": {**MESSAGE, "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hello."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
)


def rehearse(litellm: ModuleType) -> list[Chunk]:
    """What two answers become; whoever calls this wants only that it was done once."""
    anthropic = AnthropicDialect(Account("claude-haiku-4-5", "no-key", "https://localhost", {}, drop=False))
    gemini = GeminiDialect(Account("gemini-2.5-flash", "no-key", "https://localhost", {}, drop=False))
    return _asked(litellm, anthropic, MESSAGE, EVENTS) + _asked(litellm, gemini, CANDIDATE, (CANDIDATE,))


def _asked(
    litellm: ModuleType, dialect: Dialect, answer: dict[str, Any], events: tuple[dict[str, Any], ...]
) -> list[Chunk]:
    question = dialect.question(litellm, Prompt(SAID, stream=True), created=0)
    chunks = [question.whole(msgspec.json.encode(answer))]
    for event in events:
        chunks += question.reader.read(msgspec.json.encode(event))
    return chunks
