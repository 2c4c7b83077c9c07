"""One answer on trial: held whole until it was judged, and then shown without what the gateway itself had asked for.

Holds an answer's chunks and reads of them what a judgement needs: the texts of its samples and the probabilities of its
tokens. Chunks of a stream that differ in nothing but a piece of one text become one: nobody waits for the pieces any
more, and to read and write 8,000 of them at once would hold the event loop up. Never judges, and holds no more than
`MOST_HELD_BYTES` of what would be shown.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from conclave.gateway.call import Chunk
from conclave.gateway.errors import ExpertFailed
from conclave.router.gates.cascade import Heard, majority

MOST_HELD_BYTES: Final = 2 * 1024 * 1024  # an answer of 8,000 tokens, if each stays a chunk of its own
MOST_TOKENS: Final = 4096  # of an answer, whose probabilities are kept
MOST_ALTERNATIVES: Final = 20  # to the first token: OpenAI lists no more
LOGPROBS: Final = "logprobs"
SAMPLES: Final = "n"
UNSAID: Final = frozenset({"role", "reasoning", "reasoning_content", "annotations"})  # no answer by themselves
PADDING: Final = "obfuscation"  # OpenAI's, against who counts bytes: without a meaning, and another in each chunk


@dataclass(slots=True)
class Held:
    """A chunk, and the `rest` of its text: what the chunks like it said that came next. `name` is where that stands."""

    data: bytes
    name: str = ""
    rest: list[str] = field(default_factory=list)

    def chunk(self) -> Chunk:
        """All of it as one."""
        first = Chunk(self.data)
        if not self.rest:
            return first
        (choice,) = first.event["choices"]
        delta = {**choice["delta"], self.name: "".join((choice["delta"][self.name], *self.rest))}
        return Chunk(msgspec.json.encode({**first.event, "choices": [{**choice, "delta": delta}]}))


class Trial:
    """`added` are the fields of the request that are the gateway's own wish: the client sees nothing of them."""

    __slots__ = ("_added", "_alike", "_first", "_held", "_logprobs", "_silent", "_size_bytes", "_texts")

    def __init__(self, added: Collection[str] = ()) -> None:
        self._added = frozenset(added)
        self._held: list[Held] = []
        self._alike: dict[str, Any] | None = None  # the last of them, but for its text; None: it has more than that
        self._texts: dict[int, list[str]] = {}  # by choice
        self._logprobs: list[float] = []  # of the first choice
        self._first: dict[str, float] = {}
        self._silent = True
        self._size_bytes = 0

    def take(self, chunk: Chunk) -> None:
        """One more chunk of the answer. Raises ExpertFailed if it grew too large to be held."""
        for choice in chunk.event["choices"]:
            self._read(choice)
        self._size_bytes += self._hold(chunk)
        if self._size_bytes > MOST_HELD_BYTES:
            raise ExpertFailed(f"an answer on trial grew beyond {MOST_HELD_BYTES} bytes", kind="late")

    def _hold(self, chunk: Chunk) -> int:
        """How many bytes it takes."""
        event = self._without_logprobs(chunk.event)
        name, text, alike = _only_text(event)
        if alike is not None and alike == self._alike:
            self._held[-1].rest.append(text)
            return len(text.encode())
        data = chunk.data if event is chunk.event else msgspec.json.encode(event)
        self._held.append(Held(data, name))
        self._alike = alike
        return len(data)

    @property
    def empty(self) -> bool:
        """Whether nothing came at all."""
        return not self._held

    @property
    def heard(self) -> Heard:
        """What there is to judge by."""
        answers = tuple("".join(self._texts[index]) for index in sorted(self._texts))
        return Heard(answers, tuple(self._logprobs), self._first, silent=self._silent)

    def answer(self) -> Iterator[Chunk]:
        """The chunks to show. Of several samples one that says what most of them say, as if it were the only one."""
        if SAMPLES not in self._added:
            yield from (held.chunk() for held in self._held)
            return
        indices = sorted(self._texts)
        shown = indices[majority(self.heard.answers)] if indices else 0
        for held in self._held:
            event = held.chunk().event
            mine = [{**choice, "index": 0} for choice in event["choices"] if _index(choice) == shown]
            if mine or not event["choices"]:
                yield Chunk(msgspec.json.encode({**event, "choices": mine}))

    def _read(self, choice: Mapping[str, Any]) -> None:
        index = _index(choice)
        said = choice.get("message") or choice.get("delta")
        text = said.get("content") if isinstance(said, dict) else None
        self._texts.setdefault(index, [])
        if self._silent and isinstance(said, dict):
            self._silent = not any(map(_says, said.items()))
        if isinstance(text, str):
            self._texts[index].append(text)
        if index == 0 and len(self._logprobs) < MOST_TOKENS:
            self._note_tokens(choice.get(LOGPROBS))

    def _note_tokens(self, logprobs: object) -> None:
        tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
        for token in tokens if isinstance(tokens, list) else ():
            found = _pair(token)
            if found is None:
                continue
            if not self._logprobs:
                others = token.get("top_logprobs")
                pairs = map(_pair, others[:MOST_ALTERNATIVES] if isinstance(others, list) else ())
                self._first = dict([found, *(pair for pair in pairs if pair is not None)])
            self._logprobs.append(found[1])

    def _without_logprobs(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event itself, unless the gateway alone wished for the probabilities."""
        if LOGPROBS not in self._added or not any(choice.get(LOGPROBS) for choice in event["choices"]):
            return event
        return {**event, "choices": [{**choice, LOGPROBS: None} for choice in event["choices"]]}


def _only_text(event: Mapping[str, Any]) -> tuple[str, str, dict[str, Any] | None]:
    """Of a stream's event that says a piece of one text: where that stands, the text, and all else; None: it says more.

    What ends a choice, and the probabilities that a client asked for, are more.
    """
    choice = event["choices"][0] if len(event["choices"]) == 1 else {}
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return "", "", None
    names = [name for name in delta if name != "role"]
    if len(names) != 1 or not isinstance(delta[names[0]], str) or choice.get("finish_reason") or choice.get(LOGPROBS):
        return "", "", None
    bare = {**choice, "delta": {**delta, names[0]: ""}}
    return names[0], delta[names[0]], {**event, "choices": [bare], PADDING: None}


def _says(item: tuple[str, object]) -> bool:
    """Whether a field of an answer is a part of what it says: its text, a refusal, a call of a tool, sound."""
    name, value = item
    return name not in UNSAID and bool(value.strip() if isinstance(value, str) else value)


def _index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _pair(token: object) -> tuple[str, float] | None:
    """A token and the logarithm of its probability, as `logprobs.content` lists them; None for something else."""
    if not isinstance(token, dict):
        return None
    text, logprob = token.get("token"), token.get("logprob")
    if not isinstance(text, str) or not isinstance(logprob, int | float) or isinstance(logprob, bool):
        return None
    try:
        return text, float(logprob)
    except OverflowError:  # an integer of hundreds of digits
        return None
