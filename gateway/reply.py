"""What the client is shown of an answer, chunk by chunk, and what the record says of it.

Decides when a chunk may leave: the opening (a role delta without text) waits, so that another expert can still take
over unseen, and so does the closing (finish reason, usage), so that the last chunk carries the `conclave` object. If an
expert fails after its first word, `begin` makes the next one continue under the same identity. Never asks anybody.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from conclave.gateway import tokens
from conclave.gateway.call import SILENCE, Chunk, ModelRequest, Usage
from conclave.gateway.errors import ExpertFailed
from conclave.gateway.seam import Seam

IDENTITY: Final = ("id", "object", "created", "model")  # the fields that every chunk of a stream repeats
HOLDS: Final = {"embeddings": "data", "moderations": "results"}  # what an answer is a list of; else `choices`
MOST_SKIPPED: Final = 3  # unreadable events of one answer that are passed over; an expert that sends more is broken


class Reply:
    """One answer on its way. `begun` says that the client has its 200, `shown` that it has seen a word.

    `usage`, `finish_reason` and `model` are of the attempt that answers now; `shown_bytes` and `digest` of all that was
    shown.
    """

    __slots__ = (
        "_absorb_usage",
        "_before",
        "_digest",
        "_held",
        "_holds",
        "_identity",
        "_keep_text",
        "_seam",
        "_text",
        "begun",
        "chunks",
        "finish_reason",
        "model",
        "shown",
        "shown_bytes",
        "skipped_events",
        "stream",
        "usage",
    )

    def __init__(self, request: ModelRequest, *, digest_key: bytes) -> None:
        self.stream = request.stream
        self.begun = False
        self.shown = False
        self.shown_bytes = 0
        self.skipped_events = 0
        self.chunks = 0  # of the attempt that answers now
        self.usage = Usage()
        self.finish_reason: str | None = None
        self.model: str | None = None
        self._absorb_usage = request.stream and not request.include_usage
        self._held: list[Chunk] = []
        self._holds = HOLDS.get(request.operation, "choices")
        self._identity: dict[str, Any] = {}
        self._digest = hashlib.blake2b(key=digest_key, digest_size=16)
        self._keep_text = request.stream and request.operation == "chat" and can_continue(request)
        self._text: list[str] = []  # the content that was shown
        self._before = 0  # how many of these pieces other attempts had said
        self._seam: Seam | None = None  # while a second expert continues

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
        return "".join(self._text)

    @property
    def resumable(self) -> bool:
        """Whether another expert could continue what was shown."""
        return self._keep_text

    def spent(self, prompt: Iterable[str]) -> Usage:
        """What this attempt used: as its expert said, or estimated if it failed before it said so."""
        said = "".join(self._text[self._before :])
        if self.usage != Usage() or not said:
            return self.usage
        return Usage(sum(map(tokens.count, prompt)), tokens.count(said), estimated=True)

    def begin(self, *, prefilled: bool = False) -> None:
        """The next expert begins: from nothing or, if a word was shown, where that broke off.

        What was held of the one before is forgotten. One that got the text as its own last words (`prefilled`) repeats
        nothing of it.
        """
        self._held.clear()
        self.usage, self.finish_reason, self.model, self.skipped_events = Usage(), None, None, 0
        self.chunks = 0
        if self.shown:
            self._before = len(self._text)
            self._seam = Seam("" if prefilled else self.so_far)
        else:
            self._identity = {}

    def feed(self, chunk: Chunk) -> Sequence[Chunk]:
        """What may be shown now, in order. Raises ExpertFailed for what is no part of an answer.

        Once a word was shown, a few unreadable events are passed over (`skipped_events`): one of them ends no stream.
        """
        if chunk is SILENCE:
            self.begun = True
            return (chunk,)
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
        closing = self._note_finish(choices)
        if not self._identity:
            self._identity = {name: chunk.event[name] for name in IDENTITY if name in chunk.event}
        if self.model is None:
            self.model = chunk.event["model"] if isinstance(chunk.event.get("model"), str) else None
        if self._seam is not None:
            return self._continue(chunk, closing=closing)
        if closing or not choices or not (self.shown or any(map(_has_text, choices))):
            self._held.append(chunk)
            return ()
        return self._release(chunk)

    def finish(self, explained: Mapping[str, Any]) -> Sequence[Chunk]:
        """All that was held, the `conclave` object in its last chunk. Raises ExpertFailed if nothing ever came."""
        if self._seam is not None and (rest := self._seam.finish()):
            self._held.insert(0, self._said(rest))
        if not self._held:
            if not self.shown or (self._seam is not None and len(self._text) == self._before):
                raise ExpertFailed("the expert ended without an answer", kind="cut")
            self._held.append(Chunk(msgspec.json.encode({**self._identity, "choices": []})))
        if self._seam is not None:
            explained = {**explained, "continued": True}
        if self.skipped_events:
            explained = {**explained, "skipped_events": self.skipped_events}
        self._keep_text = False  # nobody continues it any more
        last = self._held.pop()
        return self._release(_spliced(last, explained))

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

    def _continue(self, chunk: Chunk, *, closing: bool) -> Sequence[Chunk]:
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
                return ()
            event["choices"] = [{**choice, "delta": delta}]
        joined = Chunk(msgspec.json.encode(event))
        if closing or not event["choices"]:
            self._held.append(joined)
            return ()
        return self._release(joined)

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


def _spliced(chunk: Chunk, explained: Mapping[str, Any]) -> Chunk:
    """The chunk with a `conclave` object added; the upstream's own bytes stay as they are, unless it has one itself."""
    if "conclave" in chunk.event:
        return Chunk(msgspec.json.encode({**chunk.event, "conclave": explained}))
    most = memoryview(chunk.data)[: chunk.data.rindex(b"}")]  # copied once: vectors are megabytes
    return Chunk(b"".join((most, b',"conclave":', msgspec.json.encode(explained), b"}")))
