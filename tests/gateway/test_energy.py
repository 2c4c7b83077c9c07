"""Calls that would cost without an end: what the client, the expert and the record see of the caps."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.api.chat import parse
from conclave.gateway.call import END, Call, Chunk
from conclave.gateway.errors import InvalidRequest
from conclave.gateway.experts.pool import Deployment, Pool, PoolEntry
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.record import row_of
from conclave.gateway.testing import FakeExpert


@dataclass(frozen=True)
class Head:
    authorization: str | None = None
    source: str = "127.0.0.1"
    origin: str | None = None
    host: str | None = None
    envelope: str | None = None


@dataclass
class Source:
    body: bytes
    head: Head = field(default_factory=Head)
    gone: bool = False

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        del max_bytes, timeout_s
        return self.body


class Open:
    async def admit(self, _: object) -> Grant:
        return Grant("t", None, Scope(), deadline_s=1e12)


async def run(expert: FakeExpert, limits: Mapping[str, Any], **body: Any) -> tuple[Call, list[Chunk]]:
    known = {"e": {"model": "m", "base_url": "http://127.0.0.1:1/v1", "capabilities": ["tools", "n"]}}
    document = PolicyDocument.model_validate({"experts": known, "default": ["e"], "limits": limits})
    pool = Pool({"e": PoolEntry([Deployment("one", expert)], transport_retries=0)})
    version = Version(document, pool, classify=lambda _: None, model_digest="d")  # type: ignore[arg-type, return-value]
    pipeline = Pipeline(access=Open(), policy=Published(version), record=lambda _: None, digest_key=b"k")  # type: ignore[arg-type]
    raw = json.dumps({"model": "e", "messages": [{"role": "user", "content": "go"}], **body}).encode()
    call = Call("r", Source(raw), parse, datetime.now(UTC), 0.0)
    return call, [chunk async for chunk in pipeline.answer(call) if chunk is not END]


async def test_a_stream_in_a_loop_ends_with_length_and_its_row_says_that_it_was_cut() -> None:
    expert = FakeExpert("e", pieces=("So, once more. ",) * 20_000)
    call, chunks = await run(expert, {"repeated_chars": 10_000}, stream=True)
    assert len(chunks) < 1200
    last = chunks[-1].event
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["conclave"]["cut"] is True
    assert expert.closed == 1
    row = row_of(call, datetime.now(UTC), lambda _: "")
    assert (row["ending"], row["finish_reason"], row["attempts"][0]["cut"]) == ("answered", "length", True)
    assert row["usage"]["completion_tokens"] > 1000


@pytest.mark.parametrize("limits", [{}, {"repeated_chars": None}], ids=["default", "off"])
async def test_an_honest_stream_is_not_cut(limits: dict[str, Any]) -> None:
    call, chunks = await run(FakeExpert("e", pieces=("again and ",) * 1000), limits, stream=True)
    assert chunks[-1].event["choices"][0]["finish_reason"] == "stop"
    assert "cut" not in row_of(call, datetime.now(UTC), lambda _: "")["attempts"][0]


async def test_what_was_lowered_is_told_and_sent() -> None:
    expert = FakeExpert("e", answer="x")
    _, [answer] = await run(expert, {"answer_tokens": 50}, max_tokens=5000)
    assert answer.event["conclave"]["lowered"] == ["max_tokens"]
    assert expert.asked[0].body["max_tokens"] == 50


async def test_a_program_in_circles_is_refused_before_anyone_is_asked() -> None:
    expert = FakeExpert("e")
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
    ]
    with pytest.raises(InvalidRequest) as refused:
        await run(expert, {"same_tool_calls": 2}, messages=[{"role": "user", "content": "go"}, *turn * 3])
    assert (refused.value.code, expert.asked) == ("tool_loop", [])
