"""The record's row: what stands in it whatever became of the call, and what never does."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, cast

import msgspec
import pytest

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.call import SILENCE, Attempt, Call, Chunk, ClientGone, ModelRequest, Source
from conclave.gateway.errors import (
    DeadlineExceeded,
    ExpertFailed,
    InvalidRequest,
    NoExpertLeft,
    Unauthenticated,
    Unavailable,
)
from conclave.gateway.policy.asked import Asked
from conclave.gateway.policy.rules import Rules
from conclave.gateway.record import MOST_SOURCES, REMEMBERED, Recorder
from conclave.gateway.reply import Reply
from conclave.gateway.trace import Trace
from conclave.router.api import Classification, Decision, Step
from conclave.safety.api import Origin, Segment

KEY = b"k" * 32
QUESTION = "my secret question"
BEGIN = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
PROBABILITIES = {"math": 0.1 + 0.2 + 0.1, "law": 1 / 7, "code": 1 / 3}


@dataclass
class Head:
    source: str = "203.0.113.9"
    authorization: str | None = None
    origin: str | None = None
    host: str | None = None


@dataclass
class Client:
    head: Head = field(default_factory=Head)
    gone: bool = False

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        raise NotImplementedError


@dataclass
class Policy:
    """What the record asks of Rules."""

    digest: str = "p" * 64
    keep_text: bool = False
    arm: str | None = None
    basis: str = ""


@dataclass
class Paper:
    """Where the rows go."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    full: bool = False
    now: datetime = BEGIN

    def append(self, row: Mapping[str, Any], /) -> int:
        self.rows.append(msgspec.json.decode(msgspec.json.encode(row)))  # as it can be read again
        if self.full:
            raise Unavailable("full")
        return len(self.rows)


@pytest.fixture
def paper() -> Paper:
    return Paper()


@pytest.fixture
def record(paper: Paper) -> Recorder:
    return Recorder(paper.append, KEY, now=lambda: paper.now)


def opened(source: str = "203.0.113.9", *, gone: bool = False) -> Call:
    return Call("req_1", cast(Source, Client(Head(source), gone)), cast(Any, None), BEGIN, 100.0)


def whole(*, stream: bool = True, keep_text: bool = False) -> Call:
    """A call that was asked, routed, failed over, and answered."""
    call = opened()
    call.grant = Grant("acme", "key_7", Scope(), deadline_s=200.0)
    call.rules = cast(Rules, Policy(keep_text=keep_text))
    body = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
    call.request = ModelRequest(body, "auto", stream, include_usage=True, needs=frozenset())
    call.segments = (Segment(Origin.USER, QUESTION, QUESTION, "messages[0]"),)
    found = Classification("math", PROBABILITIES["math"], unsure=True, probabilities=PROBABILITIES)
    steps = (Step("prover", "category"), Step("general", "fallback"))
    call.decision = Decision(steps, "category", "math", found, "m" * 64)
    call.attempts = [
        Attempt("prover", 100.01, "prover-1", "gpt-x", ended_s=100.02, upstream_status=500, failure="status"),
        Attempt("general", 100.02, "general-1", "gpt-y", first_byte_s=100.05, ended_s=100.5, upstream_status=200),
    ]
    call.reply = Reply(call.request, digest_key=KEY)
    delta = {"index": 0, "delta": {"content": "the answer"}}
    call.reply.feed(Chunk(msgspec.json.encode({"model": "gpt-y-1", "choices": [delta]})))
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    call.reply.feed(Chunk(msgspec.json.encode(end)))
    call.reply.finish({"request_id": call.id})
    call.end(100.6)
    return call


def test_a_trace_that_is_only_passed_on_stands_in_the_row_by_its_ids(record: Recorder, paper: Paper) -> None:
    call = opened()
    call.trace = Trace(0xABC, 0xDEF)
    call.end(100.1)
    record(call)
    assert paper.rows[0]["trace"] == {"trace_id": f"{0xABC:032x}", "parent_id": f"{0xDEF:016x}", "sampled": True}


def test_a_call_with_spans_keeps_their_ids_and_of_its_request_numbers_and_known_words_only(
    record: Recorder, paper: Paper
) -> None:
    call = whole()
    assert call.request is not None
    call.trace = Trace(0xABC, 0xDEF, span_id=0xF0)
    asked = {
        "temperature": 0.5,
        "max_tokens": 9,
        "top_p": "much",
        "seed": 2**70,
        "n": True,
        "stop": [QUESTION],
        "user": QUESTION,
        "reasoning_effort": QUESTION,
        "response_format": {"type": QUESTION},
    }
    call.request = replace(call.request, body={**call.request.body, **asked})
    record(call)
    (row,) = paper.rows
    assert row["trace"]["request"] == {"temperature": 0.5, "max_tokens": 9, "output": "json"}
    assert row["trace"]["opened_ns"] == int(BEGIN.timestamp() * 1e9)
    assert row["trace"]["span_id"] == f"{0xF0:016x}"
    assert [attempt["span_id"] for attempt in row["attempts"]] == [f"{0xF1:016x}", f"{0xF2:016x}"]
    assert QUESTION not in str(row)


