"""What travels: one `Call` from its first byte to its record, and the values that the stages put into it.

Only `gateway/pipeline.py` writes to a Call (a lint checks it); everything it holds is frozen and belongs to the room
that made it, but for `Attempt`, which the upstream keeps up to date, and `Reply`, which the pipeline feeds.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, TypeAlias

import msgspec

from conclave.gateway.errors import Blocked, ConclaveError, DeadlineExceeded, ExpertFailed, NoEvidence, Refused
from conclave.gateway.evidence import MEMORY, MISLED, NO_EVIDENCE, NOT_SEARCHED, UNUSED, Aside, Evidence, Searched
from conclave.gateway.trace import NO_HEADERS, Trace
from conclave.gateway.usage import Usage
from conclave.router.api import CLOSED_BOOK, Decision, LookUp, Outcome, Step
from conclave.safety.api import DATA, Action, Segment
from conclave.safety.vault import Restorer, Vault
from conclave.safety.verdict import NOTHING, Verdict, joined

if TYPE_CHECKING:
    from conclave.gateway.access.envelope import Sealed
    from conclave.gateway.access.scope import Grant
    from conclave.gateway.access.standing import Stood
    from conclave.gateway.experts.pool import Pool
    from conclave.gateway.guard import Guard, NoGuard
    from conclave.gateway.policy.asked import Asked
    from conclave.gateway.policy.reading import Seen, Unpacked
    from conclave.gateway.policy.remembered import Thread
    from conclave.gateway.policy.rules import Rules
    from conclave.gateway.policy.screening import Screened
    from conclave.gateway.reply import Reply

# What is asked of an expert; also the path below its base URL, but for `chat`.
Operation: TypeAlias = Literal["chat", "completions", "embeddings", "moderations"]
JSON: Final = msgspec.json.Decoder()
UNREAD: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
LARGE_BYTES: Final = 256 * 1024  # of vectors: 3 ms to read them


class Chunk:
    """One event around the upstream's bytes: for a stream the JSON of one SSE event, for a plain answer the whole body.

    `event` parses on first use and remembers; it raises ExpertFailed(kind="malformed").
    """

    __slots__ = ("_event", "data")
    _read: "ClassVar[staticmethod[[bytes], object]]" = staticmethod(JSON.decode)

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._event: dict[str, Any] | None = None

    @property
    def event(self) -> dict[str, Any]:
        if self._event is None:
            try:
                event = self._read(self.data)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                raise ExpertFailed("the expert sent something that is not JSON", kind="malformed") from error
            if not isinstance(event, dict):
                raise ExpertFailed("the expert sent JSON that is not an object", kind="malformed")
            self._event = event
        return self._event


def _all_but_vectors(data: bytes) -> dict[str, Any]:
    fields = UNREAD.decode(data)
    return {name: value if name == "data" else JSON.decode(value) for name, value in fields.items()}


class Vectors(Chunk):
    """A large answer of embeddings: `event["data"]` stays as it came, a msgspec.Raw whose syntax is checked.

    No stage looks at a vector, and to make objects of three million numbers holds the event loop for half a second, in
    a thread too.
    """

    __slots__ = ()
    _read: "ClassVar[staticmethod[[bytes], object]]" = staticmethod(_all_but_vectors)


def embedded(data: bytes) -> Chunk:
    """An answer of embeddings, by its size."""
    return Vectors(data) if len(data) > LARGE_BYTES else Chunk(data)


SILENCE: Final = Chunk(b": keep-alive")  # the upstream is alive but has nothing yet; never part of an answer
END: Final = Chunk(b"[DONE]")  # after the record is written


@dataclass(slots=True)
class Attempt:
    """One expert asked once. Times are seconds on the monotonic clock; `failure` is an ExpertFailed kind."""

    expert: str
    started_s: float
    deployment: str = ""
    model: str = ""
    first_byte_s: float | None = None
    ended_s: float | None = None
    transport_retries: int = 0
    upstream_status: int | None = None
    failure: str | None = None
    usage: Usage = field(default_factory=Usage)
    chunks: int = 0  # that its reader took
    cut: bool = False  # it ran away, and was heard no further


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A request in the words of the OpenAI API, whatever dialect it came in.

    `body` is the client's JSON object, never changed; unknown fields in it go on to the expert. `needs` are the
    capabilities that the chosen expert must have. `lowered` are the fields in which it asked for more than it may.
    """

    body: Mapping[str, Any]
    model: str
    stream: bool
    include_usage: bool
    needs: frozenset[str]
    operation: Operation = "chat"
    lowered: tuple[str, ...] = ()


