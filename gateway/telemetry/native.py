"""FastAPI's own span of an HTTP request: which requests have one, and what it may say.

Only paths that are served have one, and what a client writes at will is left out of it: the query, which may hold a
key, and the name that the gateway was called by. Its durations are those of the record, its logs hold exceptions'
messages, and a span for each part of an endpoint would say nothing: all three are off.
"""

from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Final

from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import NoOpTracer, Span, Tracer, TracerProvider

from conclave.gateway.telemetry import names

METHODS: Final = frozenset({"GET", "POST"})


def native(
    tracers: TracerProvider | None = None, *, served: Callable[[str], bool] = lambda _: False
) -> TelemetryConfig:
    """What to hand to `FastAPI(telemetry=...)`; without `tracers` no code of it is on the way.

    `served` says whether a path has a span.
    """

    def exclude(scope: MutableMapping[str, Any]) -> bool:
        return scope["type"] != "http" or scope["method"] not in METHODS or not served(scope["path"])

    return {
        "tracing": tracers is not None,
        "tracer_provider": tracers,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,  # what exports the spans is opened with the replica
        "exclude": exclude,
    }


def wanted(signal: str, environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables let `signal` (TRACES, METRICS) go out at all: they can switch it off."""
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not off and environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() != "none"


class Tracers(TracerProvider):
    """What FastAPI traces with: made with the app, and given its `provider` when the replica opens."""

    def __init__(self) -> None:
        self.provider: TracerProvider | None = None

    def get_tracer(self, *args: Any, **about: Any) -> Tracer:
        return Bounded(self.provider.get_tracer(*args, **about)) if self.provider is not None else NoOpTracer()


class Bounded(Tracer):
    """A tracer whose spans do not say what a client writes at will."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(self, name: str, *args: Any, **about: Any) -> Span:
        said = about.pop("attributes", None) or {}
        about["attributes"] = {key: value for key, value in said.items() if key not in names.CLIENTS_WORDS}
        return self._tracer.start_span(name, *args, **about)

    def start_as_current_span(  # type: ignore[override]  # any signature: it is handed on
        self, *args: Any, **about: Any
    ) -> AbstractContextManager[Span]:
        return self._tracer.start_as_current_span(*args, **about)
