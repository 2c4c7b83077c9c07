"""An expert behind any OpenAI-compatible server: `POST {base_url}/chat/completions`, `/embeddings` and the like.

Decides what is sent and over which connections: no proxy from the environment, no cookies, no redirect followed (a
server must not choose whom we talk to), no compression (a small answer must not unfold into a large one). What comes
back is read by `openai_upstream`. aiohttp is imported when the first expert is made, not with this module.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from conclave.gateway.experts.api import Upstream
from conclave.gateway.experts.egress import Egress, check_url, guarded
from conclave.gateway.experts.endpoint import CONNECT_S, Endpoint, Lingering, TimeLimits
from conclave.gateway.prompt import Prompt

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from aiohttp.abc import AbstractResolver

__all__ = ["HttpSessions", "OpenAIExpert", "TimeLimits"]

KEEP_ALIVE_S: Final = 30.0  # below the idle limits of common servers and load balancers (60 s)
DNS_CACHE_S: Final = 60


class HttpSessions:
    """The client sessions of each event loop, made on first use: one that connects, and one through the proxy.

    Whoever makes it closes it.
    """

    def __init__(
        self,
        *,
        connect_s: float = CONNECT_S,
        egress: Egress | None = None,
        resolver: "AbstractResolver | None" = None,
    ) -> None:
        self._connect_s = connect_s
        self._resolver = resolver
        self._egress = egress or Egress()
        self._tls = self._egress.tls()
        self._sessions: dict[tuple[asyncio.AbstractEventLoop, str | None], ClientSession] = {}

    def to(self, url: str) -> "Callable[[], ClientSession]":
        """What gives the session for a server. Raises Refused if it is at an address that is not allowed."""
        check_url(url, self._egress.allowed)
        return partial(self.get, self._egress.proxy_for(url))

    def get(self, proxy: str | None = None) -> "ClientSession":
        """The session of the running loop."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get((loop, proxy))
        if session is None or session.closed:
            session = self._sessions[loop, proxy] = self._make(proxy)
        return session

    async def aclose(self) -> None:
        """Close the running loop's connections, those in use too. The next `get` would begin anew."""
        loop = asyncio.get_running_loop()
        for session in [self._sessions.pop(key) for key in tuple(self._sessions) if key[0] is loop]:
            await session.close()

    def _make(self, proxy: str | None) -> "ClientSession":
        import aiohttp  # noqa: PLC0415  0.2 s that a gateway without HTTP experts does not pay

        connector = aiohttp.TCPConnector(
            limit=0,  # file descriptors are the bound: a call that waited for a connection here would look like an
            limit_per_host=0,  # expert that does not answer, and open the breaker of a healthy one
            keepalive_timeout=KEEP_ALIVE_S,
            ttl_dns_cache=DNS_CACHE_S,
            resolver=guarded(self._egress.allowed, self._resolver)
            if proxy is None
            else None,  # the proxy's place is the operator's word
            ssl=self._tls or True,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._connect_s
            ),  # the rest is timed by the upstream
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            proxy=proxy,
        )


class OpenAIExpert:
    """One model of one server. `base_url` ends before `/chat/completions`, as in the OpenAI SDKs.

    `session` gives the client session to use (`HttpSessions.get`, shared by many experts and closed by its owner);
    without it the expert has its own. `stream_usage` off is for servers that refuse `stream_options`.
    """

    def __init__(  # noqa: PLR0913  settings of one deployment, all keyword-only but the first three
        self,
        name: str,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        session: "Callable[[], ClientSession] | None" = None,
        limits: TimeLimits | None = None,
        stream_usage: bool = True,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        from conclave.gateway.experts import openai_upstream  # noqa: PLC0415  see above

        limits = limits or TimeLimits()
        self.name = name
        self._own: HttpSessions | None = None
        if session is None:
            self._own = HttpSessions(connect_s=limits.connect_s)
            session = self._own.get
        self._plain, self._stream = openai_upstream.PlainUpstream, openai_upstream.StreamUpstream
        self._endpoint = Endpoint(
            expert=name,
            host=_host(base_url),
            url=base_url.rstrip("/"),
            model=model,
            api_key=api_key,
            headers=_headers(api_key),
            session=session,
            limits=limits,
            stream_usage=stream_usage,
            lingering=Lingering(limits.linger_s),
            now_s=now_s,
            wall_s=wall_s,
        )

    def open(self, prompt: Prompt, *, deadline_s: float) -> Upstream:
        """Nothing is sent before the first `__anext__`."""
        return (self._stream if prompt.stream else self._plain)(self._endpoint, prompt, deadline_s)

    async def aclose(self) -> None:
        self._endpoint.lingering.close()
        if self._own is not None:
            await self._own.aclose()


def _host(base_url: str) -> str:
    """`host:port`, a label for records. Raises ValueError for what is no address of a server."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url must be http://host[:port][/path] or https://host[:port][/path]")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("base_url must not carry credentials, a query or a fragment; the key has its own setting")
    return parts.netloc


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "conclave-gateway",
    }
    if api_key is not None:
        if not api_key.isascii() or not api_key.isprintable() or not api_key:
            raise ValueError("api_key must be printable ASCII")
        headers["Authorization"] = f"Bearer {api_key}"
    return headers
