"""The expert that is always there: it answers by quoting indexed documents, with citations, and never in its own words.

It reads the last user message only. A passage is quoted if it covers enough of what the question is about; if none
does, the answer says so and how to add an expert that can write. The same question over the same documents gets the
same words. Nothing leaves the machine. Tokens are counted as words between white space, in limits and in usage alike.
"""

import asyncio
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Self

import msgspec

from conclave.gateway.call import Attempt, Chunk
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.evidence import Evidence
from conclave.gateway.prompt import Prompt
from conclave.retrieval.api import HEADING_SEPARATOR, Match, Passage
from conclave.retrieval.excerpt import excerpt
from conclave.retrieval.store import Store, terms

FLOOR: Final = 0.55  # of the question's weighted terms; set by the tables in tests/gateway/experts/test_quoting.py
TITLE_FLOOR: Final = 0.4  # enough where the question names the whole heading ("Is there a Docker image?": Docker)
NEARLY: Final = 0.9  # of the best passage's fit: then a second and a third are quoted too
HALF: Final = 0.5  # of the question's words, that a passage which was looked up for it must hold
PASSAGES: Final = 3
LONG_CHARS: Final = 100_000  # of all messages: counting their words takes about a millisecond
NO_PASSAGE: Final = (
    "I find no passage in my documents for this. I can only quote documents; for other questions add an expert: "
    "set OPENAI_API_KEY or OLLAMA_HOST before the start, or name one under policy.experts in config/conclave.yaml."
)
WORD: Final = re.compile(r"\S+")
SENTENCE: Final = re.compile(r"(?:[.!?]\s+|\n+)")


