"""Answers of every other provider, and all embeddings, through litellm's own client (`acompletion`, `aembedding`).

The general way is the slow one: litellm's stream wrapper costs 1 ms of CPU a chunk. A task of its own reads the answer,
because litellm's iterators do not survive a cancelled wait, which each tick of SILENCE is; closing cancels that task,
and with it the connection.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Self

import structlog

from conclave.gateway.call import SILENCE, Attempt, Chunk
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.alarm import Alarm
from conclave.gateway.experts.endpoint import Endpoint
from conclave.gateway.experts.litellm import request
from conclave.gateway.experts.litellm.chunks import ENCODE, Writer, plain
from conclave.gateway.experts.litellm.errors import exception_failure
from conclave.gateway.experts.litellm.runtime import Runtime
from conclave.gateway.experts.litellm.transport import ERRAND, Connect, Errand
from conclave.gateway.experts.openai_upstream import PLAIN_BYTES, VECTORS_BYTES
from conclave.gateway.prompt import Prompt

AHEAD: Final = 64  # chunks that are read before they are asked for

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, repr=False)  # holds the key
class Place:
    """Where litellm is to ask: its model name with the provider, and the keywords that the operator gave."""

    model: str
    api_key: str | None
    base_url: str | None
    params: Mapping[str, Any]
    drop: bool
    connect: Connect
    secrets: tuple[str, ...] = ()


class GeneralUpstream:
    """One answer. What the reading task finds comes through a queue; an exception in it is the answer's failure."""

    __slots__ = (
        "_alarm",
        "_at",
        "_begun",
        "_closed",
        "_deadline_s",
        "_found",
        "_over",
        "_place",
        "_prompt",
        "_reading",
        "_runtime",
        "_silent",
        "_since_s",
        "attempt",
    )

    def __init__(self, endpoint: Endpoint, place: Place, runtime: Runtime, prompt: Prompt, deadline_s: float) -> None:
        self._at = endpoint
        self._place = place
        self._runtime = runtime
        self._prompt = prompt
        self._deadline_s = deadline_s
        self._since_s = endpoint.now_s()
        self._alarm = Alarm(endpoint.now_s)
        self._found: asyncio.Queue[Chunk | ExpertFailed | None] = asyncio.Queue(AHEAD)
        self._reading: asyncio.Task[None] | None = None
        self._begun = self._closed = self._over = self._silent = False
        self.attempt = Attempt(endpoint.expert, self._since_s, deployment=endpoint.host, model=endpoint.model)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """The next chunk; SILENCE in a stream after a while without one. A plain answer is one chunk."""
        if self._over:
            raise StopAsyncIteration
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name=f"litellm-{self._at.expert}")
        elif self._begun and not self._silent:
            self._since_s = self._at.now_s()  # the time that the reader took for itself is not the expert's
        self._silent = False
        tick_at_s = self._at.now_s() + self._at.limits.silence_s
        while True:
            limit_s, kind = self._limit()
            until_s = min(limit_s, self._deadline_s)
            found = await self._alarm.until(min(until_s, tick_at_s), self._next)
            if found is not None:
                return self._taken(found)
            now_s = self._at.now_s()
            if self._closed:
                raise ExpertFailed("closed while it was waited for", kind="cut")
            if now_s >= self._deadline_s:
                self._hang_up()
                raise DeadlineExceeded("the call's time was up before the expert had answered")
            if now_s >= limit_s:
                raise self._fail(ExpertFailed("the expert took too long", kind=kind))
            if self._prompt.stream:
                self._silent = True
                return SILENCE
            tick_at_s = limit_s

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self.attempt.ended_s is None:
            self.attempt.ended_s = self._at.now_s()
        self._hang_up()

    async def _next(self) -> tuple[Chunk | ExpertFailed | None]:
        return (await self._found.get(),)

    def _taken(self, found: tuple[Chunk | ExpertFailed | None]) -> Chunk:
        (one,) = found
        self._since_s = self._at.now_s()
        match one:
            case None:
                self._over = True
                self._alarm.stop()
                self.attempt.ended_s = self._since_s
                raise StopAsyncIteration
            case ExpertFailed():
                raise self._fail(one)
        self._begun = True
        if self.attempt.first_byte_s is None:
            self.attempt.first_byte_s = self._since_s
            self.attempt.upstream_status = 200
        if not self._prompt.stream:
            self.attempt.ended_s = self._since_s
        return one

    def _fail(self, error: ExpertFailed) -> ExpertFailed:
        self.attempt.failure = error.kind
        if error.upstream_status is not None:
            self.attempt.upstream_status = error.upstream_status
        self.close()
        return error

    def _hang_up(self) -> None:
        self._over = True
        self._alarm.stop()
        if self._reading is not None:
            self._reading.cancel()

    def _limit(self) -> tuple[float, str]:
        limits = self._at.limits
        if self._begun:
            return self._since_s + limits.idle_s, "stalled"
        first_s = limits.first_byte_s if self._prompt.stream else limits.plain_s
        return self.attempt.started_s + first_s, "first_byte"

    async def _read(self) -> None:
        """The reading task: it ends with None or a failure in the queue, and leaves no connection open."""
        ended: ExpertFailed | None = None
        errand = self._errand()
        ERRAND.set(errand)  # in this task's context alone
        try:
            await self._ask(await self._runtime.litellm())
        except ExpertFailed as error:
            ended = error
        except Exception as error:  # noqa: BLE001  litellm raises whatever a provider's client raises
            ended = errand.failure or exception_failure(error, begun=self._begun, secrets=self._place.secrets)
            log.info("expert.failed", expert=self._at.expert, error=type(error).__name__, kind=ended.kind)
        await self._found.put(ended)

    def _errand(self) -> Errand:
        vectors = self._prompt.operation == "embeddings"
        most_bytes = None if self._prompt.stream else VECTORS_BYTES if vectors else PLAIN_BYTES
        return Errand(self._place.connect, self._prompt.headers, most_bytes)

    async def _ask(self, litellm: Any) -> None:
        keywords, found = self._keywords(litellm), self._found
        if self._prompt.operation == "embeddings":
            await found.put(_listed(await litellm.aembedding(**keywords)))
            return
        answer = await litellm.acompletion(**keywords)
        if not self._prompt.stream:
            await found.put(plain(answer, answer_id=answer.id))
            return
        writer: Writer | None = None
        async with aclosing(answer):
            async for event in answer:
                if writer is None:
                    model = str(event.model or self._at.model)
                    writer = Writer(str(event.id), model, created=int(self._at.wall_s()))
                for chunk in writer.parsed(event, finishes=True):
                    await found.put(chunk)

    def _keywords(self, litellm: Any) -> dict[str, Any]:
        """What litellm is asked with. Raises ExpertFailed for what the provider cannot do."""
        place, body = self._place, request.copied(self._prompt.body)
        try:
            model, provider, _, _ = litellm.get_llm_provider(place.model, api_base=place.base_url)
        except Exception as error:  # its own kinds and a ValueError
            raise ExpertFailed("litellm knows no provider of this expert's model", kind="connect") from error
        keywords: dict[str, Any] = {
            "model": place.model,
            "api_key": place.api_key,
            "api_base": place.base_url,
            "num_retries": 0,
            "max_retries": 0,
        }
        match self._prompt.operation:
            case "chat":
                known = litellm.get_supported_openai_params(model=model, custom_llm_provider=provider) or ()
                said = request.messages(body, fetches=("https",) if provider == "azure" else ())
                keywords["messages"] = said
                allowed = (set(known) & request.PARAMETERS) | {"top_k"}
                if self._prompt.stream:
                    keywords |= {"stream": True, "stream_options": {"include_usage": True}}
            case "embeddings":
                keywords["input"] = body.get("input")
                allowed = set(request.EMBEDDING)
            case other:
                raise ExpertFailed(f"this expert's provider has no {other}", kind="rejected", code="unsupported")
        asked = request.parameters(body, allowed, defaults=place.params, drop=place.drop)
        return asked | {name: value for name, value in keywords.items() if value is not None}


def _listed(answer: Any) -> Chunk:
    """Vectors as OpenAI lists them."""
    fields = answer.model_dump(exclude_none=True, warnings=False)
    listed = {"object": "list", "data": fields.get("data", []), "model": fields.get("model")}
    return Chunk(ENCODE({**listed, "usage": fields.get("usage") or {"prompt_tokens": 0, "total_tokens": 0}}))