class Head(Protocol):
    """What is known of a request before its body is read: enough to admit or refuse it."""

    @property
    def authorization(self) -> str | None: ...
    @property
    def source(self) -> str: ...  # the peer's address, without the port
    @property
    def origin(self) -> str | None: ...  # what page made a browser send it
    @property
    def host(self) -> str | None: ...  # the name that it was sent to
    @property
    def envelope(self) -> str | None: ...  # who signed the body, see safety/boundary/envelope.py


class Source(Protocol):
    """The client's side of a call: `read` gives the whole body or raises TooLarge, RequestTimeout or ClientGone.

    `gone` says that the client has left.
    """

    @property
    def head(self) -> Head: ...
    @property
    def gone(self) -> bool: ...

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes: ...


ACCEPTED: Final = Outcome(accepted=True)


def failed(error: ExpertFailed | DeadlineExceeded) -> Outcome:
    """How a step ended that ended so."""
    if isinstance(error, DeadlineExceeded):
        return Outcome(accepted=False, error=error.message)
    return Outcome(
        accepted=False,
        error=error.message,
        rejected=error.kind == "rejected",
        final=error.final,
        param=error.param,
        code=error.code,
        retry_after_s=error.retry_after_s,
    )


class ClientGone(Exception):
    """The client left before its request was whole."""


