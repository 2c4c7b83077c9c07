"""One expert, several deployments: turns, transport retries, cool-downs, breakers, on a clock that the test moves."""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from conclave.gateway.call import SILENCE, Attempt, Chunk
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.api import Upstream
from conclave.gateway.experts.pool import Deployment, Pool, PooledUpstream, PoolEntry
from conclave.gateway.prompt import Prompt
from conclave.gateway.testing import FakeClock, FakeExpert

from .asking import expert_at, prompt
from .raw_server import CLOSE, PLAIN, RawServer, answer

PROMPT = Prompt({"messages": [{"role": "user", "content": "hello"}], "stream": True}, stream=True)


def failure(kind: str, status: int | None = None, **facts: Any) -> ExpertFailed:
    return ExpertFailed("no", kind=kind, upstream_status=status, **facts)


CONNECT = failure("connect")
STATUS_503 = failure("status", 503)
RATE_LIMITED = failure("rate_limited", 429)


class Bench:
    """A pool of one expert called `e`, its clock and the pauses it made."""

    def __init__(self, *experts: FakeExpert, weights: Sequence[float] = (), **settings: Any) -> None:
        self.clock = FakeClock()
        self.pauses: list[float] = []
        self.experts = experts
        deployments = [
            Deployment(one.name, one, weight) for one, weight in zip(experts, weights or [1.0] * 9, strict=False)
        ]
        rng = random.Random(1)
        entry = PoolEntry(deployments, **settings)
        self.pool = Pool({"e": entry}, now_s=self.clock.now_s, rng=rng, sleep=self.sleep)
        for one in experts:
            one.now_s = self.clock.now_s

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)

    def open(self, *, in_s: float = math.inf) -> PooledUpstream:
        return self.pool.open("e", PROMPT, deadline_s=self.clock.now_s() + in_s)

    async def ask(self) -> Attempt:
        """One whole call; the attempt, whether it failed or not."""
        with self.open() as upstream:
            async for _ in upstream:
                pass
        return upstream.attempt

    async def fail(self) -> ExpertFailed:
        with pytest.raises(ExpertFailed) as caught:
            await self.ask()
        return caught.value

    @property
    def state(self) -> str:
        return self.pool.states()[0].breaker


async def test_an_answer_passes_chunk_by_chunk_as_the_expert_gave_it() -> None:
    bench = Bench(FakeExpert("a", pieces=("x", "y")))
    with bench.open() as upstream:
        given = [chunk.data async for chunk in upstream]
    assert given == [chunk.data async for chunk in FakeExpert("a", pieces=("x", "y")).open(PROMPT, deadline_s=math.inf)]


async def test_the_attempt_says_which_deployment_answered_and_when() -> None:
    bench = Bench(FakeExpert("a"))
    attempt = await bench.ask()
    assert (attempt.expert, attempt.deployment, attempt.model) == ("e", "a", "a")
    assert attempt.first_byte_s is not None
    assert attempt.ended_s is not None
    assert (attempt.failure, attempt.transport_retries) == (None, 0)


async def test_turns_follow_the_weights_and_are_spread() -> None:
    bench = Bench(FakeExpert("a"), FakeExpert("b"), FakeExpert("c"), weights=(5, 1, 1))
    turns = [(await bench.ask()).deployment for _ in range(14)]
    assert turns == list("aabacaa") * 2
    assert Counter(turns) == {"a": 10, "b": 2, "c": 2}


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(CONNECT, id="connect"),
        pytest.param(STATUS_503, id="503"),
        pytest.param(RATE_LIMITED, id="429"),
        pytest.param(failure("cut"), id="cut before a word"),
    ],
)
async def test_another_deployment_is_asked_at_once_when_one_fails_in_transport(error: ExpertFailed) -> None:
    bench = Bench(FakeExpert("a", failure=error), FakeExpert("b"))
    attempt = await bench.ask()
    assert (attempt.deployment, attempt.transport_retries, attempt.failure) == ("b", 1, None)
    assert bench.pauses == []


async def test_the_same_deployment_is_asked_again_after_a_short_pause() -> None:
    only = FakeExpert("a", failure=CONNECT)
    bench = Bench(only)
    assert await bench.fail() is CONNECT
    assert len(only.asked) == 2
    assert len(bench.pauses) == 1
    assert 0.025 <= bench.pauses[0] <= 0.075


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(failure("rejected", 400, final=True), id="rejected"),
        pytest.param(failure("connect", final=True), id="final"),
        pytest.param(failure("status", 401), id="401"),
        pytest.param(failure("first_byte"), id="first byte: the time is spent"),
        pytest.param(failure("malformed"), id="malformed"),
        pytest.param(failure("error_event"), id="error event"),
    ],
)
async def test_what_another_try_cannot_mend_is_not_tried_again(error: ExpertFailed) -> None:
    bench = Bench(FakeExpert("a", failure=error), FakeExpert("b"))
    assert await bench.fail() is error
    assert bench.experts[1].asked == []


