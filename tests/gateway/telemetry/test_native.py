from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.trace import INVALID_SPAN, Span, Tracer, TracerProvider
from starlette.testclient import TestClient

from conclave.gateway.telemetry.native import Tracers, native, wanted


class Remembering(Tracer, TracerProvider):
    """Remembers the spans that were started, without an SDK."""

    def __init__(self) -> None:
        self.started: list[tuple[str, dict[str, Any]]] = []

    def get_tracer(self, *args: Any, **about: Any) -> Tracer:
        return self

    def start_span(self, name: str, *args: Any, **about: Any) -> Span:
        self.started.append((name, dict(about["attributes"])))
        return INVALID_SPAN

    def start_as_current_span(self, name: str, *args: Any, **about: Any) -> AbstractContextManager[Span]:  # type: ignore[override]
        self.started.append((name, {}))
        return nullcontext(INVALID_SPAN)


def app(tracers: Tracers | None) -> FastAPI:
    made = FastAPI(telemetry=native(tracers, served=lambda path: path == "/served"))

    @made.get("/{path}")
    async def anything(path: str) -> dict[str, str]:
        return {}

    return made


@pytest.mark.parametrize("tracers", [Tracers(), None], ids=["on", "off"])
def test_fastapi_never_logs_or_measures_for_us_nor_traces_the_parts_of_an_endpoint(tracers: Tracers | None) -> None:
    """Its logs hold exceptions' messages, which may quote a user."""
    config = native(tracers)
    assert config["tracing"] is (tracers is not None)
    assert not any(config[part] for part in ("logs", "metrics", "operation_spans", "auto_configure"))  # type: ignore[literal-required]


@pytest.mark.parametrize(
    ("method", "path", "spans"),
    [("GET", "/served", 1), ("GET", "/my%20secret", 0), ("PURGE", "/served", 0)],
    ids=["served", "no path of ours", "no method of ours"],
)
def test_what_is_served_has_one_span_and_nothing_else_has_one(method: str, path: str, spans: int) -> None:
    remembering, tracers = Remembering(), Tracers()
    tracers.provider = remembering
    TestClient(app(tracers)).request(method, path)
    assert len(remembering.started) == spans


def test_a_span_of_a_request_says_nothing_that_its_client_chose() -> None:
    remembering, tracers = Remembering(), Tracers()
    tracers.provider = remembering
    TestClient(app(tracers)).get("/served?key=sk-secret", headers={"host": "secret.example", "x-a": "secret"})
    assert "secret" not in str(remembering.started)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, True),
        ({"OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_the_variables_can_switch_a_signal_off(environ: dict[str, str], expected: bool) -> None:
    assert wanted("TRACES", environ) is expected


def test_without_tracers_or_before_they_have_a_provider_a_request_is_served_all_the_same() -> None:
    assert TestClient(app(None)).get("/served").status_code == 200
    assert TestClient(app(Tracers())).get("/served").status_code == 200
