from collections.abc import Callable, Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from conclave.gateway.followers.api import Row
from conclave.gateway.followers.counters import MOST_VALUES, CallCounters
from conclave.gateway.telemetry import names

Data = Mapping[str, dict[str, Any]]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def counters(registry: CollectorRegistry) -> CallCounters:
    return CallCounters(registry, providers={"coder": "openai"})


BIG = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "big",
}
SMALL = {**BIG, "gen_ai_provider_name": "_OTHER", "gen_ai_request_model": "small"}
BIG_TOKENS = {**BIG, "gen_ai_token_modality": "unknown"}
SMALL_TOKENS = {**SMALL, "gen_ai_token_modality": "unknown"}


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("conclave_requests_total", {"conclave_ending": "answered", "conclave_status": "200"}, 1),
        ("conclave_request_duration_seconds_sum", {"conclave_ending": "answered"}, 0.5),
        (
            "conclave_route_decisions_total",
            {
                "conclave_route_category": "code",
                "conclave_route_reason": "category",
                "conclave_route_unsure": "false",
            },
            1,
        ),
        ("conclave_route_confidence_sum", {"conclave_route_category": "code"}, 0.83),
        ("conclave_attempts_total", {"conclave_expert": "flaky", "conclave_failure": "status"}, 1),
        ("conclave_attempts_total", {"conclave_expert": "coder", "conclave_failure": ""}, 1),
        ("conclave_attempt_transport_retries_total", {"conclave_expert": "flaky"}, 2),
        ("gen_ai_client_inference_duration_seconds_sum", {**BIG, "error_type": ""}, 0.4),
        ("gen_ai_client_inference_duration_seconds_sum", {**SMALL, "error_type": "status"}, 0.05),
        ("gen_ai_client_inference_time_to_first_chunk_seconds_sum", BIG, 0.1),
        ("gen_ai_client_inference_time_per_output_chunk_seconds_sum", BIG, 0.3),
        ("gen_ai_client_inference_time_per_output_chunk_seconds_count", BIG, 3),
        ("gen_ai_client_inference_time_per_output_chunk_seconds_bucket", {**BIG, "le": "0.08"}, 0),
        ("gen_ai_client_inference_time_per_output_chunk_seconds_bucket", {**BIG, "le": "0.16"}, 3),
        ("gen_ai_client_inference_time_per_output_chunk_seconds_bucket", {**BIG, "le": "+Inf"}, 3),
        ("gen_ai_client_inference_usage_input_tokens_total", BIG_TOKENS, 11),
        ("gen_ai_client_inference_usage_output_tokens_total", BIG_TOKENS, 7),
        ("gen_ai_client_inference_usage_reasoning_output_tokens_total", BIG_TOKENS, 3),
        ("gen_ai_client_inference_usage_cache_read_input_tokens_total", BIG_TOKENS, None),
        ("gen_ai_client_inference_usage_input_tokens_total", SMALL_TOKENS, 0),  # what is guessed is not counted
        ("gen_ai_client_operation_duration_seconds_sum", {**BIG, "error_type": ""}, 0.4),
        ("gen_ai_client_operation_time_to_first_chunk_seconds_sum", BIG, 0.1),
        ("gen_ai_client_operation_time_per_output_chunk_seconds_count", BIG, 3),
        ("gen_ai_client_token_usage_sum", {**BIG, "gen_ai_token_type": "input"}, 11),
        ("gen_ai_client_token_usage_sum", {**BIG, "gen_ai_token_type": "output"}, 7),
        ("gen_ai_client_token_usage_bucket", {**BIG, "gen_ai_token_type": "output", "le": "4.0"}, 0),
        ("gen_ai_client_token_usage_bucket", {**BIG, "gen_ai_token_type": "output", "le": "16.0"}, 1),
        ("conclave_audit_rows_total", {"conclave_audit_kind": "call"}, 1),
    ],
)
def test_a_call_is_counted_as_it_was_recorded(
    row: Callable[..., Row], name: str, labels: dict[str, str], value: float | None
) -> None:
    registry = CollectorRegistry()
    CallCounters(registry, providers={"coder": "openai"}).follow([row(0)])
    found = registry.get_sample_value(name, labels)
    assert found == (value if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("chosen", "there", "absent"),
    [
        ("newest", "gen_ai_client_inference_duration_seconds", "gen_ai_client_token_usage"),
        ("older", "gen_ai_client_token_usage", "gen_ai_client_inference_duration_seconds"),
        ("both", "gen_ai_client_token_usage", "no_such_metric"),
    ],
)
def test_only_the_names_that_were_chosen_are_on_the_page(
    registry: CollectorRegistry, row: Callable[..., Row], chosen: names.GenAINames, there: str, absent: str
) -> None:
    CallCounters(registry, metrics=names.chosen(chosen)).follow([row(0)])
    families = {family.name for family in registry.collect()}
    assert there in families
    assert absent not in families
    assert "conclave_requests" in families


