"""What travels: one `Call` from its first byte to its record, and the values that the stages put into it.

Only `gateway/pipeline.py` writes to a Call (a lint checks it); everything it holds is frozen and belongs to the room
that made it, but for `Attempt`, which the upstream keeps up to date, and `Reply`, which the pipeline feeds.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from conclave.gateway.errors import ConclaveError, DeadlineExceeded, ExpertFailed, Refused
from conclave.router.api import Decision, Outcome
from conclave.safety.api import Segment

if TYPE_CHECKING:
    from conclave.gateway.access.scope import Grant
    from conclave.gateway.policy.rules import Rules

JSON: Final = msgspec.json.Decoder()
MOST_TOKENS: Final = 2**53
IDENTITY: Final = ("id", "object", "created", "model")  # the fields that every chunk of a stream repeats


class Chunk:
    """One event around the upstream's bytes: for a stream the JSON of one SSE event, for a plain answer the whole body.

    `event` parses on first use and remembers; it raises ExpertFailed(kind="malformed").
    """

    __slots__ = ("_event", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._event: dict[str, Any] | None = None

    @property
    def event(self) -> dict[str, Any]:
        if self._event is None:
            try:
                event = JSON.decode(self.data)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                raise ExpertFailed("the expert sent something that is not JSON", kind="malformed") from error
            if not isinstance(event, dict):
                raise ExpertFailed("the expert sent JSON that is not an object", kind="malformed")
            self._event = event
        return self._event


SILENCE: Final = Chunk(b": keep-alive")  # the upstream is alive but has nothing yet; never part of an answer
END: Final = Chunk(b"[DONE]")  # after the record is written


@dataclass(slots=True)
class Usage:
    """Tokens as the expert counted them; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @classmethod
    def of(cls, usage: object) -> "Usage":
        """From the `usage` object of chat.completions; anything that is not a count is None."""
        if not isinstance(usage, dict):
            return cls()
        return cls(
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            cached_tokens=_count(_inner(usage, "prompt_tokens_details").get("cached_tokens")),
            reasoning_tokens=_count(_inner(usage, "completion_tokens_details").get("reasoning_tokens")),
        )


def _inner(usage: dict[str, Any], key: str) -> dict[str, Any]:
    inner = usage.get(key)
    return inner if isinstance(inner, dict) else {}


def _count(value: object) -> int | None:
    """A count that every database can hold; an upstream may say anything."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS else None


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


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request as chat.completions, whatever dialect it came in.

    `body` is the client's JSON object, never changed; unknown fields in it go on to the expert. `needs` are the
    capabilities that the chosen expert must have.
    """

    body: Mapping[str, Any]
    model: str
    stream: bool
    include_usage: bool
    needs: frozenset[str]


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


class Source(Protocol):
    """The client's side of a call: `read` gives the whole body or raises TooLarge, RequestTimeout or ClientGone.

    `gone` says that the client has left.
    """

    @property
    def head(self) -> Head: ...
    @property
    def gone(self) -> bool: ...

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes: ...


def failed(error: ExpertFailed) -> Outcome:
    """How a step ended that ended so."""
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


ENDINGS: Final = ("answered", "refused", "failed", "deadline", "client_gone", "stopped")  # stopped: this process ended


