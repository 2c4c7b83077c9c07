"""Spans and metrics to a collector, by OTLP over HTTP: the only place that needs the extra `otlp`.

Where they go is said by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS, OTEL_SERVICE_NAME, ...).
Everything leaves in threads of its own, from bounded queues: a collector that is down costs spans, never a call.
"""

import os
import threading
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from conclave.gateway.errors import Unavailable
from conclave.gateway.telemetry import names
from conclave.gateway.telemetry.spans import Told

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor

NAME: Final = "conclave"
NEEDED: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
QUEUE_SPANS: Final = 16_384  # a batch of the followers is 500 calls with about 8 spans; the SDK's default is 2,048
PROTOCOL: Final = "http/protobuf"
SAMPLERS: Final = (  # that the SDK makes from the variable
    *("always_on", "always_off", "traceidratio"),
    *("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
)
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class SpanExport:
    """Where spans go: FastAPI's through `provider`, those of the record through `emit`. Open it in a thread."""

    def __init__(self, processor: "SpanProcessor", resource: "Resource") -> None:
        from opentelemetry.sdk import trace as sdk  # noqa: PLC0415  the extra
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

        self.provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(processor)
        self._make = sdk.ReadableSpan
        self._resource = resource
        self._scope = InstrumentationScope(NAME, version("conclave-gateway"))
        self._processor = processor

    @classmethod
    def open(cls) -> "SpanExport":
        """With a batch processor and the exporter that the OTEL_* variables describe. Raises Unavailable."""
        require("TRACES")
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        queue = None if "OTEL_BSP_MAX_QUEUE_SIZE" in os.environ else QUEUE_SPANS
        return cls(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=queue), resource())

    def emit(self, span: Told) -> None:
        """Hand on a span with the ids that it has in the record and on the wire; an SDK's tracer would make others."""
        self._processor.on_end(
            self._make(
                span.name,
                context=SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=SAMPLED),
                parent=SpanContext(span.trace_id, span.parent_id, is_remote=True, trace_flags=SAMPLED),
                resource=self._resource,
                attributes=span.attributes,
                kind=SpanKind.CLIENT if span.outside else SpanKind.INTERNAL,
                instrumentation_scope=self._scope,
                status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
                start_time=span.started_ns,
                end_time=span.ended_ns,
            )
        )

    def close(self, limit_s: float) -> bool:
        """Send what waits, for so long at most; whether all of it was tried. Blocks."""
        return within(limit_s, self._processor.shutdown)


def resource() -> "Resource":
    """Who is speaking: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES over our own words."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415  the extra

    ours = dict(zip(names.SERVICE, (NAME, version("conclave-gateway"), str(uuid.uuid4())), strict=True))
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def require(signal: str, environ: Mapping[str, str] = os.environ) -> None:
    """Raise Unavailable, with what to do, if `signal` (TRACES, METRICS) cannot be exported as the variables say."""
    if any(find_spec(module) is None for module in NEEDED):
        raise Unavailable("server.telemetry exports by OTLP, which needs the extra: make install EXTRAS=otlp")
    general = "OTEL_EXPORTER_OTLP_"
    for name in (f"{general}{signal}_PROTOCOL", f"{general}PROTOCOL"):
        if (said := environ.get(name, "").strip()) not in ("", PROTOCOL):
            raise Unavailable(f"{name} is {said!r}; the gateway exports by {PROTOCOL}: set it so, or leave it out")
    for name in (f"{general}{signal}_ENDPOINT", f"{general}ENDPOINT"):
        if (said := environ.get(name, "").strip()) and not _is_address(said):
            raise Unavailable(f"{name} must be http://host[:port][/path] or https://host[:port][/path]")
    if signal == "TRACES":
        _check_sampler(environ)


def _check_sampler(environ: Mapping[str, str]) -> None:
    """The SDK would warn, once, and send every trace: more than was asked for, and perhaps more than is paid for."""
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if sampler and sampler not in SAMPLERS:
        raise Unavailable(f"OTEL_TRACES_SAMPLER is {sampler!r}; known: {', '.join(SAMPLERS)}")
    share = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if sampler.endswith("traceidratio") and share and not _is_share(share):
        raise Unavailable(f"OTEL_TRACES_SAMPLER_ARG is {share!r}; it must be a number from 0 to 1, such as 0.1")


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def within(limit_s: float, act: Any) -> bool:
    """Run it in a thread of its own and wait for so long at most; whether it was done. What it raises is its own."""
    thread = threading.Thread(target=act, name="otlp-flush", daemon=True)
    thread.start()
    thread.join(limit_s)
    return not thread.is_alive()