def test_without_a_trace_a_row_has_none(record: Recorder, paper: Paper) -> None:
    record(whole())
    assert "trace" not in paper.rows[0]
    assert "span_id" not in paper.rows[0]["attempts"][0]


def test_an_answered_call_says_who_what_and_why(record: Recorder, paper: Paper) -> None:
    record(whole())
    (row,) = paper.rows
    assert (row["kind"], row["time"], row["request_id"]) == ("call", "2026-03-01T12:00:05.000000Z", "req_1")
    assert (row["tenant"], row["key_id"], row["policy"]) == ("acme", "key_7", "p" * 64)
    assert (row["ending"], row["status"], row["code"]) == ("answered", 200, None)
    assert (row["model"], row["stream"], row["duration_ms"]) == ("auto", True, 600.0)
    assert [(one["expert"], one["failure"], one["started_ms"]) for one in row["attempts"]] == [
        ("prover", "status", 10.0),
        ("general", None, 20.0),
    ]
    assert row["attempts"][1]["first_byte_ms"] == 50.0
    assert row["usage"]["prompt_tokens"] == 12
    assert (row["finish_reason"], row["answer_model"]) == ("stop", "gpt-y-1")
    assert row["shown_bytes"] > 0


def test_probabilities_are_kept_bit_for_bit(record: Recorder, paper: Paper) -> None:
    record(whole())
    decision = paper.rows[0]["decision"]
    assert decision["probabilities"] == PROBABILITIES
    assert (decision["category"], decision["unsure"], decision["runner_up"]) == ("math", True, "code")
    assert decision["steps"][1] == {"expert": "general", "reason": "fallback"}
    assert decision["model_digest"] == "m" * 64


def test_text_is_kept_as_a_keyed_digest_only(record: Recorder, paper: Paper) -> None:
    record(whole())
    everything = msgspec.json.encode(paper.rows)
    assert QUESTION.encode() not in everything
    assert b"the answer" not in everything
    assert b"203.0.113.9" not in everything
    assert paper.rows[0]["segments"] == [
        {
            "origin": "user",
            "place": "messages[0]",
            "chars": len(QUESTION),
            "digest": blake2b(QUESTION.encode(), key=KEY, digest_size=16).hexdigest(),
        }
    ]


def test_a_policy_that_keeps_text_keeps_it(record: Recorder, paper: Paper) -> None:
    record(whole(keep_text=True))
    assert paper.rows[0]["segments"][0]["text"] == QUESTION


@pytest.mark.parametrize(
    ("error", "gone", "ending", "status", "code"),
    [
        (InvalidRequest("no JSON"), False, "refused", 400, "invalid_request"),
        (DeadlineExceeded("late"), False, "deadline", 504, "deadline_exceeded"),
        (NoExpertLeft("none"), False, "failed", 502, "no_expert_left"),
        (Unavailable("full"), False, "failed", 503, "unavailable"),
        (ExpertFailed("x" * 999, kind="cut", code="c" * 999), False, "failed", 502, "c" * 64),
        (ClientGone(), True, "client_gone", 499, "ClientGone"),
        (GeneratorExit(), True, "client_gone", 499, "GeneratorExit"),
        (asyncio.CancelledError(), False, "stopped", 503, "CancelledError"),
        (KeyError(QUESTION), False, "failed", 500, "KeyError"),
    ],
    ids=["malformed", "deadline", "no expert", "full", "long code", "left early", "left later", "stopped", "our bug"],
)
def test_a_call_that_ended_badly_has_a_row_too(  # noqa: PLR0913, PLR0917  one row of the table above
    record: Recorder, paper: Paper, error: BaseException, gone: bool, ending: str, status: int, code: str
) -> None:
    call = opened(gone=gone)
    call.end(100.2, error)
    record(call)
    (row,) = paper.rows
    assert (row["ending"], row["status"], row["code"], row["duration_ms"]) == (ending, status, code, 200.0)
    assert (row["tenant"], row["decision"], row["segments"]) == (None, None, [])
    assert QUESTION not in str(row)


def test_a_stream_that_was_kept_alive_and_then_failed_had_its_200_too(record: Recorder, paper: Paper) -> None:
    call = whole()
    call.reply = Reply(ModelRequest({}, "auto", True, include_usage=False, needs=frozenset()), digest_key=b"k")
    call.reply.feed(SILENCE)
    call.end(100.7, NoExpertLeft("none"))
    record(call)
    assert paper.rows[-1]["status"] == 200


