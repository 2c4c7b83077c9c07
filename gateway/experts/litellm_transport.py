"""How litellm's own clients reach a provider: over the gateway's sessions, under the gateway's rules.

litellm makes all its asynchronous clients from one factory; here that is one that asks the gateway for a session for
each request, redirects included. So the allow-list, the proxy and the CA of `server.egress` hold for every provider,
and no proxy is taken from the environment. After some of httpx's errors litellm asks again by itself; the pool does
that, so here they become another.
"""

from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from aiohttp import ClientSession

Connect: TypeAlias = "Callable[[str], Callable[[], ClientSession]]"  # raises OSError for an address not allowed

CONNECT: Final[ContextVar[Connect]] = ContextVar(
    "connect"
)  # set by the task that asks; litellm's clients outlive calls


def install(litellm: ModuleType) -> None:
    """From now on, every asynchronous client of litellm's."""
    import httpx  # noqa: PLC0415  litellm brings it

    direct = litellm.llms.custom_httpx.aiohttp_transport.LiteLLMAiohttpTransport
    handler = litellm.llms.custom_httpx.http_handler.AsyncHTTPHandler

    class Ours(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            connect = CONNECT.get(None)
            if connect is None:
                raise httpx.NetworkError("no call of the gateway's", request=request)
            try:
                session = connect(str(request.url))
                answer: httpx.Response = await direct(client=session).handle_async_request(request)
            except (OSError, httpx.ConnectError, httpx.RemoteProtocolError) as error:
                raise httpx.NetworkError("the provider could not be reached", request=request) from error
            return answer

    def ours(*_: Any, **__: Any) -> Ours:
        return Ours()

    def no_mounts(*_: Any, **__: Any) -> dict[str, Any]:
        return {}

    handler.create_async_transport = handler._create_async_transport = staticmethod(ours)
    handler.create_httpx_proxy_mounts = staticmethod(no_mounts)
    litellm.disable_aiohttp_trust_env = True  # type: ignore[attr-defined]  # a module is what it is given
    litellm.in_memory_llm_clients_cache.flush_cache()
