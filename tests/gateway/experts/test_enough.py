"""A stream in a loop is cut with `length`, its upstream closed; any other comes through as it is."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from conclave.gateway.call import SILENCE, Attempt, Chunk
from conclave.gateway.experts.enough import Enough
from conclave.safety.output.repetition import AnswerLimits

LIMITS = AnswerLimits(repeated_chars=8192, chars=50_000)
HEAD = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}


class Endless:
    """An upstream that says these deltas over and over, each as a chunk."""

    def __init__(self, *choices: dict[str, Any], after: int = 10**9) -> None:
        self.attempt = Attempt("e", time.monotonic())
        self.choices, self.after = choices, after
        self.given = 0
        self.closed = False

    def __aiter__(self) -> "Endless":
        return self

    async def __anext__(self) -> Chunk:
        if self.given >= self.after:
            raise StopAsyncIteration
        self.given += 1
        choice = self.choices[self.given % len(self.choices)]
        return Chunk(msgspec.json.encode({**HEAD, "choices": [{"index": 0, **choice}]}))

    def close(self) -> None:
        self.closed = True


async def read(upstream: AsyncIterator[Chunk], most: int = 20_000) -> list[Chunk]:
    chunks: list[Chunk] = []
    async for chunk in upstream:
        chunks.append(chunk)
        assert len(chunks) < most
    return chunks


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "I am sorry. "},
        {"reasoning_content": "wait, let me think. "},
        {"tool_calls": [{"index": 0, "function": {"arguments": "0, 0, 0, 0, "}}]},
    ],
    ids=["content", "reasoning", "arguments"],
)
async def test_a_loop_is_cut_wherever_it_is_and_ends_as_a_limit_does(delta: dict[str, Any]) -> None:
    endless = Endless({"delta": delta})
    enough = Enough(endless, LIMITS)
    chunks = await read(enough)
    last = json.loads(chunks[-1].data)
    assert last == {**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    assert endless.attempt.cut
    assert endless.given == len(chunks) - 1
    enough.close()
    assert endless.closed


async def test_an_older_completion_ends_in_its_own_words() -> None:
    endless = Endless({"text": "no "})
    chunks = await read(Enough(endless, LIMITS))
    assert json.loads(chunks[-1].data)["choices"] == [{"index": 0, "text": "", "finish_reason": "length"}]


async def test_a_long_answer_is_cut_at_its_length() -> None:
    endless = Endless(*({"delta": {"content": f"word {number} "}} for number in range(9973)))
    await read(Enough(endless, LIMITS))
    assert 4000 < endless.given < 7000


async def test_an_answer_within_the_limits_comes_through_byte_for_byte() -> None:
    expected = [chunk.data for chunk in await read(Endless({"delta": {"content": "no "}}, after=500))]
    endless = Endless({"delta": {"content": "no "}}, after=500)
    assert [chunk.data for chunk in await read(Enough(endless, LIMITS))] == expected
    assert not endless.attempt.cut


class Given(Endless):
    """An upstream with these chunks."""

    def __init__(self, *chunks: Chunk) -> None:
        super().__init__({})
        self.chunks = list(chunks)

    async def __anext__(self) -> Chunk:
        if not self.chunks:
            raise StopAsyncIteration
        return self.chunks.pop(0)


@pytest.mark.parametrize(
    "data",
    [b"nonsense", b"[]", b"{}", b'{"choices":7}', b'{"choices":[7,null]}', b'{"choices":[{"index":"x","delta":7}]}',
     b'{"choices":[{"index":-1,"delta":{"content":["a",{"b":null}]}}]}'],
    ids=["text", "list", "empty", "number", "items", "index", "nested"],
)  # fmt: skip
async def test_what_is_no_chunk_is_left_to_who_reads_it(data: bytes) -> None:
    chunks = (SILENCE, Chunk(data), SILENCE)
    assert await read(Enough(Given(*chunks), LIMITS)) == list(chunks)


async def test_a_choice_that_an_upstream_makes_up_takes_no_memory_of_its_own() -> None:
    said = [{"choices": [{"index": number, "delta": {"content": "a"}}]} for number in range(1000)]
    chunks = await read(Enough(Given(*(Chunk(msgspec.json.encode(one)) for one in said)), AnswerLimits(chars=500)))
    assert len(json.loads(chunks[-1].data)["choices"]) == 128
    assert len(chunks) < 700


async def test_an_answer_that_ends_by_itself_is_not_ended_twice() -> None:
    last = {"choices": [{"index": 0, "delta": {"content": "a" * 99}, "finish_reason": "stop"}]}
    given = Given(Chunk(msgspec.json.encode(last)))
    assert len(await read(Enough(given, AnswerLimits(chars=50)))) == 1
    assert not given.attempt.cut
