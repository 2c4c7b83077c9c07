"""OpenTelemetry spans: FastAPI's own for the HTTP request, and ours for a call and the experts that it asked.

Ours are made from the record after the call, so they cost the call nothing. Only the API of OpenTelemetry is used:
without an SDK nothing is exported. No span holds user text, a key, or an exception's message.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from fastapi.telemetry import TelemetryConfig
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from conclave.gateway.telemetry import names

MS: Final = 1_000_000  # nanoseconds


def native(*, enabled: bool) -> TelemetryConfig:
    """What to hand to `FastAPI(telemetry=...)`.

    Off means no code of it on the way. On means one span and one duration a request, exported as the OTEL_* variables
    say. Its logs stay off (they hold exceptions' messages), and so do spans for each part of an endpoint.
    """
    return {
        "tracing": enabled,
        "metrics": enabled,
        "logs": False,
        "operation_spans": False,
        "auto_configure": enabled,
    }


def emit(tracer: Tracer, row: Mapping[str, Any], providers: Mapping[str, str]) -> None:
    """The spans of one `call` row: the call, and in it one for each attempt. `providers`: by expert."""
    ended_ns = int(datetime.fromisoformat(row["time"]).timestamp() * 1e9)
    opened_ns = ended_ns - int(row["duration_ms"] * MS)
    decision = row.get("decision") or {}
    whole = tracer.start_span(
        names.CALL_SPAN,
        context=Context(),  # no parent: the thread that follows the record has nothing to do with the request
        kind=SpanKind.INTERNAL,
        start_time=opened_ns,
        attributes=_known(
            {
                names.REQUEST_ID: row.get("request_id"),
                names.TENANT: row.get("tenant"),
                names.ENDING: row.get("ending"),
                names.STATUS: row.get("status"),
                names.CATEGORY: decision.get("category"),
                names.REASON: decision.get("reason"),
                names.UNSURE: decision.get("unsure"),
            }
        ),
    )
    if row.get("ending") == "failed":
        whole.set_status(Status(StatusCode.ERROR))
    inside = set_span_in_context(whole, Context())
    for attempt in row["attempts"]:
        last = attempt is row["attempts"][-1]
        _emit_attempt(tracer, inside, row, attempt, opened_ns, last=last, provider=providers.get(attempt["expert"]))
    whole.end(end_time=ended_ns)


def _emit_attempt(  # noqa: PLR0913  a span's parts
    tracer: Tracer,
    inside: Context,
    row: Mapping[str, Any],
    attempt: Mapping[str, Any],
    opened_ns: int,
    *,
    last: bool,
    provider: str | None,
) -> None:
    started_ms, failure = attempt["started_ms"], attempt.get("failure")
    usage = (row.get("usage") or {}) if last and failure is None else {}
    first_ms = attempt.get("first_byte_ms") if row.get("stream") else None
    span = tracer.start_span(
        f"{names.CHAT} {attempt['model']}".rstrip(),
        context=inside,
        kind=SpanKind.INTERNAL if provider == names.PROVIDERS["quoting"] else SpanKind.CLIENT,
        start_time=opened_ns + int(started_ms * MS),
        attributes=_known(
            {
                names.OPERATION: names.CHAT,
                names.PROVIDER: provider or names.OTHER,
                names.REQUEST_MODEL: attempt["model"] or None,
                names.REQUEST_STREAM: row.get("stream"),
                names.FINISH_REASONS: [row["finish_reason"]] if usage and row.get("finish_reason") else None,
                names.TIME_TO_FIRST_CHUNK: None if first_ms is None else (first_ms - started_ms) / 1000,
                names.INPUT_TOKENS: usage.get("prompt_tokens"),
                names.OUTPUT_TOKENS: usage.get("completion_tokens"),
                names.CACHED_TOKENS: usage.get("cached_tokens"),
                names.REASONING_TOKENS: usage.get("reasoning_tokens"),
                names.EXPERT: attempt["expert"],
                names.DEPLOYMENT: attempt.get("deployment") or None,
                names.ERROR_TYPE: failure,
            }
        ),
    )
    if failure is not None:
        span.set_status(Status(StatusCode.ERROR))
    ended_ms = attempt.get("ended_ms")
    span.end(end_time=opened_ns + int((started_ms if ended_ms is None else ended_ms) * MS))


def _known(attributes: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}