async def test_nothing_is_retried_once_a_chunk_was_given() -> None:
    bench = Bench(FakeExpert("a", failure=CONNECT, after=1), FakeExpert("b"))
    assert await bench.fail() is CONNECT
    assert bench.experts[1].asked == []


async def test_retries_are_counted_and_end() -> None:
    bench = Bench(*(FakeExpert(name, failure=STATUS_503) for name in "abcd"), transport_retries=2)
    upstream = bench.open()
    with pytest.raises(ExpertFailed), upstream:
        await anext(upstream)
    assert upstream.attempt.transport_retries == 2
    assert (upstream.attempt.failure, upstream.attempt.upstream_status) == ("status", 503)
    assert sum(len(one.asked) for one in bench.experts) == 3


async def test_no_pause_goes_past_the_deadline() -> None:
    bench = Bench(FakeExpert("a", failure=CONNECT))
    with pytest.raises(ExpertFailed), bench.open(in_s=0.01) as upstream:
        await anext(upstream)
    assert bench.pauses == []


@pytest.mark.parametrize(
    ("told_s", "cooled_s"), [(None, 5.0), (2.0, 2.0), (3600.0, 60.0)], ids=["not told", "told", "told too long"]
)
async def test_a_rate_limited_deployment_cools_down(told_s: float | None, cooled_s: float) -> None:
    bench = Bench(FakeExpert("a", failure=failure("rate_limited", 429, retry_after_s=told_s)))
    assert (await bench.fail()).kind == "rate_limited"
    assert len(bench.experts[0].asked) == 1, "the same deployment would say the same"
    assert bench.pool.states()[0].cooling_s == cooled_s
    refused = await bench.fail()
    assert (refused.kind, refused.retry_after_s) == ("no_deployment", cooled_s)
    assert len(bench.experts[0].asked) == 1
    bench.experts[0].failure = None
    bench.clock.advance(cooled_s)
    assert (await bench.ask()).failure is None


async def test_while_one_cools_down_the_others_take_its_turns() -> None:
    bench = Bench(FakeExpert("a", failure=RATE_LIMITED), FakeExpert("b"))
    assert [(await bench.ask()).deployment for _ in range(4)] == ["b"] * 4
    assert len(bench.experts[0].asked) == 1


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        pytest.param(CONNECT, True, id="connect"),
        pytest.param(STATUS_503, True, id="503"),
        pytest.param(failure("first_byte"), True, id="first_byte"),
        pytest.param(failure("stalled"), True, id="stalled"),
        pytest.param(failure("cut"), True, id="cut"),
        pytest.param(failure("malformed"), True, id="malformed"),
        pytest.param(failure("rejected", 400, final=True), False, id="rejected"),
        pytest.param(failure("status", 404), False, id="404"),
        pytest.param(failure("error_event"), False, id="error_event"),
    ],
)
async def test_five_failures_of_the_deployment_itself_open_its_breaker(error: ExpertFailed, counts: bool) -> None:
    bench = Bench(FakeExpert("a", failure=error, after=1))
    for _ in range(5):
        assert bench.state == "closed"
        await bench.fail()
    assert bench.state == ("open" if counts else "closed")
    if counts:
        refused = await bench.fail()
        assert (refused.kind, refused.retry_after_s) == ("breaker_open", 15.0)


async def test_what_the_reader_finds_in_an_answer_counts_too() -> None:
    bench = Bench(FakeExpert("a"), failures_to_open=1)
    upstream = bench.open()

    async def read() -> None:
        with upstream:
            await anext(upstream)
            raise failure("malformed")

    with pytest.raises(ExpertFailed):
        await read()
    assert bench.state == "open"
    assert upstream.attempt.failure == "malformed"


async def opened_breaker() -> Bench:
    bench = Bench(FakeExpert("a", failure=CONNECT, after=1), failures_to_open=1, open_s=10.0)
    await bench.fail()
    bench.clock.advance(10.0)
    assert bench.state == "half_open"
    bench.experts[0].failure = None
    return bench


