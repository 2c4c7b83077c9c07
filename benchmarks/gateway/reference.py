"""The reference F: the least that one would write with FastAPI and aiohttp: key check, JSON parse, pass-through.

Conclave's numbers are given as multiples of it. It decides only whether the key is right; it never looks at an answer.

    UPSTREAM_URL=http://127.0.0.1:9100/v1 API_KEY=... python -m uvicorn --loop uvloop --http httptools \
        --no-access-log --port 9101 --factory benchmarks.gateway.reference:create_app
"""

import hmac
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse


def create_app() -> FastAPI:
    """F, set up by the environment: UPSTREAM_URL and API_KEY."""
    url = os.environ["UPSTREAM_URL"] + "/chat/completions"
    key = f"Bearer {os.environ['API_KEY']}".encode()
    session: aiohttp.ClientSession

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        nonlocal session
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), key):
            return JSONResponse({"error": {"message": "wrong key"}}, status_code=401)
        body = await request.body()
        try:
            asked = json.loads(body)
        except ValueError:
            return JSONResponse({"error": {"message": "not JSON"}}, status_code=400)
        upstream = await session.post(url, data=body, headers={"content-type": "application/json"})
        if asked.get("stream"):
            return StreamingResponse(_relay(upstream), status_code=upstream.status, media_type="text/event-stream")
        async with upstream:
            return Response(await upstream.read(), status_code=upstream.status, media_type="application/json")

    return app


async def _relay(upstream: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    async with upstream:
        async for data in upstream.content.iter_any():
            yield data
