"""The built-in expert for embeddings: the router's static encoder behind `/v1/embeddings`. Nothing leaves the machine.

A text's vector is the normalised sum of its tokens' vectors (router/cards/encoder.md says what that is good for). Here,
unlike in the router, all of a long text counts. Fewer dimensions are the first ones, normalised again: that is sound,
for the table's axes are principal components, the widest first. Token ids are refused: they are of another model's
vocabulary. Work that would hold the event loop runs on one thread.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import msgspec

from conclave.gateway.call import Attempt, Chunk, embedded
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.prompt import Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from conclave.router.encoder import StaticEncoder

QUICK_CHARS: Final = 1_000  # of all texts: 0.4 ms of English that was never seen before, 2 ms of gibberish
QUICK_TEXTS: Final = 8  # each also writes 256 numbers, 17 us
TOKENS_AT_ONCE: Final = 4_096  # 4 MB of vectors; a text of a million characters would take 250 MB


@dataclass(frozen=True, slots=True)
class Embedded:
    """A text's vector, [dimensions] fp32 of length 1, and how many tokens it was made of (with none, it is zero)."""

    vector: "NDArray[np.float32]"
    tokens: int


Embed: TypeAlias = Callable[[str], Embedded]


def embed_with(encoder: "StaticEncoder") -> Embed:
    """All of a text, by this encoder; thread-safe as the encoder is."""

    def embed(text: str) -> Embedded:
        ids = encoder.tokens.ids(text)
        if len(ids) <= TOKENS_AT_ONCE:
            return Embedded(encoder.pool(ids), len(ids))
        parts = (ids[start : start + TOKENS_AT_ONCE] for start in range(0, len(ids), TOKENS_AT_ONCE))
        return Embedded(_normalised(sum(encoder.token_vectors(part).sum(axis=0) for part in parts)), len(ids))

    return embed


class EncoderExpert:
    """An expert that embeds texts with `embed`, into `dimensions` numbers or fewer."""

    def __init__(
        self, name: str, embed: Embed, *, dimensions: int, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.embed = embed
        self.dimensions = dimensions
        self.now_s = now_s
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"embed-{name}")  # begins when it is needed

    def open(self, prompt: Prompt, *, deadline_s: float) -> "Embeddings":
        return Embeddings(self, prompt, deadline_s)

    async def aclose(self) -> None:
        self.thread.shutdown(wait=False, cancel_futures=True)


class Embeddings:
    """One answer on its way: a single chunk."""

    def __init__(self, expert: EncoderExpert, prompt: Prompt, deadline_s: float) -> None:
        self._expert = expert
        self._prompt = prompt
        self._deadline_s = deadline_s
        self.attempt = Attempt(expert.name, expert.now_s(), deployment=expert.name, model=expert.name)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self.attempt.ended_s is not None:
            raise StopAsyncIteration
        try:
            chunk = await self._answer()
        except ExpertFailed as error:
            self.attempt.failure = error.kind
            self.close()
            raise
        self.attempt.first_byte_s = self._expert.now_s()
        self.close()
        return chunk

    def close(self) -> None:
        if self.attempt.ended_s is None:
            self.attempt.ended_s = self._expert.now_s()

    async def _answer(self) -> Chunk:
        asked = _asked(self._prompt, self._expert.dimensions)
        left_s = self._deadline_s - self._expert.now_s()
        if left_s > 0 and len(asked.texts) <= QUICK_TEXTS and sum(map(len, asked.texts)) <= QUICK_CHARS:
            return self._made(asked)
        try:
            async with asyncio.timeout(left_s):
                return await asyncio.get_running_loop().run_in_executor(self._expert.thread, self._made, asked)
        except TimeoutError:
            self.close()
            raise DeadlineExceeded("the call's time was up before the texts were embedded") from None

    def _made(self, asked: "Asked") -> Chunk:
        """All the work that takes time: it may run on a thread."""
        data, tokens = [], 0
        for index, text in enumerate(asked.texts):
            found = self._expert.embed(text)
            if not found.tokens:
                raise _rejected("a text without a word has no embedding", asked.place(index))
            tokens += found.tokens
            vector = found.vector
            if asked.dimensions < self._expert.dimensions:
                vector = _normalised(vector[: asked.dimensions])
            written = base64.b64encode(vector.astype("<f4").tobytes()).decode() if asked.base64 else vector.tolist()
            data.append({"object": "embedding", "index": index, "embedding": written})
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        answer = {"object": "list", "data": data, "model": self._expert.name, "usage": usage}
        return embedded(msgspec.json.encode(answer))


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be embedded, and how it is to be written. `listed`: the texts came as a list."""

    texts: Sequence[str]
    listed: bool
    dimensions: int
    base64: bool

    def place(self, index: int) -> str:
        return f"input[{index}]" if self.listed else "input"


def _asked(prompt: Prompt, dimensions: int) -> Asked:
    """The request as this expert understands it. Raises ExpertFailed of the kind `rejected`."""
    body: Mapping[str, Any] = prompt.body
    inputs = body.get("input")
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _rejected("the built-in encoder takes texts, not token ids, which are of another model's making", "input")
    wanted = body.get("dimensions") or dimensions
    if wanted > dimensions:
        raise _rejected(f"the built-in encoder has {dimensions} dimensions, not {wanted}", "dimensions")
    return Asked(texts, inputs is texts, wanted, body.get("encoding_format") == "base64")


def _rejected(words: str, param: str) -> ExpertFailed:
    """Not final: an expert of another kind may take it."""
    return ExpertFailed(words, kind="rejected", param=param, code="unsupported_by_expert")


def _normalised(vector: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Of length 1; the zero vector stays."""
    length = float(vector.dot(vector)) ** 0.5
    return vector / vector.dtype.type(length) if length > 0 else vector
