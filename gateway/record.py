"""(9) The row of a finished call: what it says and what it keeps to itself. Followers make everything else of it.

Text that people wrote stands in a row only as a keyed digest, unless the policy's `audit.keep_text` says otherwise; the
name of the model that was asked for stands in it, cut short. docs/audit.md lists the fields.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, Protocol

import structlog

from conclave.gateway.access.standing import Stood
from conclave.gateway.access.tags import tags_of
from conclave.gateway.call import Attempt, Call, Head
from conclave.gateway.errors import ConclaveError, Unauthenticated, Unavailable
from conclave.gateway.policy.arms import conversation_of
from conclave.gateway.policy.reading import Seen
from conclave.gateway.policy.recorded import as_row
from conclave.gateway.reply import Reply
from conclave.gateway.telemetry.names import GUARD, LEVELS, NUMBERS, SEARCH
from conclave.gateway.trace import Trace
from conclave.gateway.usage import Usage
from conclave.router.api import Decision
from conclave.safety.api import Origin, Segment, tool_of
from conclave.safety.audit.chain import stamp
from conclave.safety.verdict import Verdict

MODEL_CHARS: Final = 128  # of what a client or an expert calls a model
CODE_CHARS: Final = 64  # of an error code or finish reason: an upstream may have chosen it
DIGEST_BYTES: Final = 16
MOST_FINDINGS: Final = 64  # of one call that are written down
MOST_SOURCES: Final = 1_000  # that are counted apart within a minute
REMEMBERED: Final = 2_000  # calls, before the audit table has them: at 700 calls a second it is a second behind
OTHERS: Final = "others"  # all that come after them
CLIENT_CLOSED: Final = 499  # nginx's status for a client that left before it had an answer

log = structlog.get_logger()


class Append(Protocol):
    """Where rows go: `Journal.append`. Raises Unavailable for a row that has to wait."""

    def __call__(self, row: Mapping[str, Any], /) -> int: ...


class Recorder:
    """Called with every finished call. One row each; the unauthenticated share a row per source and minute."""

    def __init__(
        self, append: Append, digest_key: bytes, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._append = append
        self._keyed = blake2b(key=digest_key, digest_size=DIGEST_BYTES)
        self._now = now
        self._unknown = Unknown()
        self._newest: tuple[dict[str, str], dict[str, str]] = {}, {}  # tenants by request id; the second is older
        self._lock = threading.Lock()  # calls end on the event loop, minutes on the followers' thread

    def __call__(self, call: Call) -> None:
        """Append the call's row. Raises Unavailable if a call that was answered has no row: it must not end well."""
        if isinstance(call.error, Unauthenticated):
            self.refused(call.source.head, call.error, call.id)
            return
        if call.grant is not None:
            self._remember(call.id, call.grant.tenant)
        try:
            self._append(row_of(call, self._now(), self._digest))
        except Unavailable:
            if call.error is None:
                raise

    def refused(self, head: Head, error: Unauthenticated, request_id: str) -> None:
        """Count a request without a good key; one that was no call leaves no other trace."""
        with self._lock:
            self._count(head.source, error, request_id, self._now())

    def rated(self, said: Mapping[str, Any]) -> None:
        """Write what a caller said of an answer. Raises Unavailable."""
        self._append({"kind": "feedback", "time": stamp(self._now()), **said})

    def tenant_of(self, request_id: str) -> str | None:
        """Whose call it was, of the newest some thousands; None: it is none of these."""
        newest, older = self._newest
        return newest.get(request_id) or older.get(request_id)

    def _remember(self, request_id: str, tenant: str) -> None:
        """Two generations; measured on a busy core: 1.4 us a call, and 0.5 MB at most."""
        newest, _ = self._newest
        if len(newest) >= REMEMBERED:
            self._newest = newest, _ = {}, newest
        newest[request_id] = tenant

    def turned_away(self, calls: Mapping[str, int]) -> None:
        """Write how many calls of each tenant found no place; they were answered 429 before they were opened."""
        for tenant, count in calls.items():
            try:
                self._append({"kind": "turned_away", "time": stamp(self._now()), "tenant": tenant, "count": count})
            except Unavailable:  # the journal keeps the row until it can be written
                log.warning("record.waits", kind="turned_away")

    def tick(self) -> None:
        """Write the counts of a minute that is over. Call it every few seconds."""
        with self._lock:
            self._turn(self._now(), over=False)

    def close(self) -> None:
        """Write the counts of the minute that runs, before the journal is closed."""
        with self._lock:
            self._turn(self._now(), over=True)

    def _count(self, address: str, error: Unauthenticated, request_id: str, now: datetime) -> None:
        self._turn(now, over=False)
        source = self._digest(address)
        if source not in self._unknown.later and len(self._unknown.later) >= MOST_SOURCES:
            source = OTHERS
        if source in self._unknown.later:
            self._unknown.later[source] += 1
            return
        self._unknown.later[source] = 0
        about = {"request_id": request_id, "status": Unauthenticated.status, "code": _code(error)}
        self._append_unknown(source, 1, now, about)

    def _turn(self, now: datetime, *, over: bool) -> None:
        """Close the minute that was counted if it is not this one any more, or `over`."""
        minute = f"{now.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
        if minute == self._unknown.minute and not over:
            return
        for source, count in self._unknown.later.items():
            if count:
                self._append_unknown(source, count, now, {})
        self._unknown = Unknown(minute)

    def _append_unknown(self, source: str, count: int, now: datetime, about: Mapping[str, Any]) -> None:
        row = {"kind": "unauthenticated", "time": stamp(now), "source": source, "count": count, **about}
        try:
            self._append({**row, "minute": self._unknown.minute})
        except Unavailable:  # the journal keeps the row until it can be written
            log.warning("record.waits", kind="unauthenticated")

    def _digest(self, text: str) -> str:
        hashed = self._keyed.copy()
        hashed.update(text.encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()


@dataclass(slots=True)
class Unknown:
    """Unauthenticated calls of one minute: by source, those after the first, which has its own row."""

    minute: str = ""
    later: dict[str, int] = field(default_factory=dict)


def row_of(call: Call, now: datetime, digest: Callable[[str], str]) -> dict[str, Any]:
    """All that is kept of a call, whatever became of it; `now` is when it ended."""
    request, rules, grant, reply = call.request, call.rules, call.grant, call.reply
    ended_s = call.ended_s if call.ended_s is not None else call.opened_s
    keep_text = rules is not None and rules.keep_text
    row: dict[str, Any] = {
        "kind": "call",
        "time": stamp(now),
        "request_id": call.id,
        "tenant": grant.tenant if grant else None,
        "key_id": grant.key_id if grant else None,
        "source": digest(call.source.head.source),
        **({"envelope": {"kid": by.kid, "ts": by.ts, "nonce": by.nonce}} if (by := call.sealed) is not None else {}),
        **({"scope": list(grant.scope.under)} if grant is not None and grant.scope.under else {}),
        "ending": call.ending,
        "status": status_of(call),
        "code": _code(call.error),
        "model": request.model[:MODEL_CHARS] if request else None,
        **({"tags": tags} if request is not None and (tags := tags_of(request)) else {}),
        "stream": request.stream if request else None,
        "operation": request.operation if request else None,
        "policy": rules.digest if rules else None,
        "decision": _decision(call.decision, call, digest) if call.decision else None,
        "attempts": [_attempt(attempt, number, call) for number, attempt in enumerate(call.attempts)],
        "segments": list(_segments(call, digest, keep_text=keep_text)),
        **({"parts": [_part(one) for one in call.seen]} if call.seen else {}),
        "stages": {stage: _ms(left_s - call.opened_s) for stage, left_s in call.stages.items()},
        **({"spans": spans} if (spans := _spans(call, ended_s)) else {}),
        "duration_ms": _ms(ended_s - call.opened_s),
    }
    if call.verdict.ran or call.verdict.findings:
        row["verdict"] = _verdict(call.verdict, keep_text=keep_text)
    if call.guard is not None and ((said := call.guard.verdict).ran or said.findings):
        row["guard"] = {"direction": "answer", **_verdict(said, keep_text=keep_text)}
    if call.stood is not None:
        row["standing"] = _standing(call.stood)
    if call.searched.query is not None and call.retrieval is not None:
        row["retrieval"] = _retrieval(call, keep_text=keep_text)
    if (escalated := call.escalated) is not None:
        row["escalated"] = escalated
    if call.step is not None and call.step.kept:
        row["kept"] = call.step.expert
    if call.trace is not None:
        row["trace"] = _trace(call, call.trace)
    return row | _answer(reply, call.attempts) if reply is not None else row


def status_of(call: Call) -> int:
    """The HTTP status that the client got; 499 if it left before there was one."""
    if call.error is None or (call.reply is not None and call.reply.stream and call.reply.begun):
        return 200
    if isinstance(call.error, ConclaveError):
        return call.error.status
    return {"client_gone": CLIENT_CLOSED, "stopped": Unavailable.status}.get(call.ending, 500)


def _code(error: BaseException | None) -> str | None:
    """The error's code; of a bug of ours the exception's name."""
    if isinstance(error, ConclaveError):
        return (error.code or type(error).__name__)[:CODE_CHARS]
    return type(error).__name__ if error is not None else None


def _decision(decision: Decision, call: Call, digest: Callable[[str], str]) -> dict[str, Any]:
    """Enough to replay the choice, bit for bit; in an A/B test also which conversation it was, as a keyed digest."""
    arm, basis = (call.rules.arm, call.rules.basis) if call.rules is not None else (None, "")
    row = as_row(decision, call.asked, arm, basis)
    if arm is not None and call.request is not None:
        row["conversation"] = digest(conversation_of(call.request, call.segments))
    return row


def _verdict(verdict: Verdict, *, keep_text: bool) -> dict[str, Any]:
    """What the checks found and what followed; the words that they found only where text is kept."""
    acted = set(map(id, verdict.acted))
    return {
        "action": verdict.action.name.lower(),
        **({"would": verdict.would.name.lower()} if verdict.would > verdict.action else {}),
        **({"confirmed": list(verdict.confirmed)} if verdict.confirmed else {}),
        "findings": [
            {
                "check": one.check,
                "kind": one.kind,
                "severity": one.severity.name.lower(),
                "confidence": round(one.confidence, 4),
                "place": one.place,
                "start": one.start,
                "end": one.end,
                "view": one.view,
                "acted": id(one) in acted,
                **({"remedy": one.remedy} if one.remedy else {}),
                **({"evidence": one.evidence} if keep_text else {}),
            }
            for one in verdict.findings[:MOST_FINDINGS]
        ],
        "ran": [
            {"check": ran.check, "ms": round(ran.ms, 3)}
            | ({"late": True} if ran.late else {})
            | ({"error": ran.error} if ran.error else {})
            for ran in verdict.ran
        ],
    }


def _spans(call: Call, ended_s: float) -> dict[str, list[float]]:
    """When that began and ended which is no stage: a search that there was, passages judged, the answer guarded."""
    spans = {part: times for part, times in call.spans.items() if part != SEARCH or call.searched.made}
    if call.reply is not None and call.reply.guarded_s is not None:
        spans[GUARD] = call.reply.guarded_s, ended_s
    return {part: [_ms(moment_s - call.opened_s) for moment_s in times] for part, times in spans.items()}


def _standing(stood: Stood) -> dict[str, Any]:
    """How far the key and the conversation were trusted before the call, and whether the band counted."""
    row: dict[str, Any] = {
        "band": stood.band.name.lower(),
        "followed": stood.followed,
        "key": round(stood.key, 4),
        "conversation": round(stood.conversation, 4),
    }
    return row | {"imposed": stood.imposed.name.lower()} if stood.imposed else row


def _retrieval(call: Call, *, keep_text: bool) -> dict[str, Any]:
    """What was found for the call and what became of it; the decision has the numbers. Passages by their ids."""
    row: dict[str, Any] = {"outcome": call.retrieval, "tokens_saved": call.tokens_saved}
    searched, evidence = call.searched, call.evidence
    if searched.results is not None:
        row |= {"version": searched.results.version, "among": searched.results.among, "found": len(searched.found)}
    if searched.took_ms is not None:
        row["search_ms"] = searched.took_ms
    if searched.failure:
        row["failure"] = searched.failure
    if evidence is not None:
        row |= evidence.explained() | {"passages": [one.passage.id for one in evidence.shown]}
        if evidence.verdict.ran or evidence.verdict.findings:
            row["verdict"] = _verdict(evidence.verdict, keep_text=keep_text)
    return row


def _trace(call: Call, trace: Trace) -> dict[str, Any]:
    """Where the call stands in a trace and, if it has spans, what they say that stands nowhere else in the row."""
    row: dict[str, Any] = {
        "trace_id": f"{trace.trace_id:032x}",
        "parent_id": f"{trace.parent_id:016x}",
        "sampled": trace.sampled,
    }
    if trace.span_id:
        row |= {
            "span_id": f"{trace.span_id:016x}",
            "opened_ns": int(call.opened_at.timestamp() * 1e9),
            "request": _settings(call.request.body) if call.request is not None else {},
            "response_id": call.reply.id[:MODEL_CHARS] if call.reply is not None and call.reply.id else None,
        }
    return row


def _settings(body: Mapping[str, Any]) -> dict[str, Any]:
    """How the model was to answer, as far as that is a number or one of a few words; never text."""
    found: dict[str, Any] = {name: body[name] for name in NUMBERS if _is_small(body.get(name))}
    if body.get("reasoning_effort") in LEVELS:
        found["reasoning_effort"] = body["reasoning_effort"]
    if isinstance(wanted := body.get("response_format"), dict):
        found["output"] = "text" if wanted.get("type") == "text" else "json"
    return found


def _is_small(value: object) -> bool:
    """Whether it is a number that fits into 64 bits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _attempt(attempt: Attempt, number: int, call: Call) -> dict[str, Any]:
    opened_s, trace = call.opened_s, call.trace
    row: dict[str, Any] = {
        "expert": attempt.expert,
        "deployment": attempt.deployment,
        "model": attempt.model,
        "started_ms": _ms(attempt.started_s - opened_s),
        "first_byte_ms": _ms(attempt.first_byte_s - opened_s) if attempt.first_byte_s is not None else None,
        "ended_ms": _ms(attempt.ended_s - opened_s) if attempt.ended_s is not None else None,
        "transport_retries": attempt.transport_retries,
        "upstream_status": attempt.upstream_status,
        "failure": attempt.failure,
        "usage": _usage(attempt.usage),
        "chunks": attempt.chunks,
        **({"cut": True} if attempt.cut else {}),
    }
    if number < len(call.outcomes) and call.decision is not None and call.decision.steps[number:][:1]:
        step, outcome = call.decision.steps[number], call.outcomes[number]
        if step.on_trial or outcome.known is not None:
            trial = {"unsure": outcome.unsure, "confidence": outcome.confidence, "evidence": outcome.evidence}
            row["trial"] = trial | {"measured": outcome.measured}
            row["trial"] |= {"known": asdict(outcome.known)} if outcome.known is not None else {}
    if trace is not None and trace.span_id:
        row["span_id"] = f"{trace.part(number + 1):016x}"
    return row


def _segments(call: Call, digest: Callable[[str], str], *, keep_text: bool) -> Iterator[dict[str, Any]]:
    """The texts of a call. What tools say of themselves is one entry, but for texts in which something was found."""
    found = {one.place for one in call.verdict.findings}
    offered: list[str] = []
    for segment in call.segments:
        if tool_of(segment.place) and segment.place not in found:
            offered.append(segment.text)
        else:
            yield _segment(segment, digest, keep_text=keep_text)
    if offered:
        text = "\n".join(offered)
        yield _segment(Segment(Origin.TOOL, text, text, "tools"), digest, keep_text=keep_text) | {"texts": len(offered)}


def _segment(segment: Segment, digest: Callable[[str], str], *, keep_text: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "origin": segment.origin.value,
        "place": segment.place,
        "chars": len(segment.text),
        "digest": digest(segment.text),
    }
    return row | {"text": segment.text} if keep_text else row


def _part(seen: Seen) -> dict[str, Any]:
    """What is kept of an image or a file: its type and its sizes, and what was done with it."""
    return {key: value for key, value in asdict(seen).items() if value is not None}


def _answer(reply: Reply, attempts: Sequence[Attempt]) -> dict[str, Any]:
    used = [attempt.usage for attempt in attempts[:-1]]
    last = reply.usage if not attempts or attempts[-1].usage == Usage() else attempts[-1].usage
    return {
        "usage": _usage(Usage.total([*used, last])),
        "finish_reason": reply.finish_reason[:CODE_CHARS] if reply.finish_reason is not None else None,
        "answer_model": reply.model[:MODEL_CHARS] if reply.model is not None else None,
        "shown_bytes": reply.shown_bytes,
        "answer_digest": reply.digest if reply.shown else None,
    }


def _usage(usage: Usage) -> dict[str, int | None]:
    """What is known of it; `estimated` stands only where it is true."""
    row: dict[str, int | None] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }
    return row | {"estimated": True} if usage.estimated else row


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
