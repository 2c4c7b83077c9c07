"""The way of a call with scripted experts: what is shown, who is asked, and one record however it ends."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.api.chat import parse
from conclave.gateway.call import END, Call, Chunk
from conclave.gateway.errors import (
    ConclaveError,
    DeadlineExceeded,
    ExpertFailed,
    Interrupted,
    InvalidRequest,
    NoExpertLeft,
    Unauthenticated,
    Unavailable,
    UnknownModel,
    UpstreamRejected,
)
from conclave.gateway.experts.api import Expert
from conclave.gateway.experts.pool import Deployment, Pool, PoolEntry
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.prompt import GO_ON, Prompt
from conclave.gateway.testing import FakeClock, FakeExpert
from conclave.router.api import Classification


@dataclass(frozen=True)
class Head:
    authorization: str | None = None
    source: str = "127.0.0.1"
    origin: str | None = None
    host: str | None = None


@dataclass
class Source:
    body: bytes
    head: Head = field(default_factory=Head)
    gone: bool = False

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        assert max_bytes
        assert timeout_s
        return self.body


class Open:
    """Admits everybody for a minute, or raises."""

    def __init__(self, now_s: Callable[[], float], error: ConclaveError | None = None) -> None:
        self.now_s, self.error = now_s, error

    async def admit(self, _: Head) -> Grant:
        if self.error:
            raise self.error
        return Grant("t", None, Scope(), self.now_s() + 60)


class House:
    """A pipeline over fake experts: `auto` asks them in the order given."""

    def __init__(
        self,
        *experts: Expert,
        admit: ConclaveError | None = None,
        record: Callable[[Call], None] | None = None,
        now_s: Callable[[], float] = time.monotonic,
        capabilities: tuple[str, ...] = (),
        streams: dict[str, str] | None = None,
    ) -> None:
        self.now_s = now_s
        self.records: list[Call] = []
        names = [expert.name for expert in experts]
        known = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "capabilities": capabilities}
        policy = {"experts": dict.fromkeys(names, known), "categories": {"math": names}, "default": names}
        document = PolicyDocument.model_validate(policy | {"streams": streams or {}})
        sure = Classification("math", 0.9, False, {"math": 0.9, "code": 0.1})
        pool = Pool(
            {
                expert.name: PoolEntry(deployments=[Deployment("one", expert)], transport_retries=0)
                for expert in experts
            },
            now_s=now_s,
        )
        self.pipeline = Pipeline(
            access=Open(now_s, admit),  # type: ignore[arg-type]
            policy=Published(Version(document, pool, classify=lambda _: sure, model_digest="d")),
            record=record or self.records.append,
            digest_key=b"k",
            now_s=now_s,
        )

    def call(self, body: bytes) -> Call:
        return Call("req_1", Source(body), parse, datetime.now(UTC), self.now_s())

    async def show(self, body: bytes, chunks: list[Chunk]) -> None:
        async for chunk in self.pipeline.answer(self.call(body)):
            chunks.append(chunk)  # kept also if the answer breaks off

    async def run(self, body: bytes) -> list[Chunk]:
        chunks: list[Chunk] = []
        await self.show(body, chunks)
        return chunks


def request(*, stream: bool = False, **more: Any) -> bytes:
    return json.dumps(
        {"model": "auto", "messages": [{"role": "user", "content": "2+2?"}], "stream": stream, **more}
    ).encode()


def text(chunks: list[Chunk]) -> str:
    events = [chunk.event for chunk in chunks if chunk is not END]
    choices = [choice for event in events for choice in event["choices"]]
    return "".join((choice.get("message") or choice["delta"]).get("content") or "" for choice in choices)


def failing(name: str, kind: str = "connect", *, after: int = 0, **more: Any) -> FakeExpert:
    return FakeExpert(name, pieces=("a", "b", "c"), failure=ExpertFailed("no", kind=kind, **more), after=after)


class Terse(FakeExpert):
    """Says one delta and nothing more."""

    def __init__(self, name: str, delta: dict[str, Any]) -> None:
        super().__init__(name)
        self.delta = delta

    def events(self, prompt: Prompt) -> Iterator[dict[str, Any]]:
        yield {"id": "x", "model": self.name, "choices": [{"index": 0, "delta": self.delta}]}


BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


@BOTH
async def test_the_first_expert_answers_and_the_record_says_so(stream: bool) -> None:
    house = House(FakeExpert("a", pieces=("fo", "ur")), FakeExpert("b"))
    chunks = await house.run(request(stream=stream))
    assert text(chunks) == "four"
    assert chunks[-1] is END
    assert chunks[-2].event["conclave"] == {
        "request_id": "req_1", "expert": "a", "category": "math", "confidence": 0.9, "unsure": False,
        "reason": "category", "policy": house.pipeline.policy.current.digest[:12],
    }  # fmt: skip
    (record,) = house.records
    assert (record.ending, record.answered, len(record.attempts)) == ("answered", True, 1)


@BOTH
async def test_an_expert_that_fails_unseen_is_replaced(stream: bool) -> None:
    house = House(failing("a"), FakeExpert("b", answer="four"))
    chunks = await house.run(request(stream=stream))
    assert text(chunks) == "four"
    assert chunks[-2].event["conclave"]["expert"] == "b"
    assert chunks[-2].event["conclave"]["reason"] == "fallback"
    (record,) = house.records
    assert [outcome.accepted for outcome in record.outcomes] == [False, True]


async def test_a_failure_after_the_role_but_before_text_is_still_unseen() -> None:
    house = House(failing("a", "cut", after=1), FakeExpert("b", answer="four"))
    chunks = await house.run(request(stream=True))
    assert text(chunks) == "four"
    assert sum("role" in choice["delta"] for chunk in chunks[:-1] for choice in chunk.event["choices"]) == 1


async def test_after_the_first_word_the_next_expert_goes_on_from_it() -> None:
    second = FakeExpert("b", answer="c and d")
    house = House(failing("a", "cut", after=3), second)
    chunks = await house.run(request(stream=True))
    assert text(chunks) == "abc and d"
    assert [message["content"] for message in second.asked[0].body["messages"][1:]] == ["ab", GO_ON]
    explained = chunks[-2].event["conclave"]
    assert (explained["expert"], explained["reason"], explained["continued"]) == ("b", "fallback", True)
    (record,) = house.records
    assert (record.ending, [attempt.failure for attempt in record.attempts]) == ("answered", ["cut", None])


async def test_a_continued_stream_keeps_one_identity_and_one_role() -> None:
    house = House(failing("a", "cut", after=3), FakeExpert("b", answer="c"))
    events = [chunk.event for chunk in (await house.run(request(stream=True)))[:-1]]
    assert {event["model"] for event in events} == {"a"}
    assert sum("role" in choice["delta"] for event in events for choice in event["choices"]) == 1


async def test_a_continuation_whose_content_is_no_text_is_handed_on_as_it_is() -> None:
    odd = FakeExpert("b", pieces=([{"type": "text", "text": "c"}], 5))  # type: ignore[arg-type]  as a server may send
    house = House(failing("a", "cut", after=3), odd)
    chunks = await house.run(request(stream=True))
    contents = [choice["delta"].get("content") for chunk in chunks[:-1] for choice in chunk.event["choices"]]
    assert [{"type": "text", "text": "c"}] in contents
    assert house.records[0].ending == "answered"


@pytest.mark.parametrize(
    ("more", "delta"),
    [
        ({"response_format": {"type": "json_object"}}, {"content": "{}"}),
        ({"n": 2}, {"content": "x"}),
        ({}, {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
        ({}, {"reasoning_content": "hm"}),
    ],
    ids=["json", "two choices", "a tool call", "reasoning alone"],
)
async def test_a_stream_without_a_finish_reason_is_whole_when_its_expert_says_that_it_is(
    more: dict[str, Any], delta: dict[str, Any]
) -> None:
    """Some servers end with `[DONE]` alone."""
    house = House(Terse("a", delta), capabilities=("json_mode", "n"))
    chunks = await house.run(request(stream=True, **more))
    assert "conclave" in chunks[-2].event
    assert house.records[0].ending == "answered"


async def test_the_usage_of_both_halves_is_recorded() -> None:
    """The one that failed never said what it used: that part is estimated, and marked so."""
    house = House(failing("a", "cut", after=3), FakeExpert("b", answer="c"))
    await house.run(request(stream=True))
    first, second = (attempt.usage for attempt in house.records[0].attempts)
    assert (first.completion_tokens, first.estimated) == (1, True)
    assert (second.completion_tokens, second.estimated) == (1, False)


async def test_the_last_expert_is_asked_once_more_to_finish_its_own_answer() -> None:
    house = House(failing("a", "cut", after=3))
    shown: list[Chunk] = []
    with pytest.raises(Interrupted):
        await house.show(request(stream=True), shown)
    (record,) = house.records
    assert text(shown) == "abab"  # too short to be told from a repetition
    assert [attempt.expert for attempt in record.attempts] == ["a", "a"]
    assert (record.ending, record.reply is not None and record.reply.shown) == ("failed", True)


@pytest.mark.parametrize(
    "more",
    [{"response_format": {"type": "json_object"}}, {"n": 2}],
    ids=["json-cannot-be-handed-over", "two-choices-cannot"],
)
async def test_what_cannot_be_continued_ends_with_an_error(more: dict[str, Any]) -> None:
    second = FakeExpert("b")
    house = House(failing("a", "cut", after=3), second, capabilities=("json_mode", "n"))
    shown: list[Chunk] = []
    with pytest.raises(Interrupted):
        await house.show(request(stream=True, **more), shown)
    assert text(shown) == "ab"
    assert not second.asked


async def test_a_policy_may_end_a_stream_that_breaks_off() -> None:
    second = FakeExpert("b")
    house = House(failing("a", "cut", after=3), second, streams={"on_failure": "end"})
    shown: list[Chunk] = []
    with pytest.raises(Interrupted):
        await house.show(request(stream=True), shown)
    assert text(shown) == "ab"
    assert not second.asked


async def test_an_expert_that_prefills_gets_the_answer_as_its_own_last_words() -> None:
    second = FakeExpert("b", answer="c")
    house = House(failing("a", "cut", after=3), second, capabilities=("prefill",))
    await house.run(request(stream=True, max_tokens=1))
    body = second.asked[0].body
    assert body["messages"][-1] == {"role": "assistant", "content": "ab"}
    assert (body["continue_final_message"], body["add_generation_prompt"], body["max_tokens"]) == (True, False, 1)


@BOTH
async def test_when_all_fail_the_last_ones_words_are_told(stream: bool) -> None:
    house = House(failing("a"), failing("b", "stalled"))
    with pytest.raises(NoExpertLeft, match="2 asked"):
        await house.run(request(stream=stream))
    assert [attempt.failure for attempt in house.records[0].attempts] == ["connect", "stalled"]


@BOTH
async def test_an_upstreams_verdict_on_the_request_is_final(stream: bool) -> None:
    second = FakeExpert("b")
    house = House(failing("a", "rejected", final=True, param="top_k", code="bad"), second)
    with pytest.raises(UpstreamRejected) as refused:
        await house.run(request(stream=stream))
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, "top_k", "bad")
    assert not second.asked
    assert house.records[0].ending == "refused"


@pytest.mark.parametrize(
    ("admit", "body", "error", "ending"),
    [
        (Unauthenticated("who?"), request(), Unauthenticated, "refused"),
        (Unavailable("full"), request(), Unavailable, "failed"),
        (None, b"{", InvalidRequest, "refused"),
        (None, request(messages=[]), InvalidRequest, "refused"),
        (None, request(model="gpt-9"), UnknownModel, "refused"),
    ],
    ids=["no-key", "no-disk", "no-json", "no-messages", "no-model"],
)
async def test_a_refusal_asks_nobody_and_is_recorded(
    admit: ConclaveError | None, body: bytes, error: type[ConclaveError], ending: str
) -> None:
    expert = FakeExpert("a")
    house = House(expert, admit=admit)
    with pytest.raises(error):
        await house.run(body)
    (record,) = house.records
    assert record.ending == ending
    assert not expert.asked


@BOTH
async def test_a_context_too_long_for_one_expert_may_fit_the_next(stream: bool) -> None:
    house = House(failing("a", "rejected", code="context_length_exceeded"), FakeExpert("b", answer="four"))
    assert text(await house.run(request(stream=stream))) == "four"


async def test_a_context_too_long_for_all_is_the_clients_error() -> None:
    house = House(failing("a", "rejected", code="context_length_exceeded"))
    with pytest.raises(UpstreamRejected) as refused:
        await house.run(request())
    assert (refused.value.status, refused.value.retry) == (400, False)
    assert refused.value.code == "context_length_exceeded"


async def test_when_all_are_busy_the_soonest_time_to_come_back_is_told() -> None:
    house = House(failing("a", "rate_limited", retry_after_s=20.0), failing("b", "rate_limited", retry_after_s=3.0))
    with pytest.raises(NoExpertLeft) as busy:
        await house.run(request())
    assert busy.value.retry_after_s == 3.0


async def test_an_answer_without_a_word_counts_against_its_expert() -> None:
    silent = FakeExpert("a", pieces=("",), failure=ExpertFailed("over", kind="cut"), after=1)
    house = House(silent, FakeExpert("b", answer="four"))
    assert text(await house.run(request(stream=True))) == "four"
    assert house.records[0].attempts[0].failure == "cut"


async def test_a_large_body_is_read_in_a_thread_with_the_same_result() -> None:
    house = House(FakeExpert("a", answer="four"))
    assert text(await house.run(request(padding="x" * 300_000))) == "four"


async def test_a_call_out_of_time_ends_as_such() -> None:
    clock = FakeClock()
    house = House(FakeExpert("a", first_s=61, now_s=clock.now_s, sleep=clock.sleep), now_s=clock.now_s)
    task = asyncio.ensure_future(house.run(request(stream=True)))
    for _ in range(5):
        await asyncio.sleep(0)
    clock.advance(61)
    with pytest.raises(DeadlineExceeded):
        await task
    assert house.records[0].ending == "deadline"


@BOTH
async def test_a_client_that_leaves_closes_the_upstream_before_the_record(stream: bool) -> None:
    expert = FakeExpert("a", pieces=("a", "b"), stall=True, after=3 if stream else 0)
    closed_when_recorded: list[int] = []
    house = House(expert, record=lambda _: closed_when_recorded.append(expert.closed))
    call = house.call(request(stream=stream))
    seen = asyncio.Event()

    async def drive() -> None:
        async for _ in house.pipeline.answer(call):
            seen.set()

    task = asyncio.ensure_future(drive())
    if stream:
        await seen.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    call.source.gone = True  # type: ignore[misc]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed_when_recorded == [1]
    assert call.ending == "client_gone"


async def test_a_generator_closed_between_two_chunks_is_recorded_once_with_its_upstream_closed() -> None:
    expert = FakeExpert("a", pieces=("a", "b"))
    house = House(expert)
    call = house.call(request(stream=True))
    chunks = house.pipeline.answer(call)
    await anext(chunks)
    await chunks.aclose()
    assert (len(house.records), expert.closed, call.ending) == (1, 1, "stopped")


@BOTH
async def test_an_answer_that_cannot_be_recorded_does_not_end_well(stream: bool) -> None:
    def full(_: Call) -> None:
        raise Unavailable("the disk is full")

    house = House(FakeExpert("a", answer="four"), record=full)
    chunks: list[Chunk] = []
    with pytest.raises(Unavailable):
        await house.show(request(stream=stream), chunks)
    assert END not in chunks
