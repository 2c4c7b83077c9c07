"""What a call's spans say, from its row."""

import copy
import json
import string
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.followers.api import Noted
from conclave.gateway.telemetry import names
from conclave.gateway.telemetry.spans import Told, told

PROVIDERS = {"coder": "openai", "flaky": "openai"}
OPENED_NS = 1_795_332_600_000_000_000
SAID = "my secret is: Zebra!"

ROW: dict[str, Any] = {
    "kind": "call",
    "time": "2026-11-22T07:30:00.500250Z",
    "request_id": "req_1",
    "tenant": "acme",
    "ending": "answered",
    "status": 200,
    "code": None,
    "stream": True,
    "operation": "chat",
    "decision": {
        "row": "code",
        "reason": "category",
        "steps": [{"expert": "flaky", "reason": "category"}, {"expert": "coder", "reason": "fallback"}],
        "category": "code",
        "confidence": 0.83,
        "unsure": False,
        "runner_up": "math",
    },
    "attempts": [
        {
            "expert": "flaky",
            "deployment": "0:flaky.example:8000",
            "model": "small",
            "started_ms": 10.0,
            "first_byte_ms": None,
            "ended_ms": 60.0,
            "failure": "status",
            "usage": {"prompt_tokens": 9, "completion_tokens": 2, "estimated": True},
            "chunks": 0,
        },
        {
            "expert": "coder",
            "deployment": "0:api.example",
            "model": "big",
            "started_ms": 60.0,
            "first_byte_ms": 160.0,
            "ended_ms": 460.0,
            "failure": None,
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "cached_tokens": None, "reasoning_tokens": 3},
            "chunks": 4,
        },
    ],
    "stages": {
        "admit": 1.0,
        "boundary": 4.0,
        "detect": 5.0,
        "receive": 3.0,
        "route": 10.0,
    },  # sorted by name, as in the journal
    "trace": {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "parent_id": "b7ad6b7169203331",
        "sampled": True,
        "span_id": "00000000000000f0",
        "opened_ns": OPENED_NS,
        "request": {"max_tokens": 100, "temperature": 1, "n": 1, "reasoning_effort": "low", "output": "json"},
        "response_id": "chatcmpl-1",
    },
    "duration_ms": 500.0,
    "finish_reason": "stop",
    "answer_model": "big-2",
}


def spans(row: Mapping[str, Any] = ROW) -> dict[str, Told]:
    return {span.name: span for span in told(row, PROVIDERS, chain="c", seq=7)}


def changed(**values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(ROW), **values}


def test_a_call_is_a_span_with_one_inside_for_each_stage_and_each_expert_asked() -> None:
    found = list(told(ROW, PROVIDERS))
    call, *inside = found
    assert [span.name for span in found] == [
        "conclave.call",
        "conclave.admit",
        "conclave.receive",
        "conclave.boundary",
        "conclave.detect",
        "conclave.route",
        "chat small",
        "chat big",
        "conclave.record",
    ]
    assert {span.parent_id for span in inside} == {call.span_id}
    assert (call.parent_id, call.span_id) == (0xB7AD6B7169203331, 0xF0)
    assert {span.trace_id for span in found} == {0x0AF7651916CD43DD8448EB211C80319C}
    assert len({span.span_id for span in found}) == len(found)
    assert [span.outside for span in found] == [False] * 6 + [True, True, False]


@pytest.mark.parametrize(
    ("verdict", "decision"),
    [
        (None, {"conclave.decision": "passed"}),
        ({"action": "allow", "findings": []}, {"conclave.decision": "allow"}),
        (
            {"action": "annotate", "findings": [{"kind": "pii.email"}, {"kind": "override"}, {"kind": "pii.email"}]},
            {"conclave.decision": "annotate", "conclave.reason": "pii.email, override"},
        ),
    ],
    ids=["no checks", "nothing found", "found"],
)
def test_the_checks_stage_says_what_followed_and_from_which_kinds(verdict: Any, decision: dict[str, str]) -> None:
    row = changed() if verdict is None else changed(verdict=verdict)
    assert spans(row)["conclave.detect"].attributes == decision


def test_an_experts_span_has_the_id_that_it_was_told() -> None:
    """`Trace.onward(0)` and `(1)` sent these."""
    assert (spans()["chat small"].span_id, spans()["chat big"].span_id) == (0xF1, 0xF2)