async def test_one_probe_at_a_time_and_its_success_closes_the_breaker() -> None:
    bench = await opened_breaker()
    with bench.open() as probe:
        await anext(probe)
        assert (await bench.fail()).kind == "breaker_open"
        async for _ in probe:
            pass
    assert bench.state == "closed"


async def test_a_failed_probe_opens_the_breaker_again() -> None:
    bench = await opened_breaker()
    bench.experts[0].failure = CONNECT
    assert (await bench.fail()).kind == "connect"
    assert bench.state == "open"


@pytest.mark.parametrize("after", [0, 1], ids=["before the first byte", "midway"])
async def test_a_client_that_leaves_frees_the_probe_and_says_nothing(after: int) -> None:
    bench = await opened_breaker()
    bench.experts[0].stall, bench.experts[0].after = True, after
    with bench.open() as probe:
        for _ in range(after):
            await anext(probe)
        waiting = asyncio.ensure_future(anext(probe))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert bench.state == "half_open"
    assert bench.experts[0].closed == 1
    bench.experts[0].stall = False
    await bench.ask()
    assert bench.state == "closed"


async def test_a_deadline_says_nothing_about_the_deployment() -> None:
    bench = await opened_breaker()
    with pytest.raises(DeadlineExceeded), bench.open(in_s=0.0) as upstream:
        await anext(upstream)
    assert bench.state == "half_open"


async def test_time_that_the_expert_was_given_and_that_was_not_enough_is_a_failure() -> None:
    bench = Bench(FakeExpert("a"), failures_to_open=2)
    for state in ("closed", "open"):
        late = bench.pool.open("e", PROMPT, deadline_s=bench.clock.now_s(), late_is_failure=True)
        with pytest.raises(DeadlineExceeded), late as upstream:
            await anext(upstream)
        assert bench.state == state


async def test_leaving_without_reading_asks_nobody() -> None:
    bench = Bench(FakeExpert("a"))
    with bench.open() as upstream:
        pass
    assert [chunk async for chunk in upstream] == []
    assert bench.experts[0].asked == []


async def test_an_expert_nobody_serves_has_no_deployment() -> None:
    pool = Pool({"e": ()})
    for name in ("e", "unknown"):
        with pytest.raises(ExpertFailed) as caught, pool.open(name, PROMPT, deadline_s=math.inf) as upstream:
            await anext(upstream)
        assert caught.value.kind == upstream.attempt.failure == "no_deployment"


async def test_silence_passes_and_a_retry_is_still_possible_after_it() -> None:
    class Quiet(FakeExpert):
        def open(self, prompt: Prompt, *, deadline_s: float) -> Any:
            return QuietUpstream(super().open(prompt, deadline_s=deadline_s))

    class QuietUpstream:
        """SILENCE before all else."""

        def __init__(self, inner: Upstream) -> None:
            self.inner, self.attempt, self.quiet = inner, inner.attempt, True
            self.close = inner.close

        async def __anext__(self) -> Chunk:
            if self.quiet:
                self.quiet = False
                return SILENCE
            return await self.inner.__anext__()

    bench = Bench(Quiet("a", failure=CONNECT), FakeExpert("b"))
    with bench.open() as upstream:
        assert await anext(upstream) is SILENCE
        assert (await anext(upstream)).event["model"] == "b"


async def test_closing_the_pool_closes_each_expert_once() -> None:
    class Closing(FakeExpert):
        closings = 0

        async def aclose(self) -> None:
            self.closings += 1

    shared, other = Closing("a"), Closing("b")
    pool = Pool({"e": (Deployment("1", shared), Deployment("2", shared)), "f": (Deployment("1", other),)})
    await pool.aclose()
    assert (shared.closings, other.closings) == (1, 1)


def test_a_deployment_needs_weight_and_a_label_of_its_own() -> None:
    with pytest.raises(ValueError, match="weight"):
        Deployment("a", FakeExpert(), 0)
    with pytest.raises(ValueError, match="label"):
        Pool({"e": (Deployment("a", FakeExpert()), Deployment("a", FakeExpert()))})


async def test_an_answer_that_broke_off_midway_is_not_paid_twice() -> None:
    half = [answer(PLAIN)[:-10], CLOSE]
    async with RawServer(half) as server, expert_at(server.url) as expert:
        pool = Pool({"e": PoolEntry([Deployment("one", expert)], transport_retries=2)})
        with pytest.raises(ExpertFailed), pool.open("e", prompt(False), deadline_s=time.monotonic() + 5) as upstream:
            await anext(upstream)
    assert (upstream.attempt.failure, len(server.requests)) == ("cut", 1)
