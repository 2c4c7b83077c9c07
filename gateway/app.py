"""The gateway put together: `create_app(settings)` builds, the lifespan opens and closes. Read pipeline.py first.

Nothing is opened, loaded or started at import or by `create_app`; heavy parts are imported inside the lifespan.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from conclave.gateway.admin.app import create_admin_app
from conclave.gateway.api import chat, headers, health
from conclave.gateway.api.models import list_models
from conclave.gateway.api.respond import Respond, head_of
from conclave.gateway.errors import ConclaveError, Refused
from conclave.gateway.replica import Replica, open_replica
from conclave.gateway.settings import Settings
from conclave.gateway.telemetry.spans import native

CHAT: Final = "/v1/chat/completions"


class Door(FastAPI):
    """FastAPI, but the hot path goes straight to its endpoint: six layers of middleware cost a tenth of a call.

    With `spans` it does not, because FastAPI's own telemetry is one of the layers.
    """

    def __init__(self, chat: ASGIApp, *, spans: bool, lifespan: Lifespan["Door"]) -> None:
        super().__init__(
            title="Conclave",
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            telemetry=native(enabled=spans),
        )
        self._chat = None if spans else chat
        self.router.routes.append(Route(CHAT, chat, methods=["POST"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._chat is not None and scope["type"] == "http" and scope["path"] == CHAT and scope["method"] == "POST":
            await self._chat(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings) -> FastAPI:
    """The data plane (`/v1/*`, `/livez`, `/readyz`).

    Once its lifespan has begun, `app.state.admin` is the control plane's app and `app.state.draining` may be set to
    True to fail `/readyz`. Raises nothing; the lifespan raises what hinders the start.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_replica(settings) as opened:
            app.state.replica = opened
            app.state.admin = create_admin_app(checks, opened.registry)
            yield

    def replica() -> Replica:
        return app.state.replica  # type: ignore[no-any-return]  # set by the lifespan

    def checks() -> dict[str, str]:
        return {**replica().checks(), "serving": "draining" if app.state.draining else "ok"}

    async def models(request: Request) -> JSONResponse:
        return JSONResponse(await list_models(replica().pipeline, head_of(request.scope)))

    endpoint = Respond(lambda: replica().pipeline, chat.parse)
    app = Door(endpoint, spans=settings.server.telemetry.spans, lifespan=lifespan)
    app.state.draining = False
    app.add_api_route("/v1/models", models, methods=["GET"], response_model=None)
    app.include_router(health.routes(checks))
    app.add_exception_handler(ConclaveError, _refused)
    app.add_exception_handler(HTTPException, _not_served)
    return app


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """The envelope for endpoints that FastAPI serves."""
    assert isinstance(error, ConclaveError)  # noqa: S101  as registered
    about = {name.decode(): value.decode() for name, value in headers.error_headers(error)}
    return JSONResponse(error.envelope(), error.status, about)


async def _not_served(request: Request, error: Exception) -> JSONResponse:
    """Unknown paths and wrong methods, in the same envelope."""
    assert isinstance(error, HTTPException)  # noqa: S101  as registered
    words = Refused(f"{request.method} {request.url.path[:100]}: {error.detail}", code="not_found")
    return JSONResponse(words.envelope(), error.status_code, {**(error.headers or {}), "x-should-retry": "false"})
