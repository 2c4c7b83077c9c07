"""The only place with names of spans, attributes and metrics.

`gen_ai.*` follow the OpenTelemetry GenAI conventions, which are in development and rename things: they are as of
https://github.com/open-telemetry/semantic-conventions-genai/blob/024a4f944a1291fcb627c9c47da69e79868dd15e/docs/gen-ai/client-inference.md
(buckets included). What is our own is `conclave.*`. Labels are bounded: names from the policy, kinds from our own
lists; never user text, a key, or what a model wrote.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
ERROR_TYPE: Final = "error.type"

CHAT: Final = "chat"  # a value of OPERATION
PROVIDERS: Final[Mapping[str, str]] = {"openai": "openai", "quoting": "conclave"}  # PROVIDER by an expert's kind
OTHER: Final = "_OTHER"  # OpenTelemetry's value for what is not told apart

CALL_SPAN: Final = "conclave.call"
REQUEST_ID: Final = "conclave.request_id"
TENANT: Final = "conclave.tenant"
ENDING: Final = "conclave.ending"
STATUS: Final = "conclave.status"
EXPERT: Final = "conclave.expert"
DEPLOYMENT: Final = "conclave.deployment"
FAILURE: Final = "conclave.failure"
CATEGORY: Final = "conclave.route.category"
REASON: Final = "conclave.route.reason"
UNSURE: Final = "conclave.route.unsure"
KIND: Final = "conclave.audit.kind"


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument. `unit` is UCUM: `s`, or `{...}` for what is counted."""

    name: str
    kind: Literal["counter", "histogram"]
    unit: str
    labels: tuple[str, ...]
    about: str
    buckets: tuple[float, ...] = ()


SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
CALL_SECONDS: Final = (0.001, 0.002, 0.005, *SECONDS, 163.84, 327.68)  # refusals take less, deadlines more
CONFIDENCES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_INFERENCE: Final = (OPERATION, PROVIDER, REQUEST_MODEL)

CALLS: Final = Metric("conclave.requests", "counter", "{request}", (ENDING, STATUS), "Calls, by how they ended.")
CALL_DURATION: Final = Metric(
    "conclave.request.duration", "histogram", "s", (ENDING,), "A call from its first byte to its end.", CALL_SECONDS
)
UNAUTHENTICATED: Final = Metric(
    "conclave.unauthenticated", "counter", "{request}", (), "Calls without a good key; they are not in the requests."
)
ROUTED: Final = Metric(
    "conclave.route.decisions", "counter", "{request}", (CATEGORY, REASON, UNSURE), "Decisions, by category and why."
)
CONFIDENCE: Final = Metric(
    "conclave.route.confidence", "histogram", "1", (CATEGORY,), "How sure the classifier was.", CONFIDENCES
)
ATTEMPTS: Final = Metric(
    "conclave.attempts", "counter", "{attempt}", (EXPERT, FAILURE), "Experts asked; the failure is empty for a success."
)
TRANSPORT_RETRIES: Final = Metric(
    "conclave.attempt.transport_retries", "counter", "{retry}", (EXPERT,), "Tries again before the first byte."
)
INFERENCE: Final = Metric(
    "gen_ai.client.inference.duration",
    "histogram",
    "s",
    (*_INFERENCE, ERROR_TYPE),
    "An expert asked, until its answer was whole or had failed.",
    SECONDS,
)
FIRST_CHUNK: Final = Metric(
    "gen_ai.client.inference.time_to_first_chunk",
    "histogram",
    "s",
    _INFERENCE,
    "Streams: until an expert's first byte.",
    SECONDS,
)
INPUT: Final = Metric(
    "gen_ai.client.inference.usage.input_tokens", "counter", "{token}", _INFERENCE, "Tokens that experts read."
)
OUTPUT: Final = Metric(
    "gen_ai.client.inference.usage.output_tokens", "counter", "{token}", _INFERENCE, "Tokens that experts wrote."
)
CACHED: Final = Metric(
    "gen_ai.client.inference.usage.cache_read.input_tokens",
    "counter",
    "{token}",
    _INFERENCE,
    "Of those read, what a provider's cache had.",
)
REASONING: Final = Metric(
    "gen_ai.client.inference.usage.reasoning.output_tokens",
    "counter",
    "{token}",
    _INFERENCE,
    "Of those written, what was reasoning.",
)
AUDIT_ROWS: Final = Metric("conclave.audit.rows", "counter", "{row}", (KIND,), "Rows of the audit chain.")

METRICS: Final = (
    CALLS,
    CALL_DURATION,
    UNAUTHENTICATED,
    ROUTED,
    CONFIDENCE,
    ATTEMPTS,
    TRANSPORT_RETRIES,
    INFERENCE,
    FIRST_CHUNK,
    INPUT,
    OUTPUT,
    CACHED,
    REASONING,
    AUDIT_ROWS,
)


def prometheus(metric: Metric) -> str:
    """The metric's name on /metrics, by OpenTelemetry's rules for Prometheus."""
    unit = "_seconds" if metric.unit == "s" else ""
    return prometheus_label(metric.name) + unit + ("_total" if metric.kind == "counter" else "")


def prometheus_label(name: str) -> str:
    return name.replace(".", "_")
