"""What leaves by OTLP, seen by an exporter in this process; tests/e2e/test_telemetry.py sees it arrive."""

import threading
import time

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otlp")

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from conclave.gateway.errors import Unavailable
from conclave.gateway.telemetry.otlp import SpanExport, require, resource, within
from conclave.gateway.telemetry.spans import Told

TOLD = Told("chat big", 0xABC, 0xF1, 0xF0, 1_000, 2_000, {"gen_ai.operation.name": "chat"}, outside=True, failed=True)


@pytest.fixture
def arrived() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def export(arrived: InMemorySpanExporter) -> SpanExport:
    return SpanExport(SimpleSpanProcessor(arrived), Resource({"service.name": "conclave"}))


def test_a_span_keeps_the_ids_and_the_times_of_the_record(export: SpanExport, arrived: InMemorySpanExporter) -> None:
    export.emit(TOLD)
    (span,) = arrived.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert (span.context.trace_id, span.context.span_id, span.parent.span_id) == (0xABC, 0xF1, 0xF0)
    assert (span.start_time, span.end_time) == (1_000, 2_000)
    assert (span.kind, span.status.status_code) == (SpanKind.CLIENT, StatusCode.ERROR)
    assert span.status.description is None
    assert dict(span.attributes or {}) == {"gen_ai.operation.name": "chat"}
    assert span.resource.attributes["service.name"] == "conclave"


def test_the_spans_of_requests_go_the_same_way(export: SpanExport, arrived: InMemorySpanExporter) -> None:
    export.provider.get_tracer("fastapi").start_span("POST").end()
    assert [span.name for span in arrived.get_finished_spans()] == ["POST"]


def test_after_the_close_nothing_is_raised(export: SpanExport) -> None:
    assert export.close(1.0)
    export.emit(TOLD)


def test_a_flush_that_hangs_is_left_alone() -> None:
    release = threading.Event()
    begun_s = time.monotonic()
    assert not within(0.05, release.wait)
    assert time.monotonic() - begun_s < 5
    release.set()


def test_the_variables_say_more_of_the_service_than_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = resource().attributes
    assert ours["service.name"] == "conclave"
    assert ours["service.instance.id"] != resource().attributes["service.instance.id"]
    monkeypatch.setenv("OTEL_SERVICE_NAME", "door")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=a,deployment.environment.name=test")
    said = resource().attributes
    assert (said["service.name"], said["service.instance.id"]) == ("door", "a")
    assert said["deployment.environment.name"] == "test"
    assert said["service.version"] == ours["service.version"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example:4318/base"},
        {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"},
        {"OTEL_TRACES_SAMPLER": "ParentBased_TraceIdRatio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
        {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_TRACES_SAMPLER_ARG": "zz"},
    ],
    ids=["nothing", "protocol", "address", "another signal's", "sampler", "sampler without a share"],
)
def test_what_can_be_exported_passes(environ: dict[str, str]) -> None:
    require("TRACES", environ)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is 'grpc'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json'"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "must be http://"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"}, "must be http://"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:x"}, "must be http://"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[::1"}, "must be http://"),
        ({"OTEL_TRACES_SAMPLER": "zz"}, "OTEL_TRACES_SAMPLER is 'zz'; known: always_on"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "10%"}, "a number from 0 to 1"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "10"}, "a number from 0 to 1"),
    ],
    ids=["signal", "json", "no scheme", "no host", "no port", "no address", "sampler", "no share", "large share"],
)
def test_what_cannot_be_exported_is_refused_with_the_variables_name(environ: dict[str, str], words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        require("TRACES", environ)