def test_a_plain_answer_has_no_times_of_chunks(
    registry: CollectorRegistry, counters: CallCounters, row: Callable[..., Row], data: Data
) -> None:
    counters.follow([row(0, {**data["call"], "stream": False})])
    assert not {s.name for s in samples(registry) if "chunk" in s.name and s.value}


def test_what_only_observing_let_pass_is_counted(
    registry: CollectorRegistry, counters: CallCounters, row: Callable[..., Row], data: Data
) -> None:
    seen = {"action": "allow", "findings": [], "ran": []}
    call = {**data["call"], "verdict": {**seen, "would": "redact"}, "guard": {**seen, "would": "block"}}
    counters.follow([row(0, call), row(1, {**call, "guard": seen})])
    values = {
        direction: registry.get_sample_value(
            "conclave_safety_observed_total",
            {"conclave_safety_direction": direction, "conclave_safety_would": would},
        )
        for direction, would in (("request", "redact"), ("answer", "block"), ("retrieved", "block"))
    }
    assert values == {"request": 2, "answer": 1, "retrieved": None}


def test_look_ups_and_what_was_found_in_answers_are_counted_as_the_journal_has_them(
    registry: CollectorRegistry, counters: CallCounters, row: Callable[..., Row], data: Data
) -> None:
    """The journal is not read whole: what followers count must be among what is."""
    found = {"check": "links", "kind": "links.lookalike", "acted": False}
    call = {
        **data["call"],
        "decision": {**data["call"]["decision"], "look_up": {"saving": 40.0}},
        "retrieval": {
            "outcome": "used",
            "search_ms": 5.0,
            "passages": ["a", "b"],
            "kept_away": [{"reasons": ["flood"]}],
        },
        "guard": {"action": "allow", "findings": [found], "ran": [{"check": "links", "ms": 1.0}]},
    }
    counters.follow([row(0, call)])
    values = {sample.name: sample.value for sample in samples(registry) if sample.value}
    assert values["conclave_retrieval_decisions_total"] == 1
    assert values["conclave_retrieval_tokens_saved_total"] == 40
    assert values["conclave_retrieval_search_duration_seconds_sum"] == pytest.approx(0.005)
    assert values["conclave_safety_check_duration_seconds_sum"] == pytest.approx(0.001)
    fates = {s.labels["conclave_retrieval_fate"]: s.value for s in samples(registry) if "passages_total" in s.name}
    assert fates == {"shown": 2, "flood": 1}
    assert values["conclave_safety_findings_total"] == 1


def test_rows_that_come_again_are_counted_once(
    registry: CollectorRegistry, counters: CallCounters, row: Callable[..., Row]
) -> None:
    counters.follow([row(0), row(1)])
    counters.follow([row(1), row(2)])
    assert registry.get_sample_value("conclave_audit_rows_total", {"conclave_audit_kind": "call"}) == 3
    assert counters.position() == {"c": 2}


def test_unauthenticated_calls_are_counted_by_their_rows_count(
    registry: CollectorRegistry, counters: CallCounters, row: Callable[..., Row], data: Data
) -> None:
    counters.follow([row(0, data["unauthenticated"])])
    assert registry.get_sample_value("conclave_unauthenticated_total") == 40
    assert registry.get_sample_value("conclave_requests_total") is None