class QuotingExpert:
    """An expert over a store of passages, which is closed with it."""

    def __init__(
        self,
        name: str,
        store: Store,
        *,
        new_id: Callable[[], str] = lambda: f"chatcmpl-{secrets.token_hex(12)}",
        epoch_s: Callable[[], float] = time.time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._store = store
        self._new_id = new_id
        self._epoch_s = epoch_s
        self._now_s = now_s

    def open(self, prompt: Prompt, *, deadline_s: float) -> "QuotedAnswer":
        frame = {"id": self._new_id(), "created": int(self._epoch_s()), "model": self.name}
        attempt = Attempt(expert=self.name, started_s=self._now_s(), deployment=self.name, model=self.name)
        return QuotedAnswer(self._store, prompt, frame, attempt=attempt, deadline_s=deadline_s, now_s=self._now_s)

    async def aclose(self) -> None:
        self._store.close()


class QuotedAnswer:
    """One answer on its way. The search runs when the first chunk is asked for."""

    def __init__(  # noqa: PLR0913  the last three are what every upstream has
        self,
        store: Store,
        prompt: Prompt,
        frame: Mapping[str, Any],
        *,
        attempt: Attempt,
        deadline_s: float,
        now_s: Callable[[], float],
    ) -> None:
        self.attempt = attempt
        self._store = store
        self._prompt = prompt
        self._frame = frame
        self._deadline_s = deadline_s
        self._now_s = now_s
        self._chunks: Iterator[Chunk] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self.attempt.ended_s is not None:
            raise StopAsyncIteration
        if self._now_s() >= self._deadline_s:
            self.close()
            raise DeadlineExceeded("the call's time was up before the answer was given")
        if self._chunks is None:
            self._chunks = _chunks(self._prompt, self._frame, await self._draft())
            self.attempt.first_byte_s = self._now_s()
        chunk = next(self._chunks, None)
        if chunk is None:
            self.close()
            raise StopAsyncIteration
        return chunk

    def close(self) -> None:
        if self.attempt.ended_s is None:
            self.attempt.ended_s = self._now_s()

    async def _draft(self) -> "Draft":
        body = self._prompt.body
        texts = [_text(message) for message in _messages(body)]
        question, evidence = last_question(body), self._prompt.evidence
        if evidence is not None and evidence.shown:
            question = question.removeprefix(evidence.block).strip()
            return await asyncio.to_thread(_drafted_from, evidence, question, texts)
        try:
            if sum(map(len, texts)) <= LONG_CHARS and self._store.is_quick(question):
                return _drafted(self._store, question, texts)
            return await asyncio.to_thread(_drafted, self._store, question, texts)
        except sqlite3.Error as error:
            self.attempt.failure = "connect"
            self.close()
            raise ExpertFailed("the index of documents cannot be read", kind="connect") from error


@dataclass(frozen=True, slots=True)
class Draft:
    """The whole answer, and how many words the messages had."""

    text: str
    asked: int


def _drafted(store: Store, question: str, texts: Sequence[str]) -> Draft:
    """All the work that takes time: it may run on a thread."""
    return Draft(answer(store.matches(question, limit=PASSAGES)), sum(len(text.split()) for text in texts))


def _drafted_from(evidence: Evidence, question: str, texts: Sequence[str]) -> Draft:
    """From what was looked up for the call, by the numbers that it has there."""
    numbers = {_spot(one.passage): one.number for one in evidence.shown}
    store = Store.in_memory()
    try:
        store.add(replace(one.passage, text=one.text) for one in evidence.shown)
        matches = store.matches(question, limit=PASSAGES)
    finally:
        store.close()
    asked = len(terms(question))  # by number: among a handful of passages no word is rare
    near = [one for one in matches if one.fit >= NEARLY * matches[0].fit and one.terms >= HALF * asked]
    told = [(numbers[_spot(one.passage)], one) for one in near]
    return Draft(_answer(told), sum(len(text.split()) for text in texts))


def _spot(passage: Passage) -> tuple[str, int, int]:
    return passage.source, passage.start, passage.end


def last_question(body: Mapping[str, Any]) -> str:
    """The text of the last user message; empty if there is none."""
    asked = (_text(message) for message in reversed(_messages(body)) if message.get("role") == "user")
    return next(asked, "")


def answer(matches: list[Match]) -> str:
    """The quotations, each with its number, and under them where they stand; or that there is none."""
    told = [match for match in matches if relevant(match) and match.fit >= NEARLY * matches[0].fit]
    return _answer(list(enumerate(told, start=1)))


def _answer(told: Sequence[tuple[int, Match]]) -> str:
    if not told:
        return NO_PASSAGE
    quotes = [_quotation(f"{excerpt(match)}\n\n[{number}]") for number, match in told]
    places = [f"- [{number}] {_place(match.passage)}" for number, match in told]
    return "\n\n".join([*quotes, "Sources:", "\n".join(places)])


def relevant(match: Match) -> bool:
    """Whether a passage is about the question, not just a neighbour that shares a word with it.

    A passage that covers a single term must name it in its heading or come back to it, unless it is an identifier.
    """
    if match.titled == 1.0:
        return match.coverage >= TITLE_FLOOR
    telling = match.terms > 1 or match.titled > 0 or len(match.hits) > 1 or any("_" in hit.term for hit in match.hits)
    return telling and match.coverage >= FLOOR


def _quotation(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _place(passage: Passage) -> str:
    """`docs/configuration.md, Keys`: the document's own title is left out where a section is named."""
    section = passage.heading.partition(HEADING_SEPARATOR)[2] or passage.heading
    return f"{passage.source}, {section}" if section else passage.source


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    return [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text")
    return "\n".join(text for text in texts if isinstance(text, str))


def _chunks(prompt: Prompt, frame: Mapping[str, Any], draft: Draft) -> Iterator[Chunk]:
    """The answer as chat.completions: one body, or the events of a stream."""
    said = _limited(draft.text, prompt.body)
    reason = "stop" if said == draft.text else "length"
    told = len(said.split())
    usage = {"prompt_tokens": draft.asked, "completion_tokens": told, "total_tokens": draft.asked + told}
    if not prompt.stream:
        message = {"role": "assistant", "content": said, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        yield _chunk(frame, object="chat.completion", choices=[choice], usage=usage)
        return
    options = prompt.body.get("stream_options")
    counted = isinstance(options, dict) and options.get("include_usage") is True
    rest = {"object": "chat.completion.chunk", **({"usage": None} if counted else {})}
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in _pieces(said)]
    for delta, ended in [*deltas, ({}, reason)]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": ended}
        yield _chunk(frame, choices=[choice], **rest)
    if counted:
        yield _chunk(frame, **{**rest, "choices": [], "usage": usage})


def _chunk(frame: Mapping[str, Any], **rest: Any) -> Chunk:
    return Chunk(msgspec.json.encode({**frame, **rest}))


def _limited(text: str, body: Mapping[str, Any]) -> str:
    """The first words of the text, as many as max_completion_tokens (or the older max_tokens) allows."""
    for key in ("max_completion_tokens", "max_tokens"):
        limit = body.get(key)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            ends = [word.end() for word in islice(WORD.finditer(text), limit)]
            return text[: ends[-1]]
    return text


def _pieces(text: str) -> Iterator[str]:
    """The text in sentences and lines; joined they are the text."""
    start = 0
    for found in SENTENCE.finditer(text):
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:]