def test_times_are_those_of_the_record() -> None:
    times = {
        name: ((span.started_ns - OPENED_NS) / 1e6, (span.ended_ns - OPENED_NS) / 1e6) for name, span in spans().items()
    }
    assert times == {
        "conclave.call": (0, 500),
        "conclave.admit": (0, 1),
        "conclave.receive": (1, 3),
        "conclave.boundary": (3, 4),
        "conclave.detect": (4, 5),
        "conclave.route": (5, 10),
        "chat small": (10, 60),
        "chat big": (60, 460),
        "conclave.record": (500, pytest.approx(500.25, abs=0.001)),
    }


RETRIEVAL: dict[str, Any] = {
    "outcome": "used",
    "among": 90,
    "found": 3,
    "passages": ["one"],
    "kept_away": [
        {"id": "two", "source": "a/b.md", "reasons": ["flood", "embedded"]},
        {"id": "three", "source": "c.md", "reasons": ["flood"]},
    ],
    "conflict": "inter_context",
    "follows": "flag",
}
GUARDED: dict[str, Any] = {
    "direction": "answer",
    "action": "redact",
    "findings": [{"kind": "links.lookalike"}, {"kind": "shell.piped"}, {"kind": "shell.piped"}],
    "ran": [{"check": "links", "ms": 1.25}, {"check": "shell", "ms": 0.5}],
}


def looked_up(**values: Any) -> dict[str, Any]:
    """A call that was looked up before the second expert was asked, and whose answer was guarded."""
    spans = {"search": [5.5, 8.0], "context": [60.0, 75.0], "guard": [160.0, 500.0]}
    row = changed(spans=spans, guard=GUARDED, retrieval=RETRIEVAL)
    row["decision"]["look_up"] = {"reason": "the expert knows it"}
    return {**row, **values}


def test_what_is_no_stage_has_a_span_of_its_own_and_the_search_lies_in_the_route() -> None:
    found = spans(looked_up())
    times = {
        name: ((found[name].started_ns - OPENED_NS) / 1e6, (found[name].ended_ns - OPENED_NS) / 1e6)
        for name in ("conclave.search", "conclave.context", "conclave.guard")
    }
    assert times == {
        "conclave.search": (5.5, 8.0),
        "conclave.context": (60, 75),
        "conclave.guard": (160, 500),
    }
    assert found["conclave.search"].parent_id == found["conclave.route"].span_id
    assert {found[f"conclave.{part}"].parent_id for part in ("context", "guard")} == {found["conclave.call"].span_id}
    assert len({span.span_id for span in found.values()}) == len(found) == 12


def test_all_that_spans_say_is_read_from_the_journal() -> None:
    """Followers decode a part of each row: what is not named there would be missing in every span."""
    row = looked_up()
    assert list(told(msgspec.json.decode(msgspec.json.encode(row), type=Noted), PROVIDERS)) == list(
        told(row, PROVIDERS)
    )


def test_the_search_says_what_it_found_and_the_route_whether_that_paid() -> None:
    found = spans(looked_up())
    assert found["conclave.search"].attributes == {
        "conclave.decision": "found",
        "conclave.retrieval.found": 3,
        "conclave.retrieval.among": 90,
    }
    assert found["conclave.route"].attributes["conclave.retrieval.outcome"] == "used"
    assert found["conclave.route"].attributes["conclave.retrieval.reason"] == "the expert knows it"


@pytest.mark.parametrize(
    ("retrieval", "decision"),
    [
        ({"outcome": "failed", "failure": "late"}, {"conclave.decision": "failed", "conclave.reason": "late"}),
        (
            {"outcome": "skipped", "found": 0, "among": 7},
            {"conclave.decision": "nothing", "conclave.retrieval.found": 0, "conclave.retrieval.among": 7},
        ),
        (None, {"conclave.decision": "passed"}),
    ],
    ids=["failed", "nothing", "the call ended before anything was decided"],
)
def test_a_search_that_found_nothing_says_why(retrieval: Any, decision: dict[str, Any]) -> None:
    assert spans(looked_up(retrieval=retrieval))["conclave.search"].attributes == decision


