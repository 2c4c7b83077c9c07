"""How litellm's own clients reach a provider: over the gateway's sessions, under the gateway's rules.

litellm makes all its asynchronous clients from one factory; here that is one that asks the gateway for a session for
each request, redirects included. So the allow-list, the proxy and the CA of `server.egress` hold for every provider,
and no proxy is taken from the environment. After some of httpx's errors litellm asks again by itself; the pool does
that, so here they become another.

An answer comes uncompressed and within its limit, or not at all. What was wrong with it is left in the call's Errand:
litellm makes something else of each exception.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.openai_upstream import ERROR_BYTES
from conclave.gateway.experts.sse import EVENT_BYTES

if TYPE_CHECKING:
    from aiohttp import ClientSession

Connect: TypeAlias = "Callable[[str], Callable[[], ClientSession]]"  # raises OSError for an address not allowed

OK: Final = range(200, 300)
CODING: Final = "content-encoding"


@dataclass(slots=True)
class Errand:
    """What the transport has to know of a call, and what it found wrong with the answer.

    `most_bytes` is the size of a plain answer; a stream has no limit but that of its events.
    """

    connect: Connect
    headers: Mapping[str, str]
    most_bytes: int | None
    failure: ExpertFailed | None = None

    def fail(self, words: str) -> ExpertFailed:
        self.failure = ExpertFailed(words, kind="malformed")
        return self.failure


ERRAND: Final[ContextVar[Errand]] = ContextVar("errand")  # set by the task that asks; litellm's clients outlive calls


class Meter:
    """Counts the bytes of an answer's body."""

    __slots__ = ("_errand", "_size")

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._size = 0

    def count(self, data: bytes) -> None:
        """Raises ExpertFailed beyond the limit. A line is all that anybody keeps of a stream, so each has the limit."""
        most_bytes = self._errand.most_bytes
        if most_bytes is None:
            end = data.rfind(b"\n")
            self._size = self._size + len(data) if end < 0 else len(data) - end - 1
            if self._size > EVENT_BYTES:
                raise self._errand.fail("the expert sent an event without an end")
            return
        self._size += len(data)
        if self._size > most_bytes:
            raise self._errand.fail("the expert's answer is too large")


def install(litellm: ModuleType) -> None:
    """From now on, every asynchronous client of litellm's."""
    import httpx  # noqa: PLC0415  litellm brings it

    direct = litellm.llms.custom_httpx.aiohttp_transport.LiteLLMAiohttpTransport
    handler = litellm.llms.custom_httpx.http_handler.AsyncHTTPHandler

    class Metered(httpx.AsyncByteStream):
        def __init__(self, body: httpx.AsyncByteStream, errand: Errand, request: httpx.Request) -> None:
            self._body, self._meter, self._request = body, Meter(errand), request

        def __aiter__(self) -> AsyncIterator[bytes]:
            self._pieces = aiter(self._body)
            return self

        async def __anext__(self) -> bytes:
            data = await anext(self._pieces)
            try:
                self._meter.count(data)
            except ExpertFailed as error:
                await self.aclose()
                raise httpx.NetworkError(error.message, request=self._request) from error
            return data

        async def aclose(self) -> None:
            await self._body.aclose()

    class Ours(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            errand = ERRAND.get(None)
            if errand is None:
                raise httpx.NetworkError("no call of the gateway's", request=request)
            request.headers["accept-encoding"] = "identity"  # a small answer must not unfold into a large one
            request.headers.update(errand.headers)  # litellm passes headers on for some providers only
            try:
                session = errand.connect(str(request.url))
                # the upstream's alarm times all but this, which says of a failure that it is the network's
                timeout = {"connect": session().timeout.sock_connect, "read": None, "write": None, "pool": None}
                request.extensions = {**request.extensions, "timeout": timeout}
                answer: httpx.Response = await direct(client=session).handle_async_request(request)
            except (OSError, httpx.ConnectError, httpx.ConnectTimeout, httpx.RemoteProtocolError) as error:
                raise httpx.NetworkError("the provider could not be reached", request=request) from error
            if answer.status_code not in OK:
                return await refusal(answer)
            if answer.headers.get(CODING, "identity") != "identity":
                await answer.stream.aclose()  # type: ignore[union-attr]  # the transport is asynchronous
                raise httpx.NetworkError(errand.fail("the expert compressed its answer, unasked").message)
            answer.stream = Metered(answer.stream, errand, request)  # type: ignore[arg-type]  # as above
            return answer

    async def refusal(answer: httpx.Response) -> httpx.Response:
        """Its status and headers, and as much of its words as anybody reads; none if they are compressed."""
        words = b""
        if CODING not in answer.headers:
            async for data in answer.stream:  # type: ignore[union-attr]  # as above
                words += data
                if len(words) > ERROR_BYTES:
                    break
        await answer.stream.aclose()  # type: ignore[union-attr]  # as above
        dropped = (CODING, "content-length", "transfer-encoding")
        headers = [(name, value) for name, value in answer.headers.multi_items() if name.lower() not in dropped]
        return httpx.Response(answer.status_code, headers=headers, content=words[:ERROR_BYTES])

    def ours(*_: Any, **__: Any) -> Ours:
        return Ours()

    def no_mounts(*_: Any, **__: Any) -> dict[str, Any]:
        return {}

    handler.create_async_transport = handler._create_async_transport = staticmethod(ours)
    handler.create_httpx_proxy_mounts = staticmethod(no_mounts)
    litellm.disable_aiohttp_trust_env = True  # type: ignore[attr-defined]  # a module is what it is given
    litellm.in_memory_llm_clients_cache.flush_cache()
