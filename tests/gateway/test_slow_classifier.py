"""A classifier that takes milliseconds: it runs beside the event loop, and in the call's own time."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from conclave.gateway.errors import DeadlineExceeded
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.testing import FakeExpert
from conclave.router.api import Classification

from .test_pipeline import House, request

SURE = Classification("math", 0.9, False, {"math": 0.9, "code": 0.1})


class Slow:
    """A classifier that is not done before `let` is set, and knows which thread it ran on."""

    def __init__(self) -> None:
        self.let, self.began, self.threads = threading.Event(), threading.Event(), list[str]()

    def __call__(self, text: str) -> Classification:
        self.threads.append(threading.current_thread().name)
        self.began.set()
        assert self.let.wait(10)
        return SURE


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.let.set()


@pytest.fixture
def house(slow: Slow) -> Iterator[House]:
    made = House(FakeExpert("one"))
    with ThreadPoolExecutor(1, thread_name_prefix="classify") as threads:
        before = made.pipeline.policy.current
        version = Version(before.document, before.experts, classify=slow, model_digest="d")
        made.pipeline = replace(made.pipeline, policy=Published(version), classifying=threads)
        yield made
        slow.let.set()


async def begun(slow: Slow) -> None:
    assert await asyncio.to_thread(slow.began.wait, 10)


async def test_other_calls_are_answered_while_a_question_is_classified(house: House, slow: Slow) -> None:
    asked = asyncio.create_task(house.run(request()))
    await begun(slow)
    async with asyncio.timeout(5):
        await house.run(request(model="one"))  # by name: there is nothing to classify
    assert not asked.done()
    slow.let.set()
    await asked
    assert [(call.ending, call.decision.reason) for call in house.records if call.decision] == [
        ("answered", "named"),
        ("answered", "category"),
    ]
    assert [name.startswith("classify") for name in slow.threads] == [True]


async def test_a_question_that_is_not_classified_in_the_calls_time_is_late(house: House, slow: Slow) -> None:
    house.now_s = iter([0.0, 0.0]).__next__  # only for House.call
    clock = [0.0]
    house.now_s = lambda: clock[0]
    house.pipeline = replace(house.pipeline, now_s=lambda: 59.95 + clock[0])  # admitted at 0, for a minute
    house.pipeline.access.now_s = lambda: 0.0  # type: ignore[attr-defined]
    with pytest.raises(DeadlineExceeded, match="before its question was classified"):
        await house.run(request())
    (call,) = house.records
    assert (call.ending, call.attempts) == ("deadline", [])


async def test_a_client_that_leaves_meanwhile_leaves_a_record(house: House, slow: Slow) -> None:
    call = house.call(request())
    task = asyncio.create_task(anext(house.pipeline.answer(call)))
    await begun(slow)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [one.id for one in house.records] == [call.id]


async def test_two_calls_of_a_conversation_may_be_classified_at_once(slow: Slow) -> None:
    """What is remembered of a text is shared by the threads."""
    house = House(FakeExpert("one"))
    before = house.pipeline.policy.current
    version = Version(before.document, before.experts, classify=slow, model_digest="d")
    with ThreadPoolExecutor(4) as threads:
        house.pipeline = replace(house.pipeline, policy=Published(version), classifying=threads)
        slow.let.set()
        await asyncio.gather(*(house.run(request()) for _ in range(20)))
    assert [call.ending for call in house.records] == ["answered"] * 20
    assert 1 <= len(slow.threads) <= 4
