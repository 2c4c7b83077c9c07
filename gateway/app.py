"""The gateway put together: `create_app(settings)` builds, the lifespan opens and closes. Read pipeline.py first.

Nothing is opened, loaded or started at import or by `create_app`; heavy parts are imported inside the lifespan.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from conclave.gateway.access.room import Room
from conclave.gateway.admin.app import create_admin_app
from conclave.gateway.api import chat, completions, embeddings, headers, health, moderations, openapi
from conclave.gateway.api.cors import Cors
from conclave.gateway.api.feedback import Feedback
from conclave.gateway.api.front import Front
from conclave.gateway.api.models import Models
from conclave.gateway.api.respond import Parse, Render, Respond, head_of
from conclave.gateway.api.turnstile import Turnstile
from conclave.gateway.errors import ConclaveError, Forbidden, InternalError, Refused
from conclave.gateway.replica import Replica, open_replica
from conclave.gateway.settings import Settings
from conclave.gateway.telemetry import names
from conclave.gateway.telemetry.live import Live, Values
from conclave.gateway.telemetry.native import Tracers, native

NOT_FOUND: Final = 404
METHOD_NOT_ALLOWED: Final = 405
CALLS: Final[Mapping[str, tuple[Parse, Render | None]]] = {  # each dialect's path, and how it is read and written
    "/v1/chat/completions": (chat.parse, None),
    "/v1/completions": (completions.parse, completions.as_text),
    "/v1/embeddings": (embeddings.parse, None),
    "/v1/moderations": (moderations.parse, None),
}

log = structlog.get_logger()


class Door(FastAPI):
    """FastAPI, but `calls` go straight to their endpoints: middleware wraps each chunk that is sent.

    Measured: 50-chunk streams, 16 at once, cost 1.2 to 1.4 times as much CPU through it; plain calls the same. With
    `tracers` the calls do go through, because FastAPI's own telemetry is one of the layers.
    """

    def __init__(
        self, calls: Mapping[str, ASGIApp], *, tracers: Tracers | None, cors: Cors, lifespan: Lifespan["Door"]
    ) -> None:
        super().__init__(
            title="Conclave",
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            telemetry=native(tracers, served=lambda path: path in calls),
        )
        self._calls = {} if tracers is not None else calls
        self._cors = cors
        self.router.routes += [Route(path, endpoint, methods=["POST"]) for path, endpoint in calls.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._calls:
            await self._calls[scope["path"]](scope, receive, send)
            return
        if self._cors and scope["type"] == "http" and scope["path"].startswith("/v1/"):
            origin, asked = _cross_origin(scope)
            if origin is not None and asked:
                await _preflight(scope, receive, send, self._cors.preflight(origin, asked[-1]))
                return
            send = _readable(send, self._cors.headers(origin))
        try:
            await super().__call__(scope, receive, send)
        except Exception:
            if scope["type"] != "http":
                raise  # of a request: `_broke` has answered and logged it, Starlette raises it for servers that log


def create_app(settings: Settings) -> FastAPI:
    """The data plane (`/v1/*`, `/livez`, `/readyz`).

    Once its lifespan has begun, `app.state.admin` is the control plane's app and `app.state.draining` may be set to
    True to fail `/readyz`. Raises nothing; the lifespan raises what hinders the start.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_replica(settings, front.room) as opened:
            app.state.replica = opened
            if tracers is not None:
                tracers.provider = opened.tracers
            app.state.admin = create_admin_app(checks, opened.registry)
            Live(opened.registry, _front_metrics(front.room, app))
            yield

    def replica() -> Replica:
        return app.state.replica  # type: ignore[no-any-return]  # set by the lifespan

    def checks() -> dict[str, str]:
        return {**replica().checks(), "serving": "draining" if app.state.draining else "ok"}

    def of(request: Request) -> Models:
        opened = replica()
        head = head_of(request.scope, front.proxies)
        return Models(opened.pipeline, opened.recorder, head, request_id=_id(request))

    async def models(request: Request) -> JSONResponse:
        return await of(request).all()

    async def model(request: Request) -> JSONResponse:
        name = request.path_params["model"]
        return await (of(request).kept(name) if request.method == "DELETE" else of(request).one(name))

    async def feedback(request: Request) -> JSONResponse:
        head = head_of(request.scope, front.proxies)
        opened = replica()
        taken = Feedback(opened.pipeline, opened.recorder, opened.calls, head, request_id=_id(request))
        return await taken.take(request)

    async def described(request: Request) -> Response:
        about = headers.as_text(headers.request_headers(_id(request)))
        return Response(openapi.document(), media_type="application/json", headers=about)

    front = Front.of(settings.server)
    tracers = Tracers() if front.spans else None
    calls = {
        path: Respond(lambda: replica().pipeline, parse, front, render=render)
        for path, (parse, render) in CALLS.items()
    }
    app = Door(calls, tracers=tracers, cors=front.cors, lifespan=lifespan)
    app.state.draining = False
    if tracers is None:  # else each request has a span, and goes the whole way
        app.state.turnstile = Turnstile(lambda: replica().pipeline.access, front, calls)
    app.add_api_route("/v1/models", models, methods=["GET"], response_model=None)
    app.add_api_route("/v1/models/{model:path}", model, methods=["GET", "DELETE"], response_model=None)
    app.add_api_route("/v1/feedback", feedback, methods=["POST"], response_model=None)
    app.add_api_route("/openapi.json", described, methods=["GET"], response_model=None)
    app.include_router(health.routes(checks))
    app.add_exception_handler(ConclaveError, _refused)
    app.add_exception_handler(HTTPException, _not_served)
    app.add_exception_handler(Exception, _broke)
    return app