class Reply:
    """What the client is shown of an answer, chunk by chunk, and what the record says of it.

    Two things wait: the opening (a role delta without text), so that another expert can still take over unseen, and the
    closing chunk (finish reason, usage), so that the last chunk carries the `conclave` object. `begun` says that the
    client has its 200, `shown` that it has seen a word.
    """

    __slots__ = (
        "_absorb_usage",
        "_digest",
        "_held",
        "_identity",
        "begun",
        "finish_reason",
        "model",
        "shown",
        "shown_bytes",
        "stream",
        "usage",
    )

    def __init__(self, *, stream: bool, include_usage: bool, digest_key: bytes) -> None:
        self.stream = stream
        self.begun = False
        self.shown = False
        self.shown_bytes = 0
        self.usage = Usage()
        self.finish_reason: str | None = None
        self.model: str | None = None
        self._absorb_usage = stream and not include_usage
        self._held: list[Chunk] = []
        self._identity: dict[str, Any] = {}
        self._digest = hashlib.blake2b(key=digest_key, digest_size=16)

    @property
    def digest(self) -> str:
        """Keyed BLAKE2b over the bytes that were shown, in hex."""
        return self._digest.hexdigest()

    def restart(self) -> None:
        """Forget what was held: the next expert begins from nothing. Only before the first word was shown."""
        self._held.clear()
        self.usage, self.finish_reason, self.model, self._identity = Usage(), None, None, {}

    def feed(self, chunk: Chunk) -> Sequence[Chunk]:
        """What may be shown now, in order. Raises ExpertFailed if the chunk is no chat.completion."""
        if chunk is SILENCE:
            self.begun = True
            return (chunk,)
        event = chunk.event
        choices = event.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise ExpertFailed("the expert sent an object without choices", kind="malformed")
        if event.get("usage"):
            self.usage = Usage.of(event["usage"])
            if self._absorb_usage and not choices:
                return ()
        closing = self._note_finish(choices)
        if not self._identity:
            self._identity = {name: event[name] for name in IDENTITY if name in event}
            self.model = event["model"] if isinstance(event.get("model"), str) else None
        if closing or not choices or not (self.shown or any(map(_has_text, choices))):
            self._held.append(chunk)
            return ()
        return self._release(chunk)

    def finish(self, explained: Mapping[str, Any]) -> Sequence[Chunk]:
        """All that was held, the `conclave` object in its last chunk. Raises ExpertFailed if nothing ever came."""
        if not self._held:
            if not self.shown:
                raise ExpertFailed("the expert ended without an answer", kind="cut")
            self._held.append(Chunk(msgspec.json.encode({**self._identity, "choices": []})))
        last = self._held.pop()
        return self._release(_spliced(last, explained))

    def _note_finish(self, choices: list[dict[str, Any]]) -> bool:
        """Whether one of the choices ends here (each does in a plain answer)."""
        reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
        if reasons:
            self.finish_reason = str(reasons[-1])
        return bool(reasons) or not self.stream

    def _release(self, chunk: Chunk) -> Sequence[Chunk]:
        out = (*self._held, chunk)
        self._held.clear()
        self.shown = self.begun = True
        for released in out:
            self.shown_bytes += len(released.data)
            self._digest.update(released.data)
        return out


def _has_text(choice: dict[str, Any]) -> bool:
    """Whether a stream's choice carries more than a role: content, reasoning, a refusal, a tool call."""
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(value for key, value in delta.items() if key != "role")


def _spliced(chunk: Chunk, explained: Mapping[str, Any]) -> Chunk:
    """The chunk with a `conclave` object added; the upstream's own bytes stay as they are, unless it has one itself."""
    if "conclave" in chunk.event:
        return Chunk(msgspec.json.encode({**chunk.event, "conclave": explained}))
    return Chunk(b'%b,"conclave":%b}' % (chunk.data.rstrip()[:-1], msgspec.json.encode(explained)))


@dataclass(slots=True)
class Call:
    """One call, from its first byte to its record. Opened before parsing, so that malformed JSON has a record too."""

    id: str
    source: Source
    parse: Callable[[bytes], ChatRequest]
    opened_at: datetime
    opened_s: float
    grant: "Grant | None" = None
    rules: "Rules | None" = None
    request: ChatRequest | None = None
    segments: tuple[Segment, ...] = ()
    decision: Decision | None = None
    reply: Reply | None = None
    attempts: list[Attempt] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    ended_s: float | None = None
    error: BaseException | None = None

    @property
    def answered(self) -> bool:
        """Whether the last step's answer was accepted."""
        return bool(self.outcomes) and self.outcomes[-1].accepted

    @property
    def shown(self) -> bool:
        """Whether the client has seen a word of an answer."""
        return self.reply is not None and self.reply.shown

    def end(self, now_s: float, error: BaseException | None = None) -> None:
        """Note when the call ended and what ended it; None if it was answered."""
        self.ended_s, self.error = now_s, error

    @property
    def ending(self) -> str:
        """How the call ended, as one of ENDINGS."""
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

    def explain(self) -> dict[str, Any]:
        """The `conclave` response object: which expert served the call, and why. Never user text."""
        decision, rules = self.decision, self.rules
        explained: dict[str, Any] = {"request_id": self.id}
        if self.attempts:
            explained["expert"] = self.attempts[-1].expert
        if decision is not None and decision.classification is not None:
            found = decision.classification
            explained |= {"category": found.category, "confidence": round(found.confidence, 4), "unsure": found.unsure}
        if decision is not None and rules is not None:
            step = decision.steps[max(len(self.attempts) - 1, 0)]
            explained |= {"reason": step.reason, "policy": rules.digest[:12]}
        return explained
