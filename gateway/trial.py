"""One answer on trial: held whole until it was judged, and then shown without what the gateway itself had asked for.

Holds an answer's chunks and reads of them what a judgement needs: the texts of its samples and the probabilities of its
tokens. Never judges, and holds no more than `MOST_HELD_BYTES` of what would be shown.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from conclave.gateway.call import Chunk
from conclave.gateway.errors import ExpertFailed
from conclave.router.gates.cascade import Heard, majority

MOST_HELD_BYTES: Final = 2 * 1024 * 1024  # an answer of 8,000 tokens, a chunk each
MOST_TOKENS: Final = 4096  # of an answer, whose probabilities are kept
LOGPROBS: Final = "logprobs"
SAMPLES: Final = "n"


class Trial:
    """`added` are the fields of the request that are the gateway's own wish: the client sees nothing of them."""

    __slots__ = ("_added", "_chunks", "_first", "_logprobs", "_size_bytes", "_texts")

    def __init__(self, added: Collection[str] = ()) -> None:
        self._added = frozenset(added)
        self._chunks: list[bytes] = []
        self._texts: dict[int, list[str]] = {}  # by choice
        self._logprobs: list[float] = []  # of the first choice
        self._first: dict[str, float] = {}
        self._size_bytes = 0

    def take(self, chunk: Chunk) -> None:
        """One more chunk of the answer. Raises ExpertFailed if it grew too large to be held."""
        for choice in chunk.event["choices"]:
            self._read(choice)
        data = self._without_logprobs(chunk)
        self._size_bytes += len(data)
        if self._size_bytes > MOST_HELD_BYTES:
            raise ExpertFailed(f"an answer on trial grew beyond {MOST_HELD_BYTES} bytes", kind="late")
        self._chunks.append(data)

    @property
    def empty(self) -> bool:
        """Whether nothing came at all."""
        return not self._chunks

    @property
    def heard(self) -> Heard:
        """What there is to judge by."""
        answers = tuple("".join(self._texts[index]) for index in sorted(self._texts))
        return Heard(answers, tuple(self._logprobs), self._first)

    def answer(self) -> Iterator[Chunk]:
        """The chunks to show. Of several samples one that says what most of them say, as if it were the only one."""
        if SAMPLES not in self._added:
            yield from map(Chunk, self._chunks)
            return
        indices = sorted(self._texts)
        shown = indices[majority(self.heard.answers)] if indices else 0
        for data in self._chunks:
            event = Chunk(data).event
            mine = [{**choice, "index": 0} for choice in event["choices"] if _index(choice) == shown]
            if mine or not event["choices"]:
                yield Chunk(msgspec.json.encode({**event, "choices": mine}))

    def _read(self, choice: Mapping[str, Any]) -> None:
        index = _index(choice)
        said = choice.get("message", choice.get("delta"))
        text = said.get("content") if isinstance(said, dict) else None
        self._texts.setdefault(index, [])
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
                pairs = map(_pair, others if isinstance(others, list) else ())
                self._first = dict([found, *(pair for pair in pairs if pair is not None)])
            self._logprobs.append(found[1])

    def _without_logprobs(self, chunk: Chunk) -> bytes:
        """The chunk's bytes: its own, unless the gateway alone wished for the probabilities."""
        if LOGPROBS not in self._added or not any(choice.get(LOGPROBS) for choice in chunk.event["choices"]):
            return chunk.data
        choices = [{**choice, LOGPROBS: None} for choice in chunk.event["choices"]]
        return msgspec.json.encode({**chunk.event, "choices": choices})


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
    return text, float(logprob)
