"""The second reference: bare ASGI and aiohttp, no framework, no key, no parsing. What uvicorn itself costs.

    UPSTREAM_URL=http://127.0.0.1:9100/v1 python -m uvicorn --loop uvloop --http httptools \
        --no-access-log --port 9102 --factory benchmarks.gateway.bare:Relay
"""

import os
from typing import Any

import aiohttp
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable


class Relay:
    """An ASGI application that hands every POST to the upstream, chunk by chunk."""

    def __init__(self) -> None:
        self._url = os.environ["UPSTREAM_URL"] + "/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["method"] == "POST":
            await self._pass(receive, send)
        else:
            await _start(send, 200, b"text/plain")
            await send({"type": "http.response.body", "body": b"ready", "more_body": False})

    async def _live(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self._session:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _pass(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert self._session is not None  # noqa: S101  for mypy: lifespan has begun
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body, more = body + message["body"], message["more_body"]
        async with self._session.post(self._url, data=body, headers={"content-type": "application/json"}) as upstream:
            await _start(send, upstream.status, upstream.headers["content-type"].encode())
            async for data in upstream.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _start(send: ASGISendCallable, status: int, content_type: bytes) -> None:
    headers = [(b"content-type", content_type)]
    await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": False})