def test_a_refused_call_has_neither_decision_nor_attempt(
    registry: CollectorRegistry, counters: CallCounters, row: Callable[..., Row], data: Data
) -> None:
    counters.follow([row(0, data["refused"]), row(1, data["genesis"])])
    counted = {sample.name for family in registry.collect() for sample in family.samples}
    assert "conclave_requests_total" in counted
    assert not {"conclave_attempts_total", "conclave_route_decisions_total"} & counted


def test_an_expert_that_was_not_asked_has_no_duration(
    registry: CollectorRegistry, counters: CallCounters, row: Callable[..., Row], data: Data
) -> None:
    attempt = {**data["call"]["attempts"][0], "failure": "breaker_open"}
    counters.follow([row(0, {**data["call"], "attempts": [attempt], "usage": None})])
    labels = {"conclave_expert": "flaky", "conclave_failure": "breaker_open"}
    assert registry.get_sample_value("conclave_attempts_total", labels) == 1
    assert not any(s.name.endswith("duration_seconds_sum") and "error_type" in s.labels for s in samples(registry))


def test_a_label_never_has_more_than_so_many_values(
    registry: CollectorRegistry, counters: CallCounters, row: Callable[..., Row], data: Data
) -> None:
    """Whatever finds its way into a label, the memory of the gateway and of Prometheus stays bounded."""
    for seq in range(MOST_VALUES + 50):
        attempts = [{**data["call"]["attempts"][1], "expert": f"e{seq}"}]
        counters.follow([row(seq, {**data["call"], "attempts": attempts})])
    experts = {s.labels["conclave_expert"] for s in samples(registry) if s.name == "conclave_attempts_total"}
    assert len(experts) == MOST_VALUES + 1
    assert names.OTHER in experts


def test_nothing_that_people_wrote_and_no_key_is_a_label(
    registry: CollectorRegistry, counters: CallCounters, row: Callable[..., Row]
) -> None:
    counters.follow([row(0)])
    values = {value for sample in samples(registry) for value in sample.labels.values()}
    assert not values & {"my secret", "0123456789ab", "req_1", "acme", "s1", "d1"}


def test_every_metric_is_registered(registry: CollectorRegistry, counters: CallCounters) -> None:
    families = {family.name for family in registry.collect()}
    assert {names.prometheus(metric).removesuffix("_total") for metric in names.METRICS} <= families


def samples(registry: CollectorRegistry) -> list[Any]:
    return [sample for family in registry.collect() for sample in family.samples]


TAGS = {"team": "search", "env": "prod", "job": "7"}


@pytest.mark.parametrize(
    ("listed", "series"),
    [
        ({}, {}),
        ({"team": ("search", "ads")}, {("team", "search"): 1}),
        ({"team": ("ads",), "env": ("prod",), "absent": ("x",)}, {("team", "other"): 1, ("env", "prod"): 1}),
    ],
    ids=["none", "a value", "another value"],
)
def test_only_tags_and_values_that_policy_lists_are_told_apart(
    registry: CollectorRegistry, data: Data, row: Callable[..., Row], listed: Mapping[str, tuple[str, ...]], series: Any
) -> None:
    """What a client writes into a tag can never make a time series."""
    counters = CallCounters(registry, tags=lambda: listed)
    counters.follow([row(0, {**data["call"], "tags": TAGS}), row(1, data["call"])])
    found = {
        (sample.labels["conclave_tag"], sample.labels["conclave_tag_value"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "conclave_tagged_requests_total"
    }
    assert found == series


def test_the_arms_of_a_split_and_ratings_are_counted(
    counters: CallCounters, registry: CollectorRegistry, row: Callable[..., Row], data: Data
) -> None:
    in_arm = {**data["call"], "decision": {**data["call"]["decision"], "arm": "thrifty"}}
    said = [{"kind": "feedback", "time": data["call"]["time"], "score": score} for score in (0.0, 0.5, 1.0)]
    counters.follow([row(seq, one) for seq, one in enumerate([data["call"], in_arm, *said])])
    about = {"conclave_route_arm": "thrifty", "conclave_ending": "answered"}
    assert registry.get_sample_value("conclave_route_split_total", about) == 1
    assert registry.get_sample_value("conclave_feedback_total", {"conclave_feedback_rating": "good"}) == 2
    assert registry.get_sample_value("conclave_feedback_total", {"conclave_feedback_rating": "bad"}) == 1
