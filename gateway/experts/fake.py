"""A scripted expert for tests, ours and those of Conclave's users: real chat.completions, no network.

It answers with a given text, or says the last user message again; slowly, in given pieces, or fails at a given moment.
It takes no time but what its `sleep` takes. Never part of a configured gateway.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import msgspec

from conclave.gateway.call import Attempt, Chunk
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.prompt import Prompt


class FakeExpert:
    """`failure` is raised, and `stall` waits forever, once `after` chunks were given (a plain answer is one chunk).

    `pieces` are the contents of a stream's deltas; a plain answer joins them. `asked` are the prompts so far, and
    `closed` counts the upstreams that were closed before their answer was whole.
    """

    def __init__(  # noqa: PLR0913  a script, all keyword-only but the name
        self,
        name: str = "fake",
        *,
        answer: str | None = None,
        pieces: Sequence[str] = (),
        usage: Mapping[str, int] | None = None,
        failure: ExpertFailed | None = None,
        stall: bool = False,
        after: int = 0,
        first_s: float = 0.0,
        between_s: float = 0.0,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.answer, self.pieces, self.usage = answer, tuple(pieces), usage
        self.failure, self.stall, self.after = failure, stall, after
        self.first_s, self.between_s = first_s, between_s
        self.now_s, self.sleep = now_s, sleep
        self.asked: list[Prompt] = []
        self.closed = 0

    def open(self, prompt: Prompt, *, deadline_s: float) -> "FakeUpstream":
        return FakeUpstream(self, prompt, deadline_s)

    async def aclose(self) -> None:
        """There is nothing to give back."""

    def events(self, prompt: Prompt) -> Iterator[dict[str, Any]]:
        """The answer's events, as an OpenAI-compatible server would send them."""
        pieces = self.pieces or (self.answer if self.answer is not None else _echo(prompt),)
        usage = self.usage or {"prompt_tokens": 1, "completion_tokens": len(pieces), "total_tokens": 1 + len(pieces)}
        head = {"id": "chatcmpl-fake", "created": 0, "model": self.name}
        if not prompt.stream:
            message = {"role": "assistant", "content": "".join(pieces)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            yield {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
            return
        head["object"] = "chat.completion.chunk"
        for delta in ({"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)):
            yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield {**head, "choices": [], "usage": usage}


class FakeUpstream:
    """One answer of a FakeExpert."""

    def __init__(self, expert: FakeExpert, prompt: Prompt, deadline_s: float) -> None:
        self._expert = expert
        self._prompt = prompt
        self._deadline_s = deadline_s
        self._events = expert.events(prompt)
        self._given = 0
        self._closed = False
        self.attempt = Attempt(expert.name, expert.now_s(), deployment="fake", model=expert.name)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        expert = self._expert
        if self._closed or self.attempt.ended_s is not None:
            raise StopAsyncIteration
        if not self._given:
            expert.asked.append(self._prompt)
        if pause_s := expert.between_s if self._given else expert.first_s:
            await expert.sleep(pause_s)
        if expert.now_s() >= self._deadline_s:
            raise DeadlineExceeded("the call's time was up before the expert had answered")
        if self._given == expert.after and expert.stall:
            await asyncio.Event().wait()
        if self._given == expert.after and expert.failure is not None:
            self.attempt.failure, self.attempt.ended_s = expert.failure.kind, expert.now_s()
            self.attempt.upstream_status = expert.failure.upstream_status
            raise expert.failure
        event = next(self._events, None)
        if event is None:
            self.attempt.ended_s = expert.now_s()
            raise StopAsyncIteration
        self._given += 1
        if self.attempt.first_byte_s is None:
            self.attempt.first_byte_s = expert.now_s()
        return Chunk(msgspec.json.encode(event))

    def close(self) -> None:
        if not self._closed and self.attempt.ended_s is None:
            self._expert.closed += 1
            self.attempt.ended_s = self._expert.now_s()
        self._closed = True


def _echo(prompt: Prompt) -> str:
    """The last user message's text."""
    said = [one.get("content") for one in prompt.body.get("messages", ()) if one.get("role") == "user"]
    return said[-1] if said and isinstance(said[-1], str) else ""
