"""What the spans of a call say: made from its row in the record, after the call, so that they cost it nothing.

    POST /v1/chat/completions           FastAPI's own, or the caller's span
      conclave.call
        conclave.admit, .receive, .boundary, .detect, .route     a stage each: what it decided, and why
          conclave.search                   inside the route: what was found in the library of documents
        conclave.context, .guard            what of that was shown; what was found in the answer
        chat MODEL                      each expert asked, after the GenAI conventions; `traceparent` told it the id
        conclave.record                 where the row stands

Decides what may be said: numbers, names of the policy, words of our own lists. Never user text, a key or an exception's
message; what an expert calls itself only if it looks like a name. Needs no OpenTelemetry SDK and exports nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from conclave.gateway.telemetry import names
from conclave.gateway.telemetry.decided import Row, Value, decided, known
from conclave.gateway.trace import Trace

MS: Final = 1_000_000  # nanoseconds
STAGE_PARTS: Final = 1_000  # the number of the first stage's span among the call's parts; experts have the first ones
PARTS_PART: Final = 1_500  # as these, of what is no stage
RECORD_PART: Final = 2_000


@dataclass(frozen=True, slots=True)
class Told:
    """One span. Times are Unix time in nanoseconds; `outside` says that another process was asked."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, Value]
    outside: bool = False
    failed: bool = False


def told(row: Row, providers: Mapping[str, str], *, chain: str = "", seq: int = 0) -> Iterator[Told]:
    """The spans of one `call` row; none if it has none, or nobody wants its trace. `providers`: by expert."""
    where = row.get("trace")
    if not where or "span_id" not in where or not where["sampled"]:
        return
    trace = Trace(int(where["trace_id"], 16), int(where["parent_id"], 16), int(where["span_id"], 16))
    opened_ns = where["opened_ns"]
    ended_ns = opened_ns + int(row["duration_ms"] * MS)
    yield Told(
        names.CALL_SPAN,
        trace.trace_id,
        trace.span_id,
        trace.parent_id,
        opened_ns,
        ended_ns,
        _call(row),
        failed=row["ending"] == "failed",
    )
    yield from _stages(row, trace, opened_ns, ended_ns)
    yield from _parts(row, trace, opened_ns)
    for number, attempt in enumerate(row["attempts"]):
        yield _attempt(row, number, trace, opened_ns, providers.get(attempt["expert"], names.OTHER))
    written_ns = int(datetime.fromisoformat(row["time"]).timestamp() * 1e9)
    about: dict[str, Value] = {names.DECISION: "recorded", names.SEQ: seq, names.CHAIN: chain}
    name, part = names.stage_span(names.RECORD), trace.part(RECORD_PART)
    yield Told(name, trace.trace_id, part, trace.span_id, ended_ns, max(ended_ns, written_ns), about)


def _call(row: Row) -> dict[str, Value]:
    decision = row.get("decision") or {}
    return known(
        {
            names.REQUEST_ID: row.get("request_id"),
            names.TENANT: row.get("tenant"),
            names.ENDING: row["ending"],
            names.STATUS: row["status"],
            names.CATEGORY: decision.get("category"),
            names.REASON: decision.get("reason"),
            names.UNSURE: decision.get("unsure"),
            names.ERROR_TYPE: (_code(row) or names.OTHER) if row["ending"] == "failed" else None,
        }
    )


def _stages(row: Row, trace: Trace, opened_ns: int, ended_ns: int) -> Iterator[Told]:
    """A span for each stage that was left, and one for the stage that the call ended in."""
    left = dict(sorted((row.get("stages") or {}).items(), key=_moment))
    times = [opened_ns, *(opened_ns + int(ms * MS) for ms in left.values())]
    part = STAGE_PARTS
    for stage, (began, ended) in zip(left, pairwise(times), strict=True):
        about = decided(row, stage)
        yield Told(names.stage_span(stage), trace.trace_id, trace.part(part), trace.span_id, began, ended, about)
        part += 1
    stopped = next((stage for stage in names.STAGES if stage not in left), None)
    if stopped is not None and row["ending"] != "answered":
        about = known({names.DECISION: row["ending"], names.STAGE_REASON: _code(row)})
        yield Told(
            names.stage_span(stopped),
            trace.trace_id,
            trace.part(part),
            trace.span_id,
            times[-1],
            max(times[-1], ended_ns),
            about,
            failed=row["ending"] == "failed",
        )


def _parts(row: Row, trace: Trace, opened_ns: int) -> Iterator[Told]:
    """A span for each part that there was and that is no stage; the search lies inside the route."""
    spans = row.get("spans") or {}
    for number, part in enumerate(names.PARTS):
        if part not in spans or (part == names.GUARD and "guard" not in row):
            continue
        began, ended = (opened_ns + int(ms * MS) for ms in spans[part])
        parent = trace.part(STAGE_PARTS + names.STAGES.index(names.ROUTE)) if part == names.SEARCH else trace.span_id
        own, about = trace.part(PARTS_PART + number), decided(row, part)
        yield Told(names.stage_span(part), trace.trace_id, own, parent, began, ended, about)