def test_a_stream_that_broke_had_its_200_already(record: Recorder, paper: Paper) -> None:
    for stream, status in ((True, 200), (False, 502)):
        call = whole(stream=stream)
        call.end(100.7, NoExpertLeft("broke"))
        record(call)
        assert (paper.rows[-1]["status"], paper.rows[-1]["ending"]) == (status, "failed")


def test_a_long_model_name_is_cut(record: Recorder, paper: Paper) -> None:
    call = opened()
    call.request = ModelRequest({}, "m" * 9_999, False, include_usage=False, needs=frozenset())
    call.end(100.1, InvalidRequest("unknown"))
    record(call)
    assert paper.rows[0]["model"] == "m" * 128


def test_an_answer_without_a_row_does_not_end_well(record: Recorder, paper: Paper) -> None:
    paper.full = True
    with pytest.raises(Unavailable):
        record(whole())
    refused = opened()
    refused.end(100.1, InvalidRequest("no"))
    record(refused)  # the client hears its own error


def knock(record: Recorder, source: str) -> None:
    call = opened(source)
    call.end(100.1, Unauthenticated("no key"))
    record(call)


def test_the_unauthenticated_share_a_row_per_source_and_minute(record: Recorder, paper: Paper) -> None:
    for source in ("a", "b", "a", "a"):
        knock(record, source)
    assert [(row["kind"], row["count"], row["status"]) for row in paper.rows] == [("unauthenticated", 1, 401)] * 2
    record.tick()
    assert len(paper.rows) == 2  # the minute still runs
    paper.now += timedelta(minutes=1)
    record.tick()
    record.tick()
    assert [row["count"] for row in paper.rows] == [1, 1, 2]
    assert paper.rows[2]["source"] == paper.rows[0]["source"] != paper.rows[1]["source"]
    assert {row["minute"] for row in paper.rows} == {"2026-03-01T12:00Z"}
    knock(record, "a")
    assert (paper.rows[3]["count"], paper.rows[3]["minute"]) == (1, "2026-03-01T12:01Z")


def test_who_is_refused_without_a_call_shares_the_row_of_the_source(record: Recorder, paper: Paper) -> None:
    record.refused(Head("a"), Unauthenticated("no key"), "req_9")
    knock(record, "a")
    record.close()
    assert [(row["kind"], row["count"]) for row in paper.rows] == [("unauthenticated", 1), ("unauthenticated", 1)]
    assert (paper.rows[0]["request_id"], paper.rows[0]["code"]) == ("req_9", "invalid_api_key")
    assert paper.rows[0]["source"] == paper.rows[1]["source"]


def test_counts_of_the_minute_that_runs_are_written_at_the_end(record: Recorder, paper: Paper) -> None:
    for _ in range(5):
        knock(record, "a")
    record.close()
    assert [row["count"] for row in paper.rows] == [1, 4]


def test_a_flood_from_many_sources_stays_small(record: Recorder, paper: Paper) -> None:
    for i in range(MOST_SOURCES + 500):
        knock(record, f"source {i}")
    record.close()
    assert len(paper.rows) == MOST_SOURCES + 2
    assert [(row["source"], row["count"]) for row in paper.rows[-2:]] == [("others", 1), ("others", 499)]


def test_every_input_of_the_choice_is_kept_beside_its_result(record: Recorder, paper: Paper) -> None:
    call = whole()
    call.asked = Asked("auto", "chat", frozenset({"tools", "images"}), frozenset({"prover", "general"}))
    call.decision = replace(call.decision, expected={"prover": 1 / 3}) if call.decision is not None else None
    record(call)
    decision = paper.rows[0]["decision"]
    assert (decision["needs"], decision["reach"]) == (["images", "tools"], ["general", "prover"])
    assert decision["expected"] == {"prover": 1 / 3}
    assert not {"arm", "conversation", "talk", "quality"} & decision.keys()  # nothing to say of them


def test_in_an_ab_test_the_row_says_which_arm_and_by_a_digest_which_conversation(
    record: Recorder, paper: Paper
) -> None:
    call = whole()
    call.rules = cast(Rules, Policy(arm="control"))
    record(call)
    decision = paper.rows[0]["decision"]
    assert decision["arm"] == "control"
    begins = f"begins:{QUESTION}"
    assert decision["conversation"] == blake2b(begins.encode(), key=KEY, digest_size=16).hexdigest()
    assert QUESTION not in str(paper.rows)


def test_the_newest_calls_are_known_by_their_tenant(record: Recorder) -> None:
    for number in range(3 * REMEMBERED):
        call = opened()
        call.id, call.grant = f"req_{number}", Grant("acme", None, Scope(), deadline_s=200.0)
        call.end(100.1, InvalidRequest("x"))
        record(call)
    known = [record.tenant_of(f"req_{number}") for number in range(3 * REMEMBERED)]
    assert known[-REMEMBERED:] == ["acme"] * REMEMBERED
    assert known[0] is None
    assert record.tenant_of("req_nobody") is None
