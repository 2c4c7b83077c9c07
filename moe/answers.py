"""Puts the engine's events into the shapes of OpenAI's chat.completions: one object, or a chunk each.

It decides names and places of fields and nothing else. `usage` also says what the routing did, in the names that the
gateway passes on: `experts_per_token` (mean over tokens and layers) and `flops_saved` (against the model as it came).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from conclave.moe.handoff import End, Piece, TokenLikely, Usage

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """What all parts of one answer share."""

    id: str
    created: int
    model: str
    fingerprint: str
    logprobs: bool = False
    include_usage: bool = False

    def whole(self, pieces: Sequence[Piece], end: End) -> bytes:
        """The plain answer."""
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None}
        likely = [token for piece in pieces for token in piece.likely]
        choice = {"index": 0, "message": message, "logprobs": self._logprobs(likely), "finish_reason": end.reason}
        return msgspec.json.encode(self._frame("chat.completion", [choice]) | {"usage": _usage(end.usage)})

    def first(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, piece: Piece) -> bytes:
        return self._chunk({"content": piece.text}, likely=piece.likely)

    def last(self, end: End) -> bytes:
        """The chunk with the finish reason, that with the usage if it was asked for, and the end of the stream."""
        closing = self._chunk({}, reason=end.reason)
        if self.include_usage:
            closing += event(self._frame("chat.completion.chunk", []) | {"usage": _usage(end.usage)})
        return closing + DONE

    def _chunk(self, delta: dict[str, Any], *, likely: Sequence[TokenLikely] = (), reason: str | None = None) -> bytes:
        shown = self._logprobs(likely) if likely else None
        choice = {"index": 0, "delta": delta, "logprobs": shown, "finish_reason": reason}
        usage = {"usage": None} if self.include_usage else {}
        return event(self._frame("chat.completion.chunk", [choice]) | usage)

    def _logprobs(self, likely: Sequence[TokenLikely]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            {**_token(each.token, each.logprob), "top_logprobs": [_token(*top) for top in each.top]} for each in likely
        ]
        return {"content": content, "refusal": None}

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "experts_per_token": usage.experts_per_token,
        "flops_saved": usage.flops_saved,
    }


def _token(text: str, logprob: float) -> dict[str, Any]:
    whole = "\N{REPLACEMENT CHARACTER}" not in text  # else a part of a character, whose bytes the text does not tell
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode()) if whole else None}