def _moment(stage: tuple[str, float]) -> tuple[float, int]:
    """By when it was left, and two within a microsecond by their order: a row of the record is sorted by name."""
    name, left_ms = stage
    return left_ms, names.STAGES.index(name) if name in names.STAGES else len(names.STAGES)


def _attempt(row: Row, number: int, trace: Trace, opened_ns: int, provider: str) -> Told:
    attempt = row["attempts"][number]
    started_ms, ended_ms = attempt["started_ms"], attempt.get("ended_ms")
    operation = names.OPERATIONS.get(row.get("operation") or "chat", row.get("operation"))
    about = _asked(row, attempt, number, provider) | _got(row, attempt, shown=attempt is _shown(row))
    return Told(
        f"{operation} {attempt['model']}".rstrip(),
        trace.trace_id,
        trace.part(number + 1),
        trace.span_id,
        opened_ns + int(started_ms * MS),
        opened_ns + int((row["duration_ms"] if ended_ms is None else ended_ms) * MS),
        {names.OPERATION: str(operation), **about},
        outside=provider != names.IN_PROCESS,
        failed=attempt.get("failure") is not None,
    )


def _asked(row: Row, attempt: Row, number: int, provider: str) -> dict[str, Value]:
    wanted = row["trace"].get("request") or {}
    steps = (row.get("decision") or {}).get("steps") or ()
    reason = next((step.get("reason") for step in steps if step.get("expert") == attempt["expert"]), None)
    host, port = _place(attempt.get("deployment") or "")
    return known(
        {
            names.PROVIDER: provider,
            names.REQUEST_MODEL: attempt["model"] or None,
            names.REQUEST_STREAM: row.get("stream") or None,
            **{name: _number(field, wanted[field]) for field, name in names.NUMBERS.items() if field in wanted},
            names.CHOICES: wanted.get("n") if wanted.get("n") != 1 else None,
            names.REASONING_LEVEL: wanted.get("reasoning_effort"),
            names.OUTPUT_TYPE: wanted.get("output"),
            names.SERVER_ADDRESS: host,
            names.SERVER_PORT: port,
            names.EXPERT: attempt["expert"],
            names.DEPLOYMENT: attempt.get("deployment") or None,
            names.ATTEMPT: number,
            names.STAGE_REASON: reason,
        }
    )


def _shown(row: Row) -> Row:
    """The attempt whose answer a client saw, if it saw one: the last, or one on trial that was kept."""
    attempts: Sequence[Row] = row["attempts"]
    return next((one for one in attempts if one["expert"] == row.get("kept")), attempts[-1])


def _got(row: Row, attempt: Row, *, shown: bool) -> dict[str, Value]:
    failure, first_ms = attempt.get("failure"), attempt.get("first_byte_ms")
    usage = attempt.get("usage") or {}
    counted = {} if usage.get("estimated") else usage
    answered = shown and failure is None and row["ending"] == "answered"
    unsure = not answered and bool((attempt.get("trial") or {}).get("unsure"))  # whole, and put aside
    finish = _finish(row.get("finish_reason")) if answered else None if unsure else names.FAILED_FINISH
    streamed = row.get("stream") and first_ms is not None
    return known(
        {
            names.DECISION: "accepted" if answered else "unsure" if unsure else failure or row["ending"],
            names.RESPONSE_ID: _name(row["trace"].get("response_id")) if answered else None,
            names.RESPONSE_MODEL: _name(row.get("answer_model")) if answered else None,
            names.FINISH_REASONS: [finish] if finish else None,
            names.TIME_TO_FIRST_CHUNK: (first_ms - attempt["started_ms"]) / 1000 if streamed else None,
            names.CHUNKS: attempt.get("chunks") if streamed else None,
            names.INPUT_TOKENS: counted.get("prompt_tokens"),
            names.OUTPUT_TOKENS: counted.get("completion_tokens"),
            names.CACHED_TOKENS: counted.get("cached_tokens"),
            names.REASONING_TOKENS: counted.get("reasoning_tokens"),
            names.ERROR_TYPE: failure,
        }
    )


def _number(field: str, value: float) -> Value:
    """With the type that the convention gives it: backends keep an attribute's first type."""
    return float(value) if field in names.FRACTIONS else int(value)


def _finish(reason: object) -> str | None:
    """A word of the API; an expert may write anything there."""
    if reason is None:
        return None
    return str(reason) if reason in names.FINISHES else names.OTHER


def _name(text: object) -> str | None:
    return text if isinstance(text, str) and names.PLAIN.fullmatch(text) else None


def _code(row: Row) -> str | None:
    """The error's code; once an expert was asked it may be the expert's own."""
    return row.get("code") if not row["attempts"] else None


def _place(deployment: str) -> tuple[str | None, int | None]:
    """Host and port of `0:host:port`, the label of a deployment."""
    _, colon, place = deployment.partition(":")
    if not colon:
        return None, None
    host, _, port = place.rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else (place, None)
