"""The way of a call with a weak expert on trial: what is shown, who is asked, and what the record says."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.api import headers
from conclave.gateway.api.chat import parse
from conclave.gateway.call import END, SILENCE, Call, Chunk
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed, UpstreamRejected
from conclave.gateway.experts.pool import Deployment, Pool, PoolEntry
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.policy.replayed import walked
from conclave.gateway.prompt import Prompt
from conclave.gateway.record import row_of
from conclave.gateway.reply import KEEP_ALIVE_S
from conclave.gateway.testing import FakeClock, FakeExpert
from conclave.router.api import Classification

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


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
        return self.body


class Open:
    def __init__(self, now_s: Callable[[], float]) -> None:
        self.now_s = now_s

    async def admit(self, _: Head) -> Grant:
        return Grant("t", None, Scope(), self.now_s() + 60)


class Sure(FakeExpert):
    """Says how sure it is of each token, if it is asked; several answers, too."""

    def __init__(self, name: str, answers: str | list[str], logprob: float = -0.01, **more: Any) -> None:
        self.answers = [answers] if isinstance(answers, str) else answers
        super().__init__(name, answer=self.answers[0], **more)
        self.logprob = logprob

    def events(self, prompt: Prompt) -> Iterator[dict[str, Any]]:
        for event in super().events(prompt):
            choices = []
            for index in range(prompt.body.get("n", 1)):
                for choice in event["choices"]:
                    said = dict(choice.get("delta") or choice.get("message") or {})
                    if said.get("content"):
                        said["content"] = self.answers[index % len(self.answers)]
                    one = {**choice, "index": index, "delta" if prompt.stream else "message": said}
                    if prompt.body.get("logprobs"):
                        tokens = [{"token": "x", "logprob": self.logprob, "top_logprobs": []}] * bool(
                            said.get("content")
                        )
                        one["logprobs"] = {"content": tokens}
                    choices.append(one)
            yield {**event, "choices": choices}


class House:
    """A pipeline whose policy has a cascade from the first expert to the second."""

    def __init__(
        self,
        *experts: FakeExpert,
        now_s: Callable[[], float] = time.monotonic,
        category: str = "math",
        unsure: bool = False,
        **cascade: Any,
    ) -> None:
        self.now_s = now_s
        self.records: list[Call] = []
        names = [expert.name for expert in experts]
        known = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "capabilities": ["tools", "n", "logprobs"]}
        policy = {
            "experts": {name: {**known, "quality": 0.1 * number} for number, name in enumerate(names)},
            "categories": {"math": names[::-1]},
            "default": names[::-1],
            "routing": {"cascade": {"weak": names[0], "below": 0.7, **cascade}},
        }
        found = Classification(category, 0.9, unsure, {category: 0.9, "law": 0.1})
        entries = {one.name: PoolEntry(deployments=[Deployment("one", one)], transport_retries=0) for one in experts}
        document = PolicyDocument.model_validate(policy)
        self.pipeline = Pipeline(
            access=Open(now_s),  # type: ignore[arg-type]
            policy=Published(Version(document, Pool(entries, now_s=now_s), classify=lambda _: found, model_digest="d")),
            record=self.records.append,
            digest_key=b"k",
            now_s=now_s,
        )

    def call(self, body: bytes) -> Call:
        return Call("req_1", Source(body), parse, datetime.now(UTC), self.now_s())

    async def run(self, body: bytes) -> list[Chunk]:
        return [chunk async for chunk in self.pipeline.answer(self.call(body))]

    @property
    def row(self) -> dict[str, Any]:
        (call,) = self.records
        return row_of(call, datetime.now(UTC), lambda _: "digest")


def request(*, stream: bool = False, **more: Any) -> bytes:
    return json.dumps(
        {"model": "auto", "messages": [{"role": "user", "content": "2+2?"}], "stream": stream, **more}
    ).encode()


def text(chunks: list[Chunk]) -> str:
    events = [chunk.event for chunk in chunks if chunk is not END and chunk is not SILENCE]
    choices = [choice for event in events for choice in event["choices"]]
    return "".join((choice.get("message") or choice["delta"]).get("content") or "" for choice in choices)


def explained(chunks: list[Chunk]) -> dict[str, Any]:
    found: dict[str, Any] = chunks[-2].event["conclave"]
    return found


@BOTH
async def test_a_sure_answer_of_the_weak_expert_is_shown_and_nobody_else_is_asked(stream: bool) -> None:
    weak, strong = Sure("weak", "four"), Sure("strong", "4")
    house = House(weak, strong)
    chunks = await house.run(request(stream=stream))
    assert text(chunks) == "four"
    assert not strong.asked
    about = explained(chunks)
    assert (about["expert"], about["reason"], about["escalated"]) == ("weak", "trial", False)
    assert house.row["attempts"][0]["trial"] == {"unsure": False, "confidence": pytest.approx(0.98, abs=0.01),
                                                 "evidence": "label",
                                                 "measured": pytest.approx(0.98, abs=0.01)}  # fmt: skip
    assert house.row["escalated"] is False


@BOTH
async def test_an_unsure_answer_is_never_shown_and_the_strong_expert_answers(stream: bool) -> None:
    weak, strong = Sure("weak", "five", -3.0), Sure("strong", "four")
    house = House(weak, strong)
    chunks = await house.run(request(stream=stream))
    assert text(chunks) == "four"
    assert not any(b"five" in chunk.data for chunk in chunks)
    about = explained(chunks)
    assert (about["expert"], about["reason"], about["escalated"]) == ("strong", "escalated", True)
    assert house.row["escalated"] is True
    assert [attempt["usage"]["completion_tokens"] for attempt in house.row["attempts"]] == [1, 1]
    assert house.row["usage"]["completion_tokens"] == 2
    assert dict(headers.call_headers(house.records[0]))[b"x-conclave-escalated"] == b"true"


@BOTH
@pytest.mark.parametrize("logprob", [1000.0, 1e308, -1e308])
async def test_probabilities_that_cannot_be_end_no_call(stream: bool, logprob: float) -> None:
    house = House(Sure("weak", "one two three four", logprob), Sure("strong", "4"))
    assert text(await house.run(request(stream=stream)))
    assert house.row["ending"] == "answered"


async def test_a_strong_expert_that_another_continued_is_replayed_as_it_was() -> None:
    """The unsure answer is kept only where the client has seen no word; here it has."""
    strong = FakeExpert("strong", pieces=("a", "b"), failure=ExpertFailed("no", kind="cut"), after=3)
    house = House(Sure("weak", "five", -3.0), strong, FakeExpert("third", answer="c"), strong="strong")
    await house.run(request(stream=True))
    assert walked(house.row) == []


@BOTH
async def test_the_weak_expert_is_asked_how_sure_it_is_and_the_client_sees_nothing_of_it(stream: bool) -> None:
    weak = Sure("weak", "four")
    chunks = await House(weak, Sure("strong", "4")).run(request(stream=stream))
    assert (weak.asked[0].body["logprobs"], weak.asked[0].body["top_logprobs"]) == (True, 5)
    choices = [choice for chunk in chunks[:-1] for choice in chunk.event["choices"]]
    assert not any(choice.get("logprobs", {}) and choice["logprobs"]["content"] for choice in choices)


@BOTH
async def test_probabilities_that_the_client_asked_for_stay(stream: bool) -> None:
    weak = Sure("weak", "four")
    chunks = await House(weak, Sure("strong", "4")).run(request(stream=stream, logprobs=True))
    assert "top_logprobs" not in weak.asked[0].body
    choices = [choice for chunk in chunks[:-1] for choice in chunk.event["choices"]]
    assert any(choice.get("logprobs") and choice["logprobs"]["content"] for choice in choices)


async def test_the_strong_expert_is_sent_what_the_client_wrote() -> None:
    strong = Sure("strong", "four")
    await House(Sure("weak", "five", -3.0), strong).run(request())
    assert "logprobs" not in strong.asked[0].body


@BOTH
@pytest.mark.parametrize("kind", ["connect", "status", "cut"])
async def test_if_the_strong_expert_fails_the_unsure_answer_is_better_than_none(stream: bool, kind: str) -> None:
    strong = FakeExpert("strong", failure=ExpertFailed("no", kind=kind))
    house = House(Sure("weak", "five", -3.0), strong)
    chunks = await house.run(request(stream=stream))
    assert text(chunks) == "five"
    about = explained(chunks)
    assert (about["expert"], about["reason"], about["escalated"]) == ("weak", "kept", True)
    assert (house.row["ending"], house.row["kept"]) == ("answered", "weak")
    assert house.row["usage"]["completion_tokens"] == 1


async def test_a_verdict_of_the_strong_expert_on_the_request_does_not_undo_the_answer_that_is_there() -> None:
    strong = FakeExpert("strong", failure=ExpertFailed("too long", kind="rejected", final=True))
    assert text(await House(Sure("weak", "five", -3.0), strong).run(request())) == "five"


async def test_a_third_expert_is_not_asked_after_an_escalation() -> None:
    third = FakeExpert("third")
    strong = FakeExpert("strong", failure=ExpertFailed("no", kind="cut"))
    house = House(Sure("weak", "five", -3.0), strong, third, strong="strong")
    assert text(await house.run(request())) == "five"
    assert not third.asked


@BOTH
async def test_if_the_weak_expert_fails_the_strong_one_is_a_plain_fallback(stream: bool) -> None:
    weak = FakeExpert("weak", failure=ExpertFailed("no", kind="connect"))
    house = House(weak, Sure("strong", "four"))
    about = explained(await house.run(request(stream=stream)))
    assert (about["expert"], about["reason"], about["escalated"]) == ("strong", "fallback", False)


async def test_a_strong_expert_that_fails_after_its_first_word_is_continued_not_replaced() -> None:
    strong = FakeExpert("strong", pieces=("a", "b"), failure=ExpertFailed("no", kind="cut"), after=3)
    third = FakeExpert("third", answer="c")
    house = House(Sure("weak", "five", -3.0), strong, third, strong="strong")
    assert text(await house.run(request(stream=True))) == "abc"


async def test_while_a_stream_is_held_the_client_hears_that_somebody_is_at_work() -> None:
    clock = FakeClock()
    weak = Sure("weak", "a", pieces=("a",), between_s=KEEP_ALIVE_S, now_s=clock.now_s, sleep=clock.sleep)
    house = House(weak, FakeExpert("strong"), now_s=clock.now_s, trial_s=60)
    chunks: list[Chunk] = []

    async def drive() -> None:
        async for chunk in house.pipeline.answer(house.call(request(stream=True))):
            chunks.append(chunk)

    task = asyncio.ensure_future(drive())
    while not chunks:
        for _ in range(5):
            await asyncio.sleep(0)
        clock.advance(KEEP_ALIVE_S)
    assert chunks[0] is SILENCE
    while not task.done():
        for _ in range(5):
            await asyncio.sleep(0)
        clock.advance(KEEP_ALIVE_S)
    assert text(chunks) == "a"
    assert all(chunk is SILENCE for chunk in chunks[: [chunk is SILENCE for chunk in chunks].index(False)])


async def test_the_head_of_a_stream_does_not_name_an_expert_that_is_still_on_trial() -> None:
    clock = FakeClock()
    weak = Sure("weak", "a", between_s=KEEP_ALIVE_S, now_s=clock.now_s, sleep=clock.sleep)
    house = House(weak, FakeExpert("strong"), now_s=clock.now_s, trial_s=60)
    call = house.call(request(stream=True))
    answer = house.pipeline.answer(call)
    first = asyncio.ensure_future(anext(answer))
    while not first.done():
        for _ in range(5):
            await asyncio.sleep(0)
        clock.advance(KEEP_ALIVE_S)
    assert first.result() is SILENCE
    names = [name for name, _ in headers.call_headers(call)]
    assert b"x-conclave-expert" not in names
    await answer.aclose()


@BOTH
async def test_a_trial_that_takes_too_long_has_failed_and_the_strong_expert_answers(stream: bool) -> None:
    clock = FakeClock()
    weak = Sure("weak", "five", first_s=40, now_s=clock.now_s, sleep=clock.sleep)
    house = House(weak, Sure("strong", "four", now_s=clock.now_s), now_s=clock.now_s, trial_s=5)
    task = asyncio.ensure_future(house.run(request(stream=stream)))
    for _ in range(5):
        await asyncio.sleep(0)
    clock.advance(40)
    assert text(await task) == "four"
    assert [attempt["failure"] for attempt in house.row["attempts"]] == ["late", None]


async def test_an_expert_that_is_late_on_each_trial_is_not_asked_for_a_while() -> None:
    """Its breaker opens: the callers after that need not wait `trial_s` for nothing."""
    clock = FakeClock()
    weak = Sure("weak", "five", first_s=40, now_s=clock.now_s, sleep=clock.sleep)
    house = House(weak, Sure("strong", "four", now_s=clock.now_s), now_s=clock.now_s, trial_s=5)
    failures = []
    for _ in range(6):
        task = asyncio.ensure_future(house.run(request()))
        for _ in range(20):
            await asyncio.sleep(0)
        if not task.done():
            clock.advance(40)
        assert text(await asyncio.wait_for(task, 5)) == "four"
        failures.append(house.row["attempts"][0]["failure"])
        house.records.clear()
    assert failures == ["late"] * 5 + ["breaker_open"]


async def test_when_time_is_up_for_the_strong_expert_the_unsure_answer_is_shown() -> None:
    clock = FakeClock()
    strong = FakeExpert("strong", first_s=61, now_s=clock.now_s, sleep=clock.sleep)
    house = House(Sure("weak", "five", -3.0, now_s=clock.now_s), strong, now_s=clock.now_s)
    task = asyncio.ensure_future(house.run(request()))
    for _ in range(5):
        await asyncio.sleep(0)
    clock.advance(61)
    assert text(await task) == "five"
    assert house.row["attempts"][1]["failure"] == "late"


async def test_when_time_is_up_within_the_trial_the_call_is_out_of_time() -> None:
    clock = FakeClock()
    weak = Sure("weak", "five", first_s=61, now_s=clock.now_s, sleep=clock.sleep)
    house = House(weak, FakeExpert("strong"), now_s=clock.now_s, trial_s=600)
    task = asyncio.ensure_future(house.run(request()))
    for _ in range(5):
        await asyncio.sleep(0)
    clock.advance(61)
    with pytest.raises(DeadlineExceeded):
        await task
    assert house.row["ending"] == "deadline"


@BOTH
async def test_a_client_that_leaves_during_the_trial_closes_the_upstream_and_is_recorded_once(stream: bool) -> None:
    weak = Sure("weak", "five", stall=True, after=1 if stream else 0)
    strong = FakeExpert("strong")
    house = House(weak, strong)
    call = house.call(request(stream=stream))

    async def drive() -> None:
        async for _ in house.pipeline.answer(call):
            pass

    task = asyncio.ensure_future(drive())
    for _ in range(9):
        await asyncio.sleep(0)
    call.source.gone = True  # type: ignore[misc]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (len(house.records), weak.closed, call.ending, strong.asked) == (1, 1, "client_gone", [])


async def test_an_expert_on_trial_that_refuses_the_request_has_not_spoken_for_the_others() -> None:
    """It may have choked on what the gateway asked of it beside the answer."""
    weak = FakeExpert("weak", failure=ExpertFailed("logprobs is no field", kind="rejected", final=True))
    assert text(await House(weak, Sure("strong", "four")).run(request())) == "four"


async def test_if_both_refuse_the_request_it_is_the_clients_error() -> None:
    refusal = ExpertFailed("no such field", kind="rejected", final=True, param="top_k")
    with pytest.raises(UpstreamRejected):
        await House(FakeExpert("weak", failure=refusal), FakeExpert("strong", failure=refusal)).run(request())


CALL = {"role": "assistant", "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}  # fmt: skip
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "4"}
ASKED = {"role": "user", "content": "2+2?"}


@pytest.mark.parametrize(
    "more",
    [
        {"model": "auto:cheap"},
        {"model": "auto:best"},
        {"model": "strong"},
        {"n": 2},
        {"messages": [ASKED, CALL, RESULT]},
        {"messages": [ASKED, CALL, RESULT, RESULT | {"tool_call_id": "c2"}]},
        {"messages": [ASKED, CALL, ASKED]},
    ],
    ids=["cheap", "best", "named", "several", "tool-result", "results", "unanswered-call"],
)
async def test_nobody_is_on_trial_where_a_trial_makes_no_sense(more: dict[str, Any]) -> None:
    house = House(Sure("weak", "five", -3.0), Sure("strong", "four"))
    about = explained(await house.run(request(**more)))
    assert "escalated" not in about
    assert len(house.records[0].attempts) == 1


async def test_when_the_tool_loop_is_over_a_trial_may_begin() -> None:
    house = House(Sure("weak", "four"), Sure("strong", "4"))
    said = {"role": "assistant", "content": "4"}
    about = explained(await house.run(request(messages=[ASKED, CALL, RESULT, said, ASKED])))
    assert about["reason"] == "trial"


async def test_categories_that_the_policy_does_not_list_go_straight_to_their_expert() -> None:
    house = House(Sure("weak", "four"), Sure("strong", "4"), categories=["law"])
    assert "escalated" not in explained(await house.run(request()))


async def test_a_question_of_unsure_category_is_none_of_the_listed() -> None:
    house = House(Sure("weak", "four"), Sure("strong", "4"), unsure=True, categories=["math"])
    assert "escalated" not in explained(await house.run(request()))


@pytest.mark.parametrize(("policy", "said"), [("accept", "five"), ("escalate", "four")])
async def test_an_answer_without_evidence_is_treated_as_the_policy_says(policy: str, said: str) -> None:
    house = House(FakeExpert("weak", answer="five"), Sure("strong", "four"), without_evidence=policy)
    assert text(await house.run(request())) == said
    assert house.row["attempts"][0]["trial"]["confidence"] is None


@pytest.mark.parametrize("policy", ["accept", "escalate"])
@pytest.mark.parametrize("answer", ["", "  \n"], ids=["empty", "blank"])
@BOTH
async def test_an_answer_that_says_nothing_is_never_good_enough(stream: bool, answer: str, policy: str) -> None:
    weak = FakeExpert("weak", pieces=(answer,))
    house = House(weak, Sure("strong", "four"), without_evidence=policy)
    assert text(await house.run(request(stream=stream))) == "four"
    trial = house.row["attempts"][0]["trial"]
    assert (trial["unsure"], trial["confidence"]) == (True, None)


@BOTH
async def test_samples_that_agree_are_accepted_and_one_of_them_is_shown(stream: bool) -> None:
    weak = Sure("weak", ["Four", "four.", "four"])
    house = House(weak, FakeExpert("strong"), evidence=["agreement"], samples=3)
    chunks = await house.run(request(stream=stream, max_tokens=8))
    assert weak.asked[0].body["n"] == 3
    assert text(chunks) == "Four"
    assert {choice["index"] for chunk in chunks[:-1] for choice in chunk.event["choices"]} == {0}
    assert house.row["attempts"][0]["trial"]["evidence"] == "agreement"


@BOTH
async def test_samples_that_disagree_are_escalated(stream: bool) -> None:
    weak = Sure("weak", ["four", "five", "six"])
    house = House(weak, FakeExpert("strong", answer="4"), evidence=["agreement"], samples=3)
    assert text(await house.run(request(stream=stream, max_tokens=8))) == "4"


@pytest.mark.parametrize(
    "more", [{}, {"max_tokens": 4000}, {"max_tokens": 8, "temperature": 0}, {"max_tokens": 8, "tools": [{}]},
     {"max_tokens": 8, "functions": [{}]}],
    ids=["no-limit", "long", "greedy", "tools", "functions"],
)  # fmt: skip
async def test_only_a_short_answer_that_may_vary_is_asked_for_several_times(more: dict[str, Any]) -> None:
    weak = Sure("weak", "four")
    await House(weak, FakeExpert("strong"), evidence=["agreement"], samples=3).run(request(**more))
    assert "n" not in weak.asked[0].body


async def test_the_expert_that_called_a_tool_gets_its_result_whatever_the_router_would_choose() -> None:
    tool_call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    class Calling(FakeExpert):
        def events(self, prompt: Prompt) -> Iterator[dict[str, Any]]:
            message = {"role": "assistant", "content": None, "tool_calls": [tool_call]}
            yield {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}

    house = House(Calling("weak"), FakeExpert("strong", answer="4"))
    first = explained(await house.run(request(tools=[{"type": "function"}])))
    assert first["expert"] == "weak"
    second = explained(await house.run(request(tools=[{"type": "function"}], messages=[ASKED, CALL, RESULT])))
    assert (second["expert"], second["reason"]) == ("weak", "tool_loop")
    row = row_of(house.records[1], datetime.now(UTC), lambda _: "digest")
    assert row["decision"]["talk"] == {"before": "weak", "open_loop": True}
