"""The local expert's own door: OpenAI's `/v1/chat/completions` and `/v1/models`, `/health` and `/metrics`.

It reads requests, drives one call of the engine each and watches its client: one that leaves ends its call. It is a
process of its own, so that heavy work shares no event loop with the gateway, and imports nothing of it.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from conclave.moe.answers import Shape, event
from conclave.moe.engine import Engine
from conclave.moe.errors import (
    ExpertError,
    InternalError,
    NotAllowed,
    NotFound,
    RequestTimeout,
    TooLarge,
    Unauthenticated,
    UnknownModel,
    where,
)
from conclave.moe.handoff import End, Handoff, Piece
from conclave.moe.metrics import Numbers
from conclave.moe.requests import Ask, read

BODY_BYTES: Final = 4 * 1024 * 1024  # more text than any context that is served here
BODY_S: Final = 30.0
STREAM: Final = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
JSON: Final = {"content-type": "application/json"}

log = structlog.get_logger()


class ClientGone(Exception):
    """Nobody is there to be answered."""


@dataclass(frozen=True, slots=True)
class Face:
    """What the server says about itself. `api_key` None: everybody who reaches it may ask."""

    model: str
    digest: str
    policy: str
    api_key: str | None = None

    @property
    def fingerprint(self) -> str:
        return f"moe-{self.digest[:12]}"


def create_app(make: Callable[[], Engine], face: Face) -> Starlette:
    """The app; `make` builds the engine when it starts, so that a loop is there."""
    service = Service(face)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.open(make())
        try:
            yield
        finally:
            await service.engine.close()

    routes = [
        Route("/v1/chat/completions", Chat(service), methods=None),
        Route("/v1/models", service.page(service.models)),
        Route("/health", service.page(service.health, free=True)),
        Route("/metrics", service.page(service.metrics)),
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            404: lambda request, _: refused(NotFound(f"there is no {request.url.path[:80]!r} here")),
            405: lambda request, _: refused(NotAllowed(f"{request.url.path[:80]!r} does not take {request.method}")),
        },
    )


class Service:
    """The engine, and the pages that need no body."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self._engine: Engine | None = None
        self._numbers: Numbers | None = None

    def open(self, engine: Engine) -> None:
        self._engine, self._numbers = engine, Numbers(engine.load)

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("the app has not been started (its lifespan was not run)")
        return self._engine

    @property
    def numbers(self) -> Numbers:
        if self._numbers is None:
            raise RuntimeError("the app has not been started (its lifespan was not run)")
        return self._numbers

    def admit(self, headers: Headers) -> None:
        """Raises Unauthenticated."""
        if self.face.api_key is None:
            return
        given = headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), self.face.api_key.encode()):
            raise Unauthenticated("this local expert wants its API key: authorization: Bearer ...")

    def page(self, make: Callable[[], Any], *, free: bool = False) -> Any:
        async def answer(request: Any) -> Response:
            try:
                if not free:
                    self.admit(request.headers)
                return await make()  # type: ignore[no-any-return]  # the pages below
            except ExpertError as error:
                return refused(error)

        return answer

    async def models(self) -> Response:
        served = {"id": self.face.model, "object": "model", "created": 0, "owned_by": "conclave"}
        return _json({"object": "list", "data": [served]})

    async def health(self) -> Response:
        face = self.face
        return _json({"status": "ok", "model": face.model, "digest": face.digest, "policy": face.policy})

    async def metrics(self) -> Response:
        page = await asyncio.to_thread(self.numbers.text)
        return Response(page, media_type="text/plain; version=0.0.4")


class Chat:
    """`POST /v1/chat/completions`, plain and streamed."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = Client(receive, send)
        try:
            if scope["method"] != "POST":
                raise NotAllowed(f"{scope['path'][:80]!r} takes POST")
            self._service.admit(Headers(scope=scope))
            ask = read(await client.body())
            if ask.model != self._service.face.model:
                raise UnknownModel(f"this server has the model {self._service.face.model!r}", param="model")
            await self._answer(client, ask)
        except ClientGone:
            self._service.numbers.ended("left")
        except ExpertError as error:
            await self._fail(client, error)
        except Exception as error:  # noqa: BLE001  the edge of a task
            log.error("moe.request_failed", error=type(error).__name__, where=where(error))
            await self._fail(client, InternalError("the local expert failed; its log says where"))

    async def _answer(self, client: "Client", ask: Ask) -> None:
        handoff: Handoff | None = None
        try:
            async with client.watched():
                handoff = await self._service.engine.open(ask)
                end = await self._tell(client, ask, handoff)
            self._service.numbers.ended(end.reason, end.usage)
        finally:
            if handoff is not None:
                handoff.leave()

    async def _tell(self, client: "Client", ask: Ask, handoff: Handoff) -> End:
        shape = self._shape(ask)
        pieces: list[Piece] = []
        while isinstance(event := await handoff.read(), Piece):  # the first is awaited: failures keep their status
            if not ask.stream:
                pieces.append(event)
                continue
            if not client.began:
                await client.begin(200, STREAM)
                await client.write(shape.first())
            await client.write(shape.piece(event))
        if not ask.stream:
            await client.whole(200, shape.whole(pieces, event))
            return event
        if not client.began:
            await client.begin(200, STREAM)
            await client.write(shape.first())
        await client.write(shape.last(event), more=False)
        return event

    def _shape(self, ask: Ask) -> Shape:
        return Shape(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            created=int(time.time()),
            model=ask.model,
            fingerprint=self._service.face.fingerprint,
            logprobs=ask.top_logprobs is not None,
            include_usage=ask.include_usage,
        )

    async def _fail(self, client: "Client", error: ExpertError) -> None:
        self._service.numbers.ended(error.code)
        if client.began:
            await client.write(event(error.envelope()), more=False)
        else:
            await client.whole(error.status, msgspec.json.encode(error.envelope()), _headers(error))


class Client:
    """The other end of one request."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.began = False

    async def body(self) -> bytes:
        """Raises TooLarge, RequestTimeout, ClientGone."""
        try:
            async with asyncio.timeout(BODY_S):
                return await self._whole_body()
        except TimeoutError:
            raise RequestTimeout(f"the request body did not arrive within {BODY_S:g} s") from None

    async def _whole_body(self) -> bytes:
        pieces, size, more = [], 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            size += len(message.get("body", b""))
            if size > BODY_BYTES:
                raise TooLarge(f"the body is larger than {BODY_BYTES} bytes")
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        return b"".join(pieces)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Raises ClientGone out of whatever is awaited inside, once the client has left."""
        task = asyncio.current_task()
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await self._receive())["type"] != "http.disconnect":
                pass
            gone = True
            if task is not None:
                task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if gone and task is not None and task.uncancel() == 0:
                raise ClientGone from None
            raise
        finally:
            watcher.cancel()

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        self.began = True
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def whole(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        await self.begin(status, (headers or JSON) | {"content-length": str(len(data))})
        await self.write(data, more=False)


def refused(error: ExpertError) -> Response:
    return Response(msgspec.json.encode(error.envelope()), error.status, _headers(error))


def _headers(error: ExpertError) -> dict[str, str]:
    wait = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    return JSON | {"x-should-retry": "true" if error.retry else "false"} | wait


def _json(data: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(data), media_type="application/json")
