"""Answers of providers whose format we speak ourselves (`dialect`), over the gateway's own connections.

Everything about time, silence, failing, closing and reuse of connections is as for an OpenAI-compatible server
(`openai_upstream`); what differs is how the question is put, and that each event is translated.
"""

import asyncio
import io
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from conclave.gateway.call import Chunk
from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.endpoint import Endpoint
from conclave.gateway.experts.litellm.chunks import ENCODE
from conclave.gateway.experts.litellm.dialect import Dialect, Question
from conclave.gateway.experts.litellm.errors import exception_failure, provider_failure
from conclave.gateway.experts.litellm.runtime import Runtime
from conclave.gateway.experts.openai_upstream import LARGE_BYTES, PlainUpstream, StreamUpstream, _Upstream
from conclave.gateway.prompt import Prompt

if TYPE_CHECKING:
    from aiohttp import ClientResponse

T = TypeVar("T")

UNREADABLE: Final = Chunk(b"")  # stands for an event that nobody understands: `Reply` passes over a few of these
IN_TURN_CHARS: Final = 64 * 1024  # a request up to this is translated within a millisecond

log = structlog.get_logger()


class Asking:
    """Puts one question in a dialect; made anew for each call."""

    __slots__ = ("_at", "_dialect", "_prompt", "_question", "_runtime")

    def __init__(self, endpoint: Endpoint, dialect: Dialect, runtime: Runtime, prompt: Prompt) -> None:
        self._at = endpoint
        self._dialect = dialect
        self._runtime = runtime
        self._prompt = prompt
        self._question: Question | None = None

    async def post(self) -> "ClientResponse":
        """Ask. Raises ExpertFailed for what the provider cannot be asked, and what aiohttp raises."""
        litellm = await self._runtime.litellm()

        def translated() -> tuple[Question, bytes]:
            question = self._dialect.question(litellm, self._prompt, created=int(self._at.wall_s()))
            return question, ENCODE(question.body)

        try:
            large = _chars(self._prompt.body) > IN_TURN_CHARS
            question, body = await asyncio.to_thread(translated) if large else translated()
        except ExpertFailed:
            raise
        except Exception as error:  # noqa: BLE001  litellm raises whatever it stumbled over
            log.info("expert.untranslatable", expert=self._at.expert, error=type(error).__name__)
            raise _said(exception_failure(error, begun=False, secrets=self._secrets())) from None
        self._question = question
        return await self._at.session().post(
            question.url,
            data=body if len(body) < LARGE_BYTES else io.BytesIO(body),
            headers=_headers(self._at.headers, question.headers, self._prompt.headers),
            allow_redirects=False,
        )

    def read(self, payload: bytes) -> "tuple[Chunk, ...]":
        """The chunks of one event. Raises ExpertFailed for an error, and for what nobody understands."""
        assert self._question is not None  # noqa: S101  for mypy: there is no event before the question
        return tuple(self._understood(self._question.reader.read, payload))

    def whole(self, body: bytes) -> Chunk:
        """The chunk of a plain answer. Raises as `read` does."""
        assert self._question is not None  # noqa: S101  for mypy, as above
        return self._understood(self._question.whole, body)

    @property
    def over(self) -> bool:
        return self._question is not None and self._question.reader.over

    def refusal(self, response: "ClientResponse", words: bytes) -> ExpertFailed:
        return provider_failure(
            response.status, response.headers, words, wall_s=self._at.wall_s(), api_key=self._at.api_key
        )

    def _understood(self, read: Callable[[bytes], T], data: bytes) -> T:
        try:
            return read(data)
        except ExpertFailed:
            raise
        except Exception as error:  # noqa: BLE001  an event of a shape that litellm does not expect
            log.warning("expert.unreadable", expert=self._at.expert, error=type(error).__name__)
            raise ExpertFailed("the expert sent something that cannot be read", kind="malformed") from None

    def _secrets(self) -> tuple[str, ...]:
        return (self._at.api_key,) if self._at.api_key else ()


class _Direct(_Upstream):
    """What differs from an OpenAI-compatible server, plain or streamed."""

    __slots__ = ()
    _asking: Asking  # a slot of each kind's own: two bases with slots would not fit together

    async def _post(self) -> "ClientResponse":
        return await self._asking.post()

    async def _wait(self, wait: Callable[[], Awaitable[T]], *, tick_at_s: float = math.inf) -> T | None:
        try:
            return await super()._wait(wait, tick_at_s=tick_at_s)
        except ExpertFailed as error:  # of the translation, too
            raise error if self._closed else self._fail(error) from None

    async def _accept(self, response: "ClientResponse") -> None:
        if response.status == 200:  # noqa: PLR2004  nothing else comes with an answer
            await super()._accept(response)
            return
        self._response, self.attempt.upstream_status = response, response.status
        raise self._fail(self._asking.refusal(response, await self._words(response)))


class DirectPlain(_Direct, PlainUpstream):
    """One chunk: the whole answer as a chat.completion."""

    __slots__ = ("_asking",)

    def __init__(self, endpoint: Endpoint, prompt: Prompt, deadline_s: float, asking: Asking) -> None:
        super().__init__(endpoint, prompt, deadline_s)
        self._asking = asking

    async def __anext__(self) -> Chunk:
        if self._over:
            raise StopAsyncIteration
        self._check_limits()
        response = await self._wait(self._post)
        assert response is not None  # noqa: S101  for mypy: there is no tick
        await self._accept(response)
        try:
            chunk = self._asking.whole(await self._whole(response))
        except ExpertFailed as error:
            raise error if self._closed else self._fail(error) from None
        self._finish()
        return chunk


class DirectStream(_Direct, StreamUpstream):
    """Each event translated; the provider's own sign of the end stands for `[DONE]`."""

    __slots__ = ("_asking",)

    def __init__(self, endpoint: Endpoint, prompt: Prompt, deadline_s: float, asking: Asking) -> None:
        super().__init__(endpoint, prompt, deadline_s)
        self._asking = asking

    def _take(self, data: bytes) -> None:
        if not data:
            self._take_end()
            return
        try:
            payloads = self._splitter.feed(data)
            self._since_s = self._at.now_s()  # a ping has no chunk, but the expert is alive
            for payload in payloads:
                self._read(payload)
                if self._asking.over:
                    self._let_go()
                    return
        except ExpertFailed as error:
            self._failure = error

    def _read(self, payload: bytes) -> None:
        """The chunks of one event. Raises ExpertFailed for an error event; others, `Reply` judges."""
        try:
            chunks = self._asking.read(payload)
        except ExpertFailed as error:
            if error.kind != "malformed":
                raise
            self._ready.append(UNREADABLE)
            return
        for chunk in chunks:
            self._before, self._last = self._last, chunk
            self._ready.append(chunk)


def _headers(*layers: Mapping[str, str]) -> dict[str, str]:
    """Later ones win, whatever the case of their names."""
    return {name.lower(): value for layer in layers for name, value in layer.items()}


def _chars(body: Mapping[str, object]) -> int:
    """Roughly how large a request is, without walking it: the texts of its messages."""
    messages = body.get("messages")
    return (
        sum(len(str(one.get("content"))) for one in messages if isinstance(one, dict))
        if isinstance(messages, list)
        else 0
    )


def _said(failure: ExpertFailed) -> ExpertFailed:
    """A failure of the translation is the request's, not the provider's: another expert may take it."""
    if failure.kind in ("rejected", "malformed"):
        words = failure.message if failure.kind == "rejected" else "the request cannot be put in this provider's format"
        return ExpertFailed(words, kind="rejected", param=failure.param, code=failure.code)
    return failure
