"""A stream that is heard out no further than makes sense: an expert in a loop, or one that finds no end, is cut.

What the client gets then is an answer that ends as one that met its token limit does (`finish_reason: length`). The
upstream is closed, and so stops being paid. Plain answers come whole: there is nothing left to save.
"""

from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

from conclave.gateway.call import SILENCE, Attempt, Chunk
from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.api import Upstream
from conclave.safety.output.repetition import AnswerLimits, Runaway

IDENTITY: Final = ("id", "object", "created", "model")
MOST_CHOICES: Final = 128  # as many answers as a request may ask for; others an upstream made up
NO_TEXT: Final = frozenset({"role", "id", "type", "name", "index"})


class Enough:
    """Reads an upstream until it ends, or until enough was heard: then comes one closing chunk and the end."""

    def __init__(self, upstream: Upstream, limits: AnswerLimits) -> None:
        self.attempt: Attempt = upstream.attempt
        self._upstream = upstream
        self._limits = limits
        self._choices: dict[int, Runaway] = {}
        self._unread_bytes = limits.repeated_chars or 0 if limits.chars is None else 0  # too little for a loop: passed
        self._closing: Chunk | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._closing is not None:
            if self._over:
                raise StopAsyncIteration
            self._over = True
            return self._closing
        chunk = await self._upstream.__anext__()
        if self._unread_bytes > 0:  # most streams end within it, for 0.5 us a chunk in place of 6
            self._unread_bytes -= len(chunk.data)
        elif chunk is not SILENCE and self._is_enough(chunk):
            self.attempt.cut = True
            self._closing = self._last(chunk)
        return chunk

    def close(self) -> None:
        self._upstream.close()

    def _is_enough(self, chunk: Chunk) -> bool:
        try:
            choices = chunk.event.get("choices")
        except ExpertFailed:  # whoever reads it next says so
            return False
        said = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
        heard = [self._hear(one) for one in said]
        return any(heard) and not any(one.get("finish_reason") for one in said)

    def _hear(self, choice: Mapping[str, Any]) -> bool:
        index = choice.get("index")
        index = index if isinstance(index, int) and 0 <= index < MOST_CHOICES else 0
        said = _texts(choice.get("delta")) if "delta" in choice else _texts(choice.get("text"))
        if not said:
            return False
        runaway = self._choices.get(index)
        if runaway is None:
            runaway = self._choices[index] = Runaway(self._limits)
        return runaway.feed(said)

    def _last(self, chunk: Chunk) -> Chunk:
        """The end of all choices, in the words of the stream's last chunk."""
        event = chunk.event
        of_text = any(isinstance(one, dict) and "text" in one for one in event["choices"])
        empty: dict[str, Any] = {"text": ""} if of_text else {"delta": {}}
        choices = [{"index": index, **empty, "finish_reason": "length"} for index in sorted(self._choices)]
        known = {name: event[name] for name in IDENTITY if name in event}
        return Chunk(msgspec.json.encode({**known, "choices": choices}))


def _texts(value: object) -> str:
    """All that is said in a delta: content, reasoning, arguments."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "".join(_texts(inner) for key, inner in value.items() if key not in NO_TEXT)
    return "".join(map(_texts, value)) if isinstance(value, list) else ""
