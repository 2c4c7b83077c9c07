"""Writes answers as chat.completions: from what litellm made of a provider's event or body, and the short way for text.

Decides which of litellm's fields a client sees: OpenAI's own, and two that its clients know from other gateways
(`reasoning_content`, and `thinking_blocks`, without which a conversation that thinks cannot go on). Reads no bytes.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from conclave.gateway.call import Chunk

SAID: Final = ("role", "content", "reasoning_content", "thinking_blocks", "refusal", "annotations", "images", "audio")
ENCODE: Final = msgspec.json.Encoder(enc_hook=lambda value: value.model_dump(exclude_none=True)).encode


class Writer:
    """The chunks of one stream, all with the same identity. `begun` says that the role has been written."""

    __slots__ = ("_after", "_before", "_identity", "begun")

    def __init__(self, answer_id: str, model: str, *, created: int) -> None:
        self.begun = False
        self._identity = {"id": answer_id, "object": "chat.completion.chunk", "created": created, "model": model}
        head = ENCODE(self._identity)[:-1]
        self._before = head + b',"choices":[{"index":0,"delta":{"content":'
        self._after = b'},"finish_reason":null}]}'

    def text(self, text: str) -> Chunk:
        """The usual chunk, without a dictionary: 1 us."""
        return Chunk(self._before + ENCODE(text) + self._after)

    def role(self) -> Chunk:
        self.begun = True
        return self._choices([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])

    def parsed(self, event: Any, *, finishes: bool) -> list[Chunk]:
        """Of litellm's ModelResponseStream: what it says, and its usage in a chunk of its own.

        `finishes`: whether the event may carry a finish reason (litellm's objects say `stop` by default).
        """
        chunks = [self.role()] if not self.begun else []
        fields = event.model_dump(exclude_none=True, warnings=False)
        choices = [_choice(choice, "delta", finishes=finishes) for choice in fields.get("choices", ())]
        if any(choice["delta"] or choice["finish_reason"] for choice in choices):
            chunks.append(self._choices(choices))
        if finishes and fields.get("usage"):
            chunks.append(Chunk(ENCODE({**self._identity, "choices": [], "usage": fields["usage"]})))
        return chunks

    def _choices(self, choices: list[dict[str, Any]]) -> Chunk:
        return Chunk(ENCODE({**self._identity, "choices": choices}))


def plain(answer: Any, *, answer_id: str | None) -> Chunk:
    """Of litellm's ModelResponse."""
    fields = answer.model_dump(exclude_none=True, warnings=False)
    choices = [_choice(choice, "message", finishes=True) for choice in fields.get("choices", ())]
    for choice in choices:
        choice["message"] = {"role": "assistant", "content": None, **choice["message"]}
    return Chunk(
        ENCODE(
            {
                "id": answer_id or fields.get("id"),
                "object": "chat.completion",
                "created": fields.get("created"),
                "model": fields.get("model"),
                "choices": choices,
                **({"usage": fields["usage"]} if fields.get("usage") else {}),
            }
        )
    )


def _choice(choice: Mapping[str, Any], part: str, *, finishes: bool) -> dict[str, Any]:
    said = choice.get(part) or {}
    shown = {name: said[name] for name in SAID if said.get(name)}
    if said.get("tool_calls"):
        shown["tool_calls"] = [_tool_call(call, streamed=part == "delta") for call in said["tool_calls"]]
    kept = {"index": choice.get("index", 0), part: shown}
    if choice.get("logprobs"):
        kept["logprobs"] = choice["logprobs"]
    return {**kept, "finish_reason": choice.get("finish_reason") if finishes else None}


def _tool_call(call: Mapping[str, Any], *, streamed: bool) -> dict[str, Any]:
    names = ("index", "id", "type", "function") if streamed else ("id", "type", "function")
    return {name: call[name] for name in names if name in call}
