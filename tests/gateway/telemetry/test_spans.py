from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.trace import INVALID_SPAN, Span, Tracer, TracerProvider
from starlette.testclient import TestClient

from conclave.gateway.telemetry.spans import native


class Names(Tracer, TracerProvider):
    """Remembers the names of the spans that were started, without an SDK."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def get_tracer(self, *args: Any, **about: Any) -> Tracer:
        return self

    def start_span(self, name: str, *args: Any, **about: Any) -> Span:
        self.started.append(name)
        return INVALID_SPAN

    def start_as_current_span(self, name: str, *args: Any, **about: Any) -> AbstractContextManager[Span]:  # type: ignore[override]
        self.started.append(name)
        return nullcontext(INVALID_SPAN)


@pytest.mark.parametrize("enabled", [True, False])
def test_fastapi_never_logs_for_us_nor_traces_the_parts_of_an_endpoint(enabled: bool) -> None:
    """Its logs hold exceptions' messages, which may quote a user."""
    config = native(enabled=enabled)
    assert (config["logs"], config["operation_spans"]) == (False, False)
    assert (config["tracing"], config["metrics"], config["auto_configure"]) == (enabled, enabled, enabled)


@pytest.mark.parametrize(("enabled", "spans"), [(True, 1), (False, 0)], ids=["on", "off"])
def test_a_request_has_one_native_span_if_it_is_switched_on(enabled: bool, spans: int) -> None:
    names = Names()
    app = FastAPI(telemetry={**native(enabled=enabled), "tracer_provider": names})

    @app.get("/")
    async def root() -> dict[str, str]:
        return {}

    assert TestClient(app).get("/").status_code == 200
    assert len(names.started) == spans
