from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
)

from conclave.gateway.followers.api import Row
from conclave.gateway.followers.spans import Spans


class Made(NonRecordingSpan):
    """A span that remembers what it was told."""

    def __init__(self, name: str, number: int, about: Mapping[str, Any]) -> None:
        super().__init__(SpanContext(1, number, is_remote=False, trace_flags=TraceFlags(1)))
        self.name, self.about = name, about
        self.parent = get_current_span(about["context"])
        self.status: Status | None = None
        self.ended_ns: int | None = None

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.status = status

    def end(self, end_time: int | None = None) -> None:
        self.ended_ns = end_time


@dataclass
class Remembering(Tracer):
    """A tracer without an SDK behind it."""

    made: list[Made] = field(default_factory=list)

    def start_span(self, name: str, *args: Any, **about: Any) -> Span:
        self.made.append(Made(name, len(self.made) + 1, about))
        return self.made[-1]

    def start_as_current_span(self, *args: Any, **about: Any) -> AbstractContextManager[Span]:  # type: ignore[override]
        raise NotImplementedError


def test_a_call_is_a_span_with_one_inside_for_each_expert_asked(row: Callable[..., Row]) -> None:
    tracer = Remembering()
    Spans(tracer, providers={"coder": "openai", "flaky": "openai"}).follow([row(0)])
    call, first, second = tracer.made
    assert [span.name for span in tracer.made] == ["conclave.call", "chat small", "chat big"]
    assert (first.parent, second.parent) == (call, call)
    assert not call.parent.get_span_context().is_valid
    assert (call.about["kind"], second.about["kind"]) == (SpanKind.INTERNAL, SpanKind.CLIENT)


def test_times_are_those_of_the_record(row: Callable[..., Row]) -> None:
    tracer = Remembering()
    Spans(tracer, providers={}).follow([row(0)])
    call, _, second = tracer.made
    opened_ns = call.about["start_time"]
    assert call.ended_ns is not None
    assert second.ended_ns is not None
    assert (call.ended_ns - opened_ns) / 1e6 == 500
    assert (second.about["start_time"] - opened_ns) / 1e6 == 60
    assert (second.ended_ns - opened_ns) / 1e6 == 460


def test_attributes_follow_the_genai_conventions(row: Callable[..., Row]) -> None:
    tracer = Remembering()
    Spans(tracer, providers={"coder": "openai"}).follow([row(0)])
    assert tracer.made[2].about["attributes"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "big",
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.1,
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "conclave.expert": "coder",
        "conclave.deployment": "coder/0",
    }


def test_a_failure_is_an_error_with_its_kind_and_without_the_usage(row: Callable[..., Row]) -> None:
    tracer = Remembering()
    Spans(tracer, providers={}).follow([row(0)])
    failed, good = tracer.made[1], tracer.made[2]
    assert failed.about["attributes"]["error.type"] == "status"
    assert "gen_ai.usage.input_tokens" not in failed.about["attributes"]
    assert failed.status is not None
    assert failed.status.status_code is StatusCode.ERROR
    assert good.status is None


def test_a_model_in_this_process_is_internal(row: Callable[..., Row]) -> None:
    tracer = Remembering()
    Spans(tracer, providers={"coder": "conclave"}).follow([row(0)])
    assert tracer.made[2].about["kind"] is SpanKind.INTERNAL


def test_only_calls_have_spans_and_each_only_once(row: Callable[..., Row], data: Mapping[str, dict[str, Any]]) -> None:
    tracer = Remembering()
    spans = Spans(tracer, providers={})
    spans.follow([row(0, data["genesis"]), row(1, data["refused"])])
    spans.follow([row(1, data["refused"])])
    assert [span.name for span in tracer.made] == ["conclave.call"]
    assert spans.position() == {"c": 1}


def test_no_user_text_is_in_a_span(row: Callable[..., Row]) -> None:
    tracer = Remembering()
    Spans(tracer, providers={}).follow([row(0)])
    assert "my secret" not in str([span.about["attributes"] for span in tracer.made])