def test_the_context_says_what_was_shown_and_why_the_rest_was_not() -> None:
    assert spans(looked_up())["conclave.context"].attributes == {
        "conclave.decision": "used",
        "conclave.reason": "inter_context: flag, flood, embedded",
        "conclave.retrieval.shown": 1,
        "conclave.retrieval.kept_away": 2,
    }


def test_a_call_that_nothing_was_to_be_relied_on_for_was_refused_there() -> None:
    row = looked_up(retrieval={"outcome": "empty", "passages": []}, code="no_evidence", ending="refused", attempts=[])
    assert spans(row)["conclave.context"].attributes["conclave.decision"] == "refused"


def test_the_guard_says_what_followed_and_how_long_its_checks_took() -> None:
    """Its span is as long as the answer, most of which is waiting for the expert."""
    assert spans(looked_up())["conclave.guard"].attributes == {
        "conclave.decision": "redact",
        "conclave.reason": "links.lookalike, shell.piped",
        "conclave.safety.ms": 1.75,
    }


def test_where_no_check_looked_at_the_answer_there_is_no_guard() -> None:
    row = looked_up()
    del row["guard"]
    assert "conclave.guard" not in spans(row)


def test_no_name_of_a_document_gets_into_a_span() -> None:
    row = looked_up(retrieval=RETRIEVAL | {"kept_away": [{"id": SAID, "source": SAID, "reasons": ["flood"]}]})
    row["retrieval"]["passages"] = [SAID]
    assert SAID not in json.dumps([span.attributes for span in told(row, PROVIDERS)])


def test_stages_that_were_left_at_the_same_microsecond_keep_their_order() -> None:
    row = changed(stages=dict.fromkeys(sorted(names.STAGES), 1.0))
    assert [span.name for span in told(row, PROVIDERS)][1:6] == [names.stage_span(stage) for stage in names.STAGES]


def test_an_experts_attributes_follow_the_genai_conventions() -> None:
    assert spans()["chat big"].attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "big",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.output.type": "json",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "big-2",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.1,
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "server.address": "api.example",
        "conclave.attempt": 1,
        "conclave.attempt.chunks": 4,
        "conclave.decision": "accepted",
        "conclave.deployment": "0:api.example",
        "conclave.expert": "coder",
        "conclave.reason": "fallback",
    }
    assert isinstance(spans()["chat big"].attributes["gen_ai.request.temperature"], float)


def test_a_failed_expert_is_an_error_with_its_kind_and_without_what_was_guessed() -> None:
    failed, good = spans()["chat small"], spans()["chat big"]
    assert (failed.failed, good.failed) == (True, False)
    assert failed.attributes["error.type"] == failed.attributes["conclave.decision"] == "status"
    assert failed.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert (failed.attributes["server.address"], failed.attributes["server.port"]) == ("flaky.example", 8000)
    assert not [name for name in failed.attributes if name.startswith("gen_ai.usage")]


def on_trial(*, strong_fails: bool) -> dict[str, Any]:
    """The first expert's answer was whole, but unsure."""
    row = changed(**({"kept": "flaky"} if strong_fails else {}))
    row["attempts"][0] |= {"failure": None, "trial": {"unsure": True}}
    row["attempts"][1]["failure"] = "status" if strong_fails else None
    return row


def test_an_answer_that_was_put_aside_is_no_error_and_not_the_answer() -> None:
    weak, strong = (spans(on_trial(strong_fails=False))[name].attributes for name in ("chat small", "chat big"))
    assert (weak["conclave.decision"], strong["conclave.decision"]) == ("unsure", "accepted")
    assert "gen_ai.response.finish_reasons" not in weak
    assert strong["gen_ai.response.id"] == "chatcmpl-1"


def test_an_unsure_answer_that_was_kept_is_the_answer() -> None:
    weak, strong = (spans(on_trial(strong_fails=True))[name].attributes for name in ("chat small", "chat big"))
    assert (weak["conclave.decision"], strong["conclave.decision"]) == ("accepted", "status")
    assert (weak["gen_ai.response.id"], weak["gen_ai.response.finish_reasons"]) == ("chatcmpl-1", ["stop"])
    assert "gen_ai.response.id" not in strong


def test_the_route_says_what_was_decided_and_why() -> None:
    assert spans()["conclave.route"].attributes == {
        "conclave.decision": "flaky",
        "conclave.reason": "category",
        "conclave.route.category": "code",
        "conclave.route.confidence": 0.83,
        "conclave.route.unsure": False,
        "conclave.route.runner_up": "math",
        "conclave.route.row": "code",
    }
    assert spans()["conclave.record"].attributes["conclave.audit.seq"] == 7


