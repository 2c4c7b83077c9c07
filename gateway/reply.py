"""What the client is shown of an answer, chunk by chunk, and what the record says of it.

Decides when a chunk may leave: the opening (a role delta without text) waits, so that another expert can still take
over unseen, and so does the closing (finish reason, usage), so that the last chunk carries the `conclave` object. The
guard is asked first: what it holds counts as not shown. If an expert fails after its first word, `begin` makes the next
one continue under the same identity. An answer on trial waits whole; the client hears meanwhile that somebody is at
work. Never asks anybody.
"""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from conclave.gateway import tokens
from conclave.gateway.call import SILENCE, Chunk, ModelRequest
from conclave.gateway.errors import ExpertFailed
from conclave.gateway.evidence import Citing, Evidence
from conclave.gateway.guard import UNGUARDED, Guard, NoGuard
from conclave.gateway.seam import Seam
from conclave.gateway.trial import Trial
from conclave.gateway.usage import Usage
from conclave.router.gates.cascade import Heard

IDENTITY: Final = ("id", "object", "created", "model")  # the fields that every chunk of a stream repeats
HOLDS: Final = {"embeddings": "data", "moderations": "results"}  # what an answer is a list of; else `choices`
KEEP_ALIVE_S: Final = 10.0  # of silence towards the client, as upstreams have it
MOST_CALLS: Final = 16  # of an answer's tool calls, whose ids are remembered
MOST_SKIPPED: Final = 3  # unreadable events of one answer that are passed over; an expert that sends more is broken


