"""The only place with names of spans, attributes and metrics.

`gen_ai.*` follow the OpenTelemetry GenAI conventions, which are in development and rename things: they are as of
https://github.com/open-telemetry/semantic-conventions-genai/blob/024a4f944a1291fcb627c9c47da69e79868dd15e/docs/gen-ai/client-inference.md
(buckets included); the token counters as of 066d4a7f356f8600de6f10c42874626ab88692fb, gen-ai-token-metrics.md there;
`OLDER` as of 004902b8cb70aa5ae6ca4ae07132b7daabcd3e10, gen-ai-metrics.md, the last with these names. Our own names are
`conclave.*`. Labels are bounded: names from the policy, kinds from our own lists; never user text, a key, or what a
model wrote.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
CHOICES: Final = "gen_ai.request.choice.count"
REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
OUTPUT_TYPE: Final = "gen_ai.output.type"
NUMBERS: Final[Mapping[str, str]] = {  # by the field of a request's body
    "max_tokens": MAX_TOKENS,
    "max_completion_tokens": MAX_TOKENS,
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "n": CHOICES,
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
FRACTIONS: Final = frozenset({"temperature", "top_p", "frequency_penalty", "presence_penalty"})  # the others are whole
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  of the older names: input or output
TOKEN_MODALITY: Final = "gen_ai.token.modality"  # noqa: S105  a name
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
CLIENTS_WORDS: Final = frozenset({"url.query", SERVER_ADDRESS, SERVER_PORT})  # of an HTTP span: what a client chooses
ERROR_TYPE: Final = "error.type"
SERVICE: Final = ("service.name", "service.version", "service.instance.id")  # of the resource, in this order

CHAT: Final = "chat"  # a value of OPERATION
OPERATIONS: Final[Mapping[str, str]] = {"chat": CHAT, "completions": "text_completion"}  # others keep their own name
UNKNOWN: Final = "unknown"  # a value of TOKEN_MODALITY: an OpenAI-compatible usage is not broken down by it
IN_PROCESS: Final = "conclave"  # PROVIDER of a model in this process
PROVIDERS: Final[Mapping[str, str]] = {"openai": "openai", "quoting": IN_PROCESS, "encoder": IN_PROCESS}  # by kind
VENDORS: Final[Mapping[str, str]] = {  # PROVIDER by what stands before the slash of a litellm model
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "deepseek": "deepseek",
    "gemini": "gcp.gemini",
    "groq": "groq",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "openai": "openai",
    "perplexity": "perplexity",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
OTHER: Final = "_OTHER"  # OpenTelemetry's value for what is not told apart
FINISHES: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
FAILED_FINISH: Final = "error"  # of FINISH_REASONS: the answer broke off, or never came
LEVELS: Final = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})  # of REASONING_LEVEL
PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")  # how an id or a model's name looks, and no sentence

CALL_SPAN: Final = "conclave.call"
ROUTE: Final = "route"
DETECT: Final = "detect"
STAGES: Final = ("admit", "receive", "boundary", DETECT, ROUTE)  # in their order; each that was left is a span
SEARCH: Final = "search"  # inside ROUTE
CONTEXT: Final = "context"
GUARD: Final = "guard"
PARTS: Final = (SEARCH, CONTEXT, GUARD)  # each that there was is a span
RECORD: Final = "record"
DECISION: Final = "conclave.decision"
STAGE_REASON: Final = "conclave.reason"
REQUEST_ID: Final = "conclave.request_id"
TENANT: Final = "conclave.tenant"
ENDING: Final = "conclave.ending"
STATUS: Final = "conclave.status"
EXPERT: Final = "conclave.expert"
DEPLOYMENT: Final = "conclave.deployment"
FAILURE: Final = "conclave.failure"
ATTEMPT: Final = "conclave.attempt"
CHUNKS: Final = "conclave.attempt.chunks"
CATEGORY: Final = "conclave.route.category"
CONFIDENT: Final = "conclave.route.confidence"  # the metric of the same name gathers it
RUNNER_UP: Final = "conclave.route.runner_up"
ROW: Final = "conclave.route.row"
REASON: Final = "conclave.route.reason"
UNSURE: Final = "conclave.route.unsure"
ARM: Final = "conclave.route.arm"
CHECK: Final = "conclave.safety.check"
FINDING_KIND: Final = "conclave.safety.kind"
FOLLOWED: Final = "conclave.safety.followed"
WOULD: Final = "conclave.safety.would"  # of what is only observed
DIRECTION: Final = "conclave.safety.direction"
CHECKS_MS: Final = "conclave.safety.ms"  # of all checks of a stage together
BAND: Final = "conclave.safety.band"
DID: Final = "conclave.safety.ooda.did"
DEED: Final = "conclave.safety.ooda.deed"
ATTACK: Final = "conclave.safety.ooda.attack"
RATING: Final = "conclave.feedback.rating"
ESCALATED: Final = "conclave.route.escalated"
LOOKED_UP: Final = "conclave.retrieval.outcome"
PASSAGE_FATE: Final = "conclave.retrieval.fate"
GATE_REASON: Final = "conclave.retrieval.reason"
FOUND: Final = "conclave.retrieval.found"
AMONG: Final = "conclave.retrieval.among"
SHOWN: Final = "conclave.retrieval.shown"
KEPT_AWAY: Final = "conclave.retrieval.kept_away"
KIND: Final = "conclave.audit.kind"
TAG: Final = "conclave.tag"
TAG_VALUE: Final = "conclave.tag.value"
OTHER_TAG: Final = "other"  # a TAG_VALUE that policy does not list
CHAIN: Final = "conclave.audit.chain"
SEQ: Final = "conclave.audit.seq"
POLICY_DIGEST: Final = "conclave.policy.digest"
POLICY_ORIGIN: Final = "conclave.policy.origin"
POLICY_SOURCE: Final = "conclave.policy.source"


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument. `unit` is UCUM: `s`, or `{...}` for what is counted."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...]
    about: str
    buckets: tuple[float, ...] = ()


SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
CALL_SECONDS: Final = (0.001, 0.002, 0.005, *SECONDS, 163.84, 327.68)  # refusals take less, deadlines more
TOKENS: Final = tuple(4.0**power for power in range(14))
CONFIDENCES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_INFERENCE: Final = (OPERATION, PROVIDER, REQUEST_MODEL)
_COUNTED: Final = (OPERATION, PROVIDER, TOKEN_MODALITY, REQUEST_MODEL)

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
CONFIDENCE: Final = Metric(CONFIDENT, "histogram", "1", (CATEGORY,), "How sure the classifier was.", CONFIDENCES)
ESCALATIONS: Final = Metric(
    "conclave.route.escalations",
    "counter",
    "{request}",
    (CATEGORY, ESCALATED),
    "Calls whose first answer was on trial, by whether a second expert was asked because it was unsure.",
)
LOOK_UPS: Final = Metric(
    "conclave.retrieval.decisions",
    "counter",
    "{request}",
    (LOOKED_UP,),
    "Calls that could be looked up: used, empty (nothing of it was to be relied on), skipped, failed.",
)
PASSAGES: Final = Metric(
    "conclave.retrieval.passages",
    "counter",
    "{passage}",
    (PASSAGE_FATE,),
    "Passages of calls that were looked up: shown to an expert, or the first reason why not.",
)
TOKENS_SAVED: Final = Metric(
    "conclave.retrieval.tokens_saved", "counter", "{token}", (), "Against always looking up, as the gate counts."
)
SEARCH_DURATION: Final = Metric(
    "conclave.retrieval.search.duration", "histogram", "s", (), "Searches in the library of documents.", CALL_SECONDS
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
PER_CHUNK: Final = Metric(
    "gen_ai.client.inference.time_per_output_chunk",
    "histogram",
    "s",
    _INFERENCE,
    "Streams: from one chunk to the next, for each after the first; all of a stream count with their mean.",
    SECONDS,
)
INPUT: Final = Metric(
    "gen_ai.client.inference.usage.input_tokens", "counter", "{token}", _COUNTED, "Tokens that experts read."
)
OUTPUT: Final = Metric(
    "gen_ai.client.inference.usage.output_tokens", "counter", "{token}", _COUNTED, "Tokens that experts wrote."
)
CACHED: Final = Metric(
    "gen_ai.client.inference.usage.cache_read.input_tokens",
    "counter",
    "{token}",
    _COUNTED,
    "Of those read, what a provider's cache had.",
)
REASONING: Final = Metric(
    "gen_ai.client.inference.usage.reasoning.output_tokens",
    "counter",
    "{token}",
    _COUNTED,
    "Of those written, what was reasoning.",
)
OLD_DURATION: Final = Metric(
    "gen_ai.client.operation.duration", "histogram", "s", (*_INFERENCE, ERROR_TYPE), INFERENCE.about, SECONDS
)
OLD_FIRST_CHUNK: Final = Metric(
    "gen_ai.client.operation.time_to_first_chunk", "histogram", "s", _INFERENCE, FIRST_CHUNK.about, SECONDS
)
OLD_PER_CHUNK: Final = Metric(
    "gen_ai.client.operation.time_per_output_chunk", "histogram", "s", _INFERENCE, PER_CHUNK.about, SECONDS
)
OLD_TOKENS: Final = Metric(
    "gen_ai.client.token.usage",
    "histogram",
    "{token}",
    (OPERATION, PROVIDER, TOKEN_TYPE, REQUEST_MODEL),
    "Tokens of one answer, read and written.",
    TOKENS,
)
AUDIT_ROWS: Final = Metric("conclave.audit.rows", "counter", "{row}", (KIND,), "Rows of the audit chain.")
TAGGED: Final = Metric(
    "conclave.tagged_requests", "counter", "{request}", (TAG, TAG_VALUE, ENDING), "Calls with a tag that policy lists."
)
SPLIT: Final = Metric(
    "conclave.route.split", "counter", "{request}", (ARM, ENDING), "Calls that an A/B test dealt, by arm."
)
RATED: Final = Metric(
    "conclave.feedback", "counter", "{rating}", (RATING,), "Ratings of answers: `good` from a score of 0.5, or `bad`."
)
CHECK_SECONDS: Final = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0)
FINDINGS: Final = Metric(
    "conclave.safety.findings",
    "counter",
    "{finding}",
    (CHECK, FINDING_KIND, FOLLOWED),
    "What checks found: `acted` if policy did something about it, else `observed`.",
)
OBSERVED: Final = Metric(
    "conclave.safety.observed",
    "counter",
    "{call}",
    (DIRECTION, WOULD),
    "Calls with which more would have been done, had nothing only been observed: where (request, retrieved, answer) "
    "and what.",
)
CHECK_DURATION: Final = Metric(
    "conclave.safety.check.duration", "histogram", "s", (CHECK,), "Time of a check over one call.", CHECK_SECONDS
)
STANDING: Final = Metric(
    "conclave.safety.standing",
    "counter",
    "{call}",
    (BAND, FOLLOWED),
    "Calls by the band that their key or conversation stood in: `acted` if the band counted, else `observed`.",
)
OODA: Final = Metric(
    "conclave.safety.ooda.steps",
    "counter",
    "{step}",
    (DID, DEED, ATTACK),
    "What the OODA loop did, or in observe mode would have done.",
)
CHECK_FAILURES: Final = Metric("conclave.safety.check.failures", "counter", "{call}", (CHECK,), "Checks that failed.")

OURS: Final = (
    CALLS,
    CALL_DURATION,
    UNAUTHENTICATED,
    ROUTED,
    CONFIDENCE,
    ESCALATIONS,
    LOOK_UPS,
    PASSAGES,
    TOKENS_SAVED,
    SEARCH_DURATION,
    ATTEMPTS,
    TRANSPORT_RETRIES,
    AUDIT_ROWS,
    TAGGED,
    SPLIT,
    RATED,
    FINDINGS,
    OBSERVED,
    CHECK_DURATION,
    CHECK_FAILURES,
    STANDING,
    OODA,
)
NEWEST: Final = (INFERENCE, FIRST_CHUNK, PER_CHUNK, INPUT, OUTPUT, CACHED, REASONING)
OLDER: Final = (OLD_DURATION, OLD_FIRST_CHUNK, OLD_PER_CHUNK, OLD_TOKENS)
METRICS: Final = (*OURS, *NEWEST, *OLDER)  # all that is derived from the record
GenAINames: TypeAlias = Literal["newest", "older", "both"]

SWAP_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
POLICY_METRICS: Final = (  # of the process itself; all others are derived from its record
    Metric("conclave.policy.version", "gauge", "1", (POLICY_DIGEST,), "The number of the policy version in force."),
    Metric(
        "conclave.policy.swaps", "counter", "{swap}", (POLICY_ORIGIN,), "Versions that took effect since the start."
    ),
    Metric(
        "conclave.policy.rejections",
        "counter",
        "{rejection}",
        (POLICY_SOURCE,),
        "Changes that could not be used; the old version stayed.",
    ),
    Metric(
        "conclave.policy.swap.duration",
        "histogram",
        "s",
        (),
        "From reading a change until the new version was in force.",
        SWAP_SECONDS,
    ),
)


IN_WORK: Final = Metric("conclave.calls.in_work", "gauge", "{request}", (), "Calls in work now.")
QUEUED: Final = Metric("conclave.calls.queued", "gauge", "{request}", (), "Calls that wait for their turn now.")
OVERLOADED: Final = Metric(
    "conclave.calls.overloaded", "counter", "{request}", (), "Calls that found no place, or waited in vain: 429."
)
LOOP_LAG: Final = Metric("conclave.loop.lag", "gauge", "s", (), "How late the event loop was at the last look.")
DRAINING: Final = Metric("conclave.draining", "gauge", "1", (), "1 from SIGTERM on.")
FRONT_METRICS: Final = (IN_WORK, QUEUED, OVERLOADED, LOOP_LAG, DRAINING)  # read off the process when it is scraped


def chosen(names: GenAINames) -> Sequence[Metric]:
    """The metrics with the GenAI names that were asked for."""
    return (*OURS, *(NEWEST if names != "older" else ()), *(OLDER if names != "newest" else ()))


def provider(kind: str | None, model: str) -> str:
    """PROVIDER of an expert; `kind` is None for one that the policy does not name any more."""
    if kind == "litellm":
        return VENDORS.get(model.partition("/")[0], OTHER)
    return PROVIDERS.get(kind or "", OTHER)


def stage_span(stage: str) -> str:
    """The name of a stage's span."""
    return f"conclave.{stage}"


def prometheus(metric: Metric) -> str:
    """The metric's name on /metrics, by OpenTelemetry's rules for Prometheus."""
    unit = "_seconds" if metric.unit == "s" else ""
    return prometheus_label(metric.name) + unit + ("_total" if metric.kind == "counter" else "")


def prometheus_label(name: str) -> str:
    return name.replace(".", "_")