@pytest.mark.parametrize("left", range(5), ids=names.STAGES)
def test_the_stage_that_a_call_ended_in_says_so(left: int) -> None:
    stages = {stage: ROW["stages"][stage] for stage in names.STAGES[:left]}
    refused = changed(
        ending="refused", status=400, code="unknown_model", stages=stages, attempts=[], decision=None, stream=None
    )
    found = spans(refused)
    stopped = found[names.stage_span(names.STAGES[left])]
    assert stopped.attributes == {"conclave.decision": "refused", "conclave.reason": "unknown_model"}
    assert stopped.ended_ns == found["conclave.call"].ended_ns
    assert not stopped.failed  # it was the client's mistake
    assert len(found) == left + 3


def test_a_stream_that_its_client_left_has_no_finish_reason_of_its_own() -> None:
    row = changed(ending="client_gone", status=200, finish_reason=None)
    row["attempts"][1]["ended_ms"] = None
    span = spans(row)["chat big"]
    assert span.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert span.attributes["conclave.decision"] == "client_gone"
    assert span.ended_ns == OPENED_NS + 500_000_000


@pytest.mark.parametrize(
    ("operation", "name"),
    [("completions", "text_completion big"), ("embeddings", "embeddings big"), ("moderations", "moderations big")],
)
def test_other_operations_have_their_own_name(operation: str, name: str) -> None:
    assert name in spans(changed(operation=operation))


def test_a_model_in_this_process_is_internal() -> None:
    row = {**ROW, "attempts": ROW["attempts"][1:]}
    assert not [span for span in told(row, {"coder": names.IN_PROCESS}) if span.outside]


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(None, id="no trace"),
        pytest.param({**ROW["trace"], "sampled": False}, id="not wanted"),
        pytest.param({"trace_id": "1", "parent_id": "2", "sampled": True}, id="passed on only"),
    ],
)
def test_a_call_without_spans_of_its_own_has_none(trace: dict[str, Any] | None) -> None:
    assert list(told(changed(trace=trace), PROVIDERS)) == []


def hostile(text: str, ending: str) -> dict[str, Any]:
    """The row of a call whose client and whose experts wrote `text` wherever they can write."""
    row = changed(
        model=text, finish_reason=text, answer_model=text, code=text, tags={"team": text}, ending=ending, status=502
    )
    row["trace"]["response_id"] = text
    row["segments"] = [{"origin": "user", "place": "messages[0]", "text": text}]
    return row


@pytest.mark.parametrize(
    "text",
    [SAID, "Bearer sk-abc def", "two\nlines", "<script>", "x" * 129, "päss", "a,b", "{}"],
    ids=["sentence", "key", "newline", "markup", "long", "not ascii", "comma", "braces"],
)
@pytest.mark.parametrize("ending", ["answered", "failed"])
def test_what_people_and_experts_write_is_in_no_span(text: str, ending: str) -> None:
    said = [span.attributes for span in told(hostile(text, ending), PROVIDERS)]
    values = [value for about in said for value in about.values()]
    assert text not in values
    assert [text] not in values


@given(
    st.text(alphabet=string.printable + "éλ☃\u202e", min_size=12).filter(lambda text: " " in text.strip()),
    st.sampled_from(["answered", "failed", "refused", "client_gone"]),
)
def test_no_sentence_ever_gets_into_a_span(text: str, ending: str) -> None:
    said = json.dumps([span.attributes for span in told(hostile(text, ending), PROVIDERS)], ensure_ascii=False)
    assert text not in said
    assert json.dumps(text, ensure_ascii=False)[1:-1] not in said


@pytest.mark.parametrize("provider", ["litellm"])
def test_the_provider_of_a_litellm_model_is_its_vendor(provider: str) -> None:
    assert names.provider(provider, "anthropic/claude-sonnet-5") == "anthropic"
    assert names.provider(provider, "bedrock/us.amazon.nova") == "aws.bedrock"
    assert names.provider(provider, "my-own/model") == names.OTHER
    assert (names.provider("openai", "gpt"), names.provider("quoting", "")) == ("openai", "conclave")
    assert names.provider(None, "gone") == names.OTHER