class Reply:
    """One answer on its way. `begun` says that the client has its 200, `shown` that it has seen a word.

    `usage`, `finish_reason` and `model` are of the attempt that answers now; `shown_bytes` and `digest` of all that was
    shown.
    """

    __slots__ = (
        "_absorb_usage",
        "_before",
        "_citing",
        "_digest",
        "_guard",
        "_held",
        "_holds",
        "_identity",
        "_keep_text",
        "_now_s",
        "_quiet_since_s",
        "_seam",
        "_spare",
        "_text",
        "_trial",
        "begun",
        "call_ids",
        "chunks",
        "finish_reason",
        "guarded_s",
        "model",
        "shown",
        "shown_bytes",
        "skipped_events",
        "stream",
        "usage",
    )

    def __init__(
        self,
        request: ModelRequest,
        *,
        digest_key: bytes,
        guard: Guard | NoGuard = UNGUARDED,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = request.stream
        self.begun = False
        self.shown = False
        self.shown_bytes = 0
        self.skipped_events = 0
        self.chunks = 0  # of the attempt that answers now
        self.call_ids: list[str] = []  # of the tool calls in it
        self.usage = Usage()
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.guarded_s: float | None = None  # when the guard first looked at what is shown
        self._guard = guard
        self._citing: Citing | None = None  # where the answer may name passages
        self._absorb_usage = request.stream and not request.include_usage
        self._held: list[Chunk] = []
        self._holds = HOLDS.get(request.operation, "choices")
        self._identity: dict[str, Any] = {}
        self._digest = hashlib.blake2b(key=digest_key, digest_size=16)
        self._keep_text = request.stream and request.operation == "chat" and can_continue(request)
        self._text: list[str] = []  # the content that was shown
        self._before = 0  # how many of these pieces other attempts had said
        self._seam: Seam | None = None  # while a second expert continues
        self._trial: Trial | None = None  # while an answer is on trial
        self._spare: Trial | None = None  # an answer that was whole, but unsure
        self._now_s = now_s
        self._quiet_since_s = 0.0

    @property
    def digest(self) -> str:
        """Keyed BLAKE2b over the bytes that were shown, in hex."""
        return self._digest.hexdigest()

    @property
    def id(self) -> str | None:
        """What the expert calls its answer."""
        found = self._identity.get("id")
        return found if isinstance(found, str) else None

    @property
    def so_far(self) -> str:
        """The content that was shown, for the next expert to continue."""
        without_values = self._guard.so_far
        return "".join(self._text) if without_values is None else without_values

    @property
    def resumable(self) -> bool:
        """Whether another expert could continue what was shown."""
        return self._keep_text

    @property
    def heard(self) -> Heard | None:
        """Of an answer on trial, what there is to judge by."""
        return self._trial.heard if self._trial is not None else None

    @property
    def aside(self) -> Heard | None:
        """Of an answer that was whole before the one that is on trial now, what there is to judge by."""
        return self._spare.heard if self._spare is not None and self._spare is not self._trial else None

    @property
    def spare(self) -> bool:
        """Whether an unsure answer could be shown in place of none."""
        return self._spare is not None and not self.shown

    def cite(self, evidence: Evidence) -> None:
        """The answer from now on may name these passages."""
        self._citing = Citing.of(evidence) if evidence.shown else None

    def spent(self, prompt: Iterable[str]) -> Usage:
        """What this attempt used: as its expert said, or estimated if it failed before it said so."""
        said = "".join(self._text[self._before :] if self._trial is None else self._trial.heard.answers)
        if self.usage != Usage() or not said:
            return self.usage
        return Usage(sum(map(tokens.count, prompt)), tokens.count(said), estimated=True)

    def begin(self, *, prefilled: bool = False, on_trial: bool = False, added: Collection[str] = ()) -> None:
        """The next expert begins: from nothing or, if a word was shown, where that broke off.

        What was held of the one before is forgotten, but for a whole answer on trial: it is spare. One that got the
        text as its own last words (`prefilled`) repeats nothing of it. `on_trial`: nothing is shown before `finish`;
        `added` are the fields of the request that the gateway put in.
        """
        self._held.clear()
        self._trial = Trial(added) if on_trial else None
        self._quiet_since_s = self._now_s()
        self.usage, self.finish_reason, self.model, self.skipped_events = Usage(), None, None, 0
        self.chunks = 0
        self.call_ids = []
        if self.shown:
            self._before = len(self._text)
            self._seam = Seam("" if prefilled else self.so_far)
            self._guard.drop()
        else:
            self._guard.reset()
            self.guarded_s = None
            self._identity = {}

    def recall(self) -> None:
        """Nobody did better than the answer that was unsure: it is the one to finish."""
        spare = self._spare
        self.begin()
        self._trial = spare

    def feed(self, chunk: Chunk) -> Sequence[Chunk]:
        """What may be shown now, in order. Raises ExpertFailed for what is no part of an answer.

        Once a word was shown, a few unreadable events are passed over (`skipped_events`): one of them ends no stream.
        """
        if chunk is SILENCE:
            return self._keep_alive()
        self.chunks += 1
        try:
            choices = self._read(chunk)
        except ExpertFailed:
            if not self.shown or self.skipped_events >= MOST_SKIPPED:
                raise
            self.skipped_events += 1
            return ()
        if chunk.event.get("usage"):
            self.usage = Usage.of(chunk.event["usage"])
            if self._absorb_usage and not choices:
                return ()
        if self._trial is not None:
            self._trial.take(chunk)
            return self._keep_alive() if self._now_s() - self._quiet_since_s >= KEEP_ALIVE_S else ()
        return self._pass(chunk, choices)

    def _pass(self, chunk: Chunk, choices: list[dict[str, Any]]) -> Sequence[Chunk]:
        closing = self._note_finish(choices)
        for choice in choices:
            self._note_calls(choice.get("delta") or choice.get("message"))
        if not self._identity:
            self._identity = {name: chunk.event[name] for name in IDENTITY if name in chunk.event}
        if self.model is None:
            self.model = chunk.event["model"] if isinstance(chunk.event.get("model"), str) else None
        if self._seam is not None:
            joined = self._continued(chunk, closing=closing)
            if joined is None:
                return ()
            chunk, choices = joined, joined.event["choices"]
        if self._guard is UNGUARDED:
            return self._show(chunk, choices, closing=closing)
        if self.guarded_s is None:
            self.guarded_s = self._now_s()
        return self._let_go(self._guard.feed(chunk))

    def _let_go(self, chunks: Iterable[Chunk]) -> Sequence[Chunk]:
        """What the guard lets pass, as far as it is neither opening nor closing."""
        shown: list[Chunk] = []
        for chunk in chunks:
            choices = self._read(chunk)
            closing = not self.stream or any(choice.get("finish_reason") for choice in choices)
            shown += self._show(chunk, choices, closing=closing)
        return shown

    def _show(self, chunk: Chunk, choices: list[dict[str, Any]], *, closing: bool) -> Sequence[Chunk]:
        if closing or not choices or not (self.shown or any(map(_has_text, choices))):
            self._held.append(chunk)
            return ()
        return self._release(chunk)

    def complete(self) -> None:
        """The expert has said all. Raises ExpertFailed if that was nothing."""
        if self._trial is not None:
            if self._trial.empty:
                raise ExpertFailed("the expert ended without an answer", kind="cut")
            self._spare = self._spare or self._trial
            return
        rest = self._seam.finish() if self._seam is not None else ""
        self._held[:0] = [*(self._guard.feed(self._said(rest)) if rest else ()), *self._guard.finish()]
        if not self._held:
            if not self.shown or (self._seam is not None and len(self._text) == self._before):
                raise ExpertFailed("the expert ended without an answer", kind="cut")
            self._held.append(Chunk(msgspec.json.encode({**self._identity, "choices": []})))

    def finish(self, explained: Mapping[str, Any]) -> Sequence[Chunk]:
        """All that was held of a complete answer, the `conclave` object in its last chunk."""
        said: list[Chunk] = []
        if self._trial is not None:
            for chunk in self._trial.answer():
                said += self._pass(chunk, chunk.event["choices"])
            said += self._let_go(self._guard.finish())
            self._trial = self._spare = None
            if not self._held:
                self._held.append(Chunk(msgspec.json.encode({**self._identity, "choices": []})))
        if self._seam is not None:
            explained = {**explained, "continued": True}
        if self.skipped_events:
            explained = {**explained, "skipped_events": self.skipped_events}
        if (found := self._guard.verdict).acted:
            explained = {**explained, "findings": [*explained.get("findings", ()), *found.reasons]}
        self._keep_text = False  # nobody continues it any more
        if self._citing is not None:
            for chunk in self._held:
                self._citing.read(_words_of(chunk))
            explained = {**explained, "citations": self._citing.cited()}
            self._citing = None
        last = self._held.pop()
        return [*said, *self._release(_spliced(last, explained))]

    def _keep_alive(self) -> Sequence[Chunk]:
        self.begun = True
        self._quiet_since_s = self._now_s()
        return (SILENCE,)

    def _read(self, chunk: Chunk) -> list[dict[str, Any]]:
        """The choices of a chunk, or what stands for them in answers of other operations."""
        found = chunk.event.get(self._holds)
        if isinstance(found, msgspec.Raw) and bytes(memoryview(found)[:1]) == b"[":
            return []  # of class Vectors: nobody looks at them
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise ExpertFailed(f"the expert sent an object without {self._holds}", kind="malformed")
        return found

    def _note_finish(self, choices: list[dict[str, Any]]) -> bool:
        """Whether one of the choices ends here (each does in a plain answer)."""
        reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
        if reasons:
            self.finish_reason = str(reasons[-1])
        return bool(reasons) or not self.stream

    def _note_calls(self, said: object) -> None:
        calls = said.get("tool_calls") if isinstance(said, dict) else None
        for call in calls if isinstance(calls, list) else ():
            name = call.get("id") if isinstance(call, dict) else None
            if isinstance(name, str) and name not in self.call_ids and len(self.call_ids) < MOST_CALLS:
                self.call_ids.append(name)  # some servers say it again with each piece of the arguments

    def _continued(self, chunk: Chunk, *, closing: bool) -> Chunk | None:
        """A continuing expert's chunk as if the first one had sent it: its identity, no role, nothing said twice."""
        assert self._seam is not None  # noqa: S101  for mypy
        event = {**chunk.event, **self._identity}
        if event["choices"]:
            choice = {**event["choices"][0]}
            delta = dict(choice["delta"]) if isinstance(choice.get("delta"), dict) else {}
            text = ""
            if isinstance(delta.get("content"), str):
                text = self._seam.feed(delta.pop("content"))
            if closing:
                text += self._seam.finish()
            delta.pop("role", None)
            if text:
                delta["content"] = text
            if not delta and not closing:
                return None
            event["choices"] = [{**choice, "delta": delta}]
        return Chunk(msgspec.json.encode(event))

    def _said(self, text: str) -> Chunk:
        return Chunk(msgspec.json.encode({**self._identity, "choices": [{"index": 0, "delta": {"content": text}}]}))

    def _release(self, chunk: Chunk) -> Sequence[Chunk]:
        out = (*self._held, chunk)
        self._held.clear()
        self.shown = self.begun = True
        for released in out:
            self.shown_bytes += len(released.data)
            self._digest.update(released.data)
            if self._keep_text:
                self._note_text(released)
            if self._citing is not None:
                self._citing.read(_words_of(released))
        return out

    def _note_text(self, chunk: Chunk) -> None:
        """Remember the content; an answer with anything else than one text cannot be continued by another expert."""
        for choice in chunk.event["choices"]:
            delta = choice.get("delta")
            if not isinstance(delta, dict):
                continue
            if choice.get("index") or delta.get("tool_calls") or delta.get("function_call") or delta.get("refusal"):
                self._keep_text = False
            elif isinstance(content := delta.get("content"), str) and content:
                self._text.append(content)


def can_continue(request: ModelRequest) -> bool:
    """Whether the answer to it is one free text: JSON that began cannot be handed over, nor can several choices."""
    kind = request.body.get("response_format")
    return not (isinstance(kind, dict) and kind.get("type") != "text") and (request.body.get("n") or 1) == 1


def _has_text(choice: dict[str, Any]) -> bool:
    """Whether a stream's choice carries more than a role: content, reasoning, a refusal, a tool call."""
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(value for key, value in delta.items() if key != "role")
    return bool(choice.get("text"))  # of the older completions


def _words_of(chunk: Chunk) -> str:
    """The content in a chunk: a stream's deltas, or whole messages."""
    found = chunk.event.get("choices")
    said: list[str] = []
    for choice in found if isinstance(found, list) else ():
        inside = choice.get("delta") or choice.get("message") if isinstance(choice, dict) else None
        content = inside.get("content") if isinstance(inside, dict) else choice.get("text")
        said += [content] if isinstance(content, str) else []
    return "\n".join(said)


def _spliced(chunk: Chunk, explained: Mapping[str, Any]) -> Chunk:
    """The chunk with a `conclave` object added; the upstream's own bytes stay as they are, unless it has one itself."""
    if "conclave" in chunk.event:
        return Chunk(msgspec.json.encode({**chunk.event, "conclave": explained}))
    most = memoryview(chunk.data)[: chunk.data.rindex(b"}")]  # copied once: vectors are megabytes
    return Chunk(b"".join((most, b',"conclave":', msgspec.json.encode(explained), b"}")))