def _front_metrics(room: Room, app: FastAPI) -> Values:
    """What `/metrics` says of the door itself."""
    return {
        names.IN_WORK: lambda: room.in_work,
        names.QUEUED: lambda: room.queued,
        names.OVERLOADED: lambda: room.refused,
        names.LOOP_LAG: lambda: room.lag_s,
        names.DRAINING: lambda: float(app.state.draining),
    }


def _cross_origin(scope: Scope) -> tuple[str | None, list[bytes | None]]:
    """The page's origin; for a preflight also, as the one item of a list, which headers it asks to send."""
    found = dict(scope["headers"])
    origin = found.get(b"origin")
    asks = scope["method"] == "OPTIONS" and b"access-control-request-method" in found
    return (
        origin.decode("latin-1") if origin is not None else None,
        [found.get(b"access-control-request-headers")] if asks else [],
    )


async def _preflight(scope: Scope, receive: Receive, send: Send, leave: headers.Headers | None) -> None:
    """What a browser asks before a page's call: no key comes with it, and nothing is served by it."""
    about = headers.request_headers(headers.new_id())
    if leave is not None:
        await Response(status_code=204, headers=headers.as_text(about + leave))(scope, receive, send)
        return
    error = Forbidden("pages of this origin may not use the API; server.cors.origins lists those that may")
    about += [*headers.error_headers(error), (b"vary", b"origin")]
    await JSONResponse(error.envelope(), error.status, headers.as_text(about))(scope, receive, send)


def _readable(send: Send, more: headers.Headers) -> Send:
    """`send`, with what lets a page read the answer; `Respond` says it itself."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            about = message.get("headers", ())
            said = {name for name, _ in about}
            message = {**message, "headers": [*about, *(one for one in more if one[0] not in said)]}
        await send(message)

    return sending


def _id(request: Request) -> str:
    """The request's id, made when it is first asked for."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = headers.new_id()
    return str(request.state.request_id)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """The envelope for endpoints that FastAPI serves."""
    assert isinstance(error, ConclaveError)  # noqa: S101  as registered
    return _enveloped(request, error, error.status)


async def _not_served(request: Request, error: Exception) -> JSONResponse:
    """Unknown paths and wrong methods, in the same envelope."""
    assert isinstance(error, HTTPException)  # noqa: S101  as registered
    code = "method_not_allowed" if error.status_code == METHOD_NOT_ALLOWED else "not_found"
    where = _elsewhere(request.url.path.rstrip("/")) if error.status_code == NOT_FOUND else ""
    words = Refused(f"{request.method} {request.url.path[:100]}: {error.detail}{where}", code=code)
    answer = _enveloped(request, words, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


def _elsewhere(path: str) -> str:
    """What to ask in place of a path that is not here: most often a client's base_url lacks its `/v1`."""
    if path == "/metrics":
        return "; metrics are on the admin port (server.admin_port)"
    if f"/v1{path}" in {*CALLS, "/v1/models", "/v1/feedback"}:
        return f"; it is at /v1{path}: a client's base_url ends with /v1"
    return "; /openapi.json lists what is served"


async def _broke(request: Request, _: Exception) -> JSONResponse:
    """A bug of ours in an endpoint that FastAPI serves; `Respond` sees to its own."""
    log.exception("request.broke", request_id=_id(request))
    words = InternalError("an error of the gateway's own; its log has it under the request id")
    return _enveloped(request, words, words.status)


def _enveloped(request: Request, error: ConclaveError, status: int) -> JSONResponse:
    about = headers.request_headers(_id(request)) + headers.error_headers(error)
    return JSONResponse(error.envelope(), status, headers.as_text(about))