@dataclass(slots=True)
class Call:
    """One call, from its first byte to its record. Opened before parsing, so that malformed JSON has a record too."""

    id: str
    source: Source
    parse: Callable[[bytes], ModelRequest]
    opened_at: datetime
    opened_s: float
    grant: "Grant | None" = None
    rules: "Rules | None" = None
    sealed: "Sealed | None" = None  # who signed it, where the tenant's calls are signed
    request: ModelRequest | None = None
    clean: ModelRequest | None = None  # without data in which something was found, where somebody is asked without
    segments: tuple[Segment, ...] = ()
    seen: "tuple[Seen, ...]" = ()  # images and files, and what was done with them
    verdict: Verdict = NOTHING
    vault: Vault | None = None  # values that were taken out of the request, for the answer
    stood: "Stood | None" = None  # how far key and conversation were trusted, where policy counts it
    thread: "Thread | None" = None
    asked: "Asked | None" = None
    searched: Searched = NOT_SEARCHED  # what was found for it in the library of documents
    risk: Mapping[str, object] | None = None  # of the answer that was on trial
    evidence: Evidence | None = None  # what of that an expert is shown; None: it was not looked up
    decision: Decision | None = None
    step: Step | None = None  # that is taken now, or was the last
    guard: "Guard | NoGuard | None" = None
    reply: "Reply | None" = None
    experts: "Pool | None" = None
    stages: dict[str, float] = field(default_factory=dict)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)  # of what lies inside a stage, or beside them
    attempts: list[Attempt] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    ended_s: float | None = None
    error: BaseException | None = None
    trace: Trace | None = None

    def let_go(self) -> None:
        """Forget where its error was raised: those frames know the call, and it would wait for the collector."""
        if self.error is not None:
            self.error.__traceback__ = None

    @property
    def onward(self) -> Mapping[str, str]:
        """The headers that tell the expert asked next where it stands in the trace."""
        return self.trace.onward(len(self.attempts)) if self.trace is not None else NO_HEADERS

    @property
    def answered(self) -> bool:
        """Whether the last step's answer was accepted."""
        return bool(self.outcomes) and self.outcomes[-1].accepted

    @property
    def on_trial(self) -> bool:
        """Whether the step that is taken now is a trial that has not been judged yet."""
        return self.step is not None and self.step.on_trial and not self.answered

    @property
    def escalated(self) -> bool | None:
        """Whether a second expert was asked because the first was unsure; None where none was on trial before one."""
        if self.decision is None or not self.outcomes or self.decision.closed_book is not None:
            return None
        if not any(step.on_trial for step in self.decision.steps):
            return None
        return any(outcome.unsure for outcome in self.outcomes)

    @property
    def shown(self) -> bool:
        """Whether the client has seen a word of an answer."""
        return self.reply is not None and self.reply.shown

    def passed(self, stage: str, now_s: float) -> None:
        """Note when a stage was left; it began when the one before it was left, the first when the call was opened."""
        self.stages[stage] = now_s

    def took(self, part: str, began_s: float, ended_s: float) -> None:
        """Note when a part that is no stage of its own began and ended."""
        self.spans[part] = began_s, ended_s

    @property
    def inside_chars(self) -> int:
        """How much text was found in images and files."""
        return sum(one.chars or 0 for one in self.seen)

    def unpack(self, unpacked: "Unpacked | None") -> None:
        """Take the request with its images and files read, if it has any; raises what refuses one of them."""
        if unpacked is None:
            return
        self.verdict, self.request, self.segments = unpacked.verdict, unpacked.request, unpacked.segments
        self.seen = unpacked.seen
        if (error := unpacked.error) is not None:
            words = f"{error.message}; the incident is {self.id}" if isinstance(error, Blocked) else error.message
            raise type(error)(words, param=error.param)

    @property
    def findings(self) -> tuple[str, ...]:
        """The kinds of what was acted on, in the request and in the answer."""
        said = self.guard.verdict.reasons if self.guard is not None else ()
        return tuple(dict.fromkeys((*self.verdict.reasons, *said)))

    def heed(self, screened: "Screened") -> None:
        """Take what the checks left of the request; raises Blocked if policy refuses it, or has a person decide."""
        said, self.request, self.segments = screened.verdict, screened.request, screened.segments
        self.vault = screened.vault
        self.verdict = joined(self.verdict, said)
        if screened.waits is not None:
            raise screened.waits
        if said.action is Action.BLOCK:
            kinds = ", ".join(said.reasons)
            place = said.acted[0].place
            raise Blocked(f"this request was refused ({kinds}); the incident is {self.id}", param=place)

    def heed_tools(self, said: Verdict) -> None:
        """Take what there is to say of the tools that the request offers; raises Blocked for one that is another."""
        self.verdict = joined(self.verdict, said) if said is not NOTHING else self.verdict
        if said.action is Action.BLOCK:
            words = f"a tool's description is not the one that was pinned; the incident is {self.id}"
            raise Blocked(words, param=said.acted[0].place, code="tool_description_changed")

    def sent(self, step: Step) -> ModelRequest:
        """The request as the step's expert is to be asked it."""
        assert self.request is not None  # noqa: S101  for mypy: it was read
        return self.clean if self.clean is not None and step.reason == CLOSED_BOOK else self.request

    @property
    def flagged(self) -> frozenset[str]:
        """The places of data in the request in which something was found that policy acts on."""
        if not (found := {one.place for one in self.verdict.acted}):  # of nearly all calls
            return frozenset()
        return frozenset(one.place for one in self.segments if one.origin in DATA and one.place in found)

    @property
    def at_hand(self) -> tuple[Segment, ...]:
        """Every text that an expert of this call may be shown: those of the request, and what may be looked up."""
        look_up = self.decision.look_up if self.decision is not None else None
        return self.segments + self.searched.segments if look_up is not None and look_up.possible else self.segments

    def rely(self, evidence: Evidence) -> None:
        """Take what an expert is shown of what was found; raises NoEvidence where it must have some, and has none."""
        self.evidence = evidence
        if self.reply is not None:
            self.reply.cite(evidence)
        if evidence.required and not evidence.shown:
            raise NoEvidence(f"{self._no_evidence(evidence)}; the call is {self.id}", param="conclave.retrieval")

    def _no_evidence(self, evidence: Evidence) -> str:
        if self.searched.failure:
            return f"this is to be answered from documents, and the search failed ({self.searched.failure})"
        if evidence.follows == "abstain":
            return "the documents contradict each other, and none of their sides has a majority"
        if evidence.kept_away:
            return "this is to be answered from documents, and none of those that were found is to be relied on"
        return "this is to be answered from documents, and none was found that this caller may read"

    @property
    def restorer(self) -> Callable[[], Restorer] | None:
        """Makes what puts the caller's own values back into one text of the answer; None if none were taken out."""
        if self.vault is None or self.request is None:
            return None
        kind = self.request.body.get("response_format")
        in_json = isinstance(kind, dict) and kind.get("type") in {"json_object", "json_schema"}
        return partial(Restorer, self.vault, in_json=in_json)

    def tried(
        self,
        error: ExpertFailed | DeadlineExceeded | None = None,
        outcome: Outcome = ACCEPTED,
        risk: Mapping[str, object] | None = None,
    ) -> None:
        """Note what the last attempt used and how it went, and what it shows of what its expert knows.

        Raises a DeadlineExceeded again, unless it ended a trial alone, or an answer that was on trial is there.
        """
        assert self.reply is not None  # noqa: S101  for mypy: an expert was asked
        if isinstance(error, DeadlineExceeded):
            if not (self.on_trial or self.reply.spare):
                raise error
            self.attempts[-1].failure = "late"
        self.attempts[-1].usage = self.reply.spent(segment.text for segment in self.segments)
        self.attempts[-1].chunks = self.reply.chunks
        self.outcomes.append(outcome if error is None else failed(error))
        self.risk = risk or self.risk
        if self.step is not None and self.step.on_trial and not self.step.look_up and self.answered:
            self._take_back(MEMORY)

    def keep(self) -> None:
        """Nobody did better than the answer on trial, although it was put aside: it is the one to show."""
        assert self.reply is not None  # noqa: S101  for mypy: it has the answer
        assert self.decision is not None  # noqa: S101  as this
        self.reply.recall()
        self.outcomes.append(ACCEPTED)
        if not self.decision.steps[0].look_up:
            self._take_back(MISLED if self.step is not None and self.step.reason == "reask" else UNUSED)

    def _take_back(self, reason: str) -> None:
        """The answer that is shown was given without documents."""
        if self.evidence is not None and self.evidence.shown:
            self.rely(replace(self.evidence.taken_back(reason), required=False))

    @property
    def aside(self) -> Aside | None:
        """What the expert said without documents, once one that was shown them is to be held against it."""
        heard = self.reply.aside if self.reply is not None else None
        if heard is None or self.searched.query is None:
            return None
        return Aside(self.searched.query.text, heard, self.outcomes[0], self.evidence or NO_EVIDENCE)

    def end(self, now_s: float, error: BaseException | None = None) -> None:
        """Note when the call ended and what ended it; None if it was answered."""
        self.ended_s, self.error = now_s, error
        if self.guard is not None:
            self.guard.close()  # what was held is judged, too, for the record
        if self.reply is not None and len(self.outcomes) < len(self.attempts):
            self.attempts[-1].chunks = self.reply.chunks

    @property
    def ending(self) -> str:
        """`answered`, `refused`, `failed`, `deadline`, `client_gone`, or `stopped`: this process ended."""
        match self.error:
            case None:
                return "answered"
            case Refused():
                return "refused"
            case DeadlineExceeded():
                return "deadline"
            case ConclaveError():
                return "failed"
            case ClientGone() | GeneratorExit() | asyncio.CancelledError():
                return "client_gone" if self.source.gone else "stopped"
            case _:
                return "failed"

    @property
    def _tried(self) -> str | None:
        """Who was on trial."""
        first = self.decision.steps[0] if self.decision is not None else None
        return first.expert if first is not None and first.on_trial else None

    def _retrieval(self, look_up: LookUp) -> dict[str, Any]:
        """What was decided about looking the call up, and what came of it."""
        said = {"used": self.retrieval == "used", "mode": look_up.mode, "reason": look_up.reason}
        said |= {"probability": round(look_up.probability, 4), "tokens_saved": self.tokens_saved}
        return said | (self.evidence.explained() if self.evidence is not None else {})

    @property
    def tokens_saved(self) -> float:
        """Against always looking up; what was looked up in the end, for whomever, saved nothing."""
        look_up = self.decision.look_up if self.decision is not None else None
        return look_up.saving if look_up is not None and self.evidence is None else 0.0

    @property
    def retrieval(self) -> str | None:
        """What became of looking it up, in a word; None where there was nothing to look up in."""
        if self.decision is None or self.decision.look_up is None:
            return None
        if self.searched.failure:
            return "failed"
        if self.evidence is not None:
            return "used" if self.evidence.shown else "empty"
        return "skipped"

    def explain(self) -> dict[str, Any]:
        """The `conclave` response object: which expert served the call, and why. Never user text."""
        decision, rules = self.decision, self.rules
        explained: dict[str, Any] = {"request_id": self.id}
        if self.attempts and self.step is not None and not self.on_trial:
            explained["expert"] = self.step.expert
        if decision is not None and decision.classification is not None:
            found = decision.classification
            explained |= {"category": found.category, "confidence": round(found.confidence, 4), "unsure": found.unsure}
        if decision is not None and rules is not None:
            step = self.step or decision.steps[0]
            explained |= {"reason": step.reason, "policy": rules.digest[:12]}
            if (expected := decision.expected.get(step.expert)) is not None:
                explained["expected"] = round(expected, 4)
            if rules.arm is not None:
                explained["arm"] = rules.arm
        if (escalated := self.escalated) is not None:
            explained["escalated"] = escalated
        if self.risk is not None and self.step is not None and self.step.expert == self._tried:
            explained["hallucination_risk"] = self.risk
        if decision is not None and (look_up := decision.look_up) is not None:
            explained["retrieval"] = self._retrieval(look_up)
        if self.request is not None and self.request.lowered:
            explained["lowered"] = list(self.request.lowered)
        if self.attempts and self.attempts[-1].cut:
            explained["cut"] = True
        if self.verdict.acted:
            explained["findings"] = list(self.verdict.reasons)
        return explained
