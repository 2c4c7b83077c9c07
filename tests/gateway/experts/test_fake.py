"""The public test seams: a scripted expert that speaks chat.completions, and a clock that only the test moves."""

import asyncio
import math
from typing import Any

import pytest

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.api import Expert, Upstream
from conclave.gateway.prompt import Prompt
from conclave.gateway.reply import Reply
from conclave.gateway.testing import FakeClock, FakeExpert

PLAIN = Prompt({"messages": [{"role": "user", "content": "hello"}]}, stream=False)
STREAM = Prompt({**PLAIN.body, "stream": True}, stream=True)


async def events(upstream: Upstream) -> list[dict[str, Any]]:
    return [chunk.event async for chunk in upstream]


def opened(expert: Expert, prompt: Prompt = STREAM) -> Upstream:
    return expert.open(prompt, deadline_s=math.inf)


async def test_it_says_the_last_user_message_again() -> None:
    [event] = await events(opened(FakeExpert(), PLAIN))
    assert event["object"] == "chat.completion"
    assert event["choices"][0]["message"] == {"role": "assistant", "content": "hello"}
    assert event["choices"][0]["finish_reason"] == "stop"
    assert event["usage"]["total_tokens"] == 2


async def test_it_streams_the_given_pieces_between_role_and_finish() -> None:
    role, one, two, finish, usage = await events(opened(FakeExpert(pieces=("a", "b"), usage={"prompt_tokens": 7})))
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert [event["choices"][0]["delta"]["content"] for event in (one, two)] == ["a", "b"]
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"]) == ([], {"prompt_tokens": 7})


@pytest.mark.parametrize("prompt", [PLAIN, STREAM], ids=["plain", "stream"])
async def test_its_answers_are_whole_for_the_pipeline(prompt: Prompt) -> None:
    reply = Reply(ModelRequest({}, "auto", prompt.stream, include_usage=False, needs=frozenset()), digest_key=b"k")
    async for chunk in opened(FakeExpert(answer="yes"), prompt):
        reply.feed(chunk)
    assert b'"conclave":{"expert":"fake"}' in reply.finish({"expert": "fake"})[-1].data
    assert (reply.finish_reason, reply.usage.completion_tokens) == ("stop", 1)


@pytest.mark.parametrize("after", [0, 2])
async def test_it_fails_after_so_many_chunks(after: int) -> None:
    failure = ExpertFailed("no", kind="status", upstream_status=503)
    upstream = opened(FakeExpert(pieces=("a", "b"), failure=failure, after=after))
    for _ in range(after):
        await anext(upstream)
    with pytest.raises(ExpertFailed) as caught:
        await anext(upstream)
    assert caught.value is failure
    assert (upstream.attempt.failure, upstream.attempt.upstream_status) == ("status", 503)


async def test_it_stalls_until_it_is_cancelled() -> None:
    expert = FakeExpert(stall=True, after=1)
    upstream = opened(expert)
    await anext(upstream)
    waiting = asyncio.ensure_future(anext(upstream))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    upstream.close()
    assert expert.closed == 1


async def test_its_delays_pass_on_the_clock_it_was_given() -> None:
    clock = FakeClock()
    upstream = opened(FakeExpert(first_s=3.0, now_s=clock.now_s, sleep=clock.sleep), PLAIN)
    first = asyncio.ensure_future(anext(upstream))
    await asyncio.sleep(0)
    assert not first.done()
    clock.advance(3.0)
    await first
    assert upstream.attempt.first_byte_s == upstream.attempt.started_s + 3.0


async def test_past_its_deadline_it_says_so() -> None:
    clock = FakeClock()
    upstream = FakeExpert(now_s=clock.now_s).open(PLAIN, deadline_s=clock.now_s())
    with pytest.raises(DeadlineExceeded):
        await anext(upstream)
    assert upstream.attempt.failure is None


async def test_it_remembers_what_it_was_asked_and_who_left() -> None:
    expert = FakeExpert()
    left, whole = opened(expert), opened(expert, PLAIN)
    await anext(left)
    left.close()
    left.close()
    await events(whole)
    whole.close()
    assert expert.asked == [STREAM, PLAIN]
    assert expert.closed == 1
    assert await events(left) == []


async def test_a_sleeper_wakes_when_its_time_has_come_and_not_before() -> None:
    clock = FakeClock(start_s=10.0)
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    sleepers = [asyncio.ensure_future(sleeper("late", 2.0)), asyncio.ensure_future(sleeper("early", 1.0))]
    await asyncio.sleep(0)
    clock.advance(0.5)
    await asyncio.sleep(0)
    assert woken == []
    clock.advance(1.5)
    await asyncio.gather(*sleepers)
    assert woken == ["early", "late"]
    assert clock.now_s() == 12.0


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_clock_never_goes_back(seconds: float) -> None:
    with pytest.raises(ValueError, match="forward"):
        FakeClock().advance(seconds)
