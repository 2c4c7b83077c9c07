"""What stands before the pipeline: a place for the call, its tags, and whose call it is; with a scripted pipeline."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest

from conclave.gateway.access.proxies import Proxies
from conclave.gateway.access.room import Room
from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.access.tags import tags_of
from conclave.gateway.api.chat import parse
from conclave.gateway.api.cors import Cors
from conclave.gateway.api.front import Front
from conclave.gateway.api.respond import Respond, head_of
from conclave.gateway.call import END, Call, Chunk
from conclave.gateway.errors import ConclaveError, Forbidden

BODY = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
KEY = (b"authorization", b"Bearer good")


@dataclass
class Doors:
    """A pipeline that admits the good key, reads the body, and says a word when it is told to go on."""

    error: ConclaveError | None = None
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Call] = field(default_factory=list)

    @property
    def access(self) -> "Doors":
        return self

    def tenant_of(self, authorization: str | None) -> str | None:
        return "acme" if authorization == "Bearer good" else None

    async def answer(self, call: Call) -> AsyncGenerator[Chunk, None]:
        self.calls.append(call)
        if call.source.head.authorization is None:
            raise Forbidden("no key")
        call.grant = Grant("acme", "k", Scope(), deadline_s=time.monotonic() + 60)
        call.request = call.parse(await call.source.read(max_bytes=10_000, timeout_s=5))
        if self.error is not None:
            raise self.error
        await self.go_on.wait()
        yield Chunk(b"{}")
        yield END


class Wire:
    """An ASGI client; keeps what it was sent."""

    def __init__(self, *headers: tuple[bytes, bytes], body: bytes = BODY) -> None:
        self.scope = {"type": "http", "headers": list(headers), "client": ("127.0.0.1", 1)}
        self.body: bytes | None = body
        self.sent: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        if self.body is None:
            await asyncio.Event().wait()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def head(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.sent[1]["body"])["error"])

    def call(self, doors: Doors, front: Front) -> "asyncio.Task[None]":
        return asyncio.ensure_future(Respond(lambda: doors, parse, front)(self.scope, self.receive, self.send))  # type: ignore[arg-type,return-value]  # scripted


async def until_entered(room: Room, count: int = 1) -> None:
    async with asyncio.timeout(5):
        while room.in_work < count:  # noqa: ASYNC110  the room tells nobody that somebody entered
            await asyncio.sleep(0.002)


async def test_a_call_has_its_place_until_its_answer_is_whole() -> None:
    front, doors = Front(), Doors()
    task = Wire(KEY).call(doors, front)
    await until_entered(front.room)
    doors.go_on.set()
    await task
    assert front.room.in_work == 0


async def test_a_call_that_fails_or_is_cut_gives_its_place_back() -> None:
    front = Front()
    await Wire(KEY).call(Doors(error=Forbidden("no")), front)
    assert front.room.in_work == 0
    task = Wire(KEY).call(Doors(), front)
    await until_entered(front.room)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert front.room.in_work == 0


async def test_who_is_not_admitted_takes_no_place() -> None:
    front = Front(room=Room(max_calls=1, max_queue=0))
    wire = Wire()
    await wire.call(Doors(), front)
    assert (wire.status, front.room.in_work) == (403, 0)


async def test_a_full_gateway_answers_before_the_call_is_opened() -> None:
    front, doors = Front(room=Room(max_calls=1, max_queue=0), cors=Cors(["https://app.example"])), Doors()
    first = Wire(KEY).call(doors, front)
    await until_entered(front.room)
    wire = Wire(KEY, (b"origin", b"https://app.example"))
    await wire.call(doors, front)
    assert (wire.status, wire.error["code"], wire.error["type"]) == (429, "overloaded", "rate_limit_error")
    assert wire.head[b"x-should-retry"] == b"true"
    assert int(wire.head[b"retry-after-ms"]) > 0
    assert int(wire.head[b"retry-after"]) >= 1
    assert wire.head[b"x-request-id"].startswith(b"req_")
    assert wire.head[b"access-control-allow-origin"] == b"https://app.example"
    assert len(doors.calls) == 1
    assert wire.body is BODY  # not read
    assert front.room.collect() == {"acme": 1}
    doors.go_on.set()
    await first


async def test_who_has_no_good_key_is_told_that_also_by_a_full_gateway() -> None:
    front, doors = Front(room=Room(max_calls=1, max_queue=0)), Doors()
    first = Wire(KEY).call(doors, front)
    await until_entered(front.room)
    wire = Wire()
    await wire.call(doors, front)
    assert (wire.status, front.room.collect()) == (403, {})
    doors.go_on.set()
    await first


async def test_who_waits_in_line_is_served_when_a_place_is_free() -> None:
    front, doors = Front(room=Room(max_calls=1, max_queue=5)), Doors()
    wires = [Wire(KEY) for _ in range(3)]
    tasks = [wire.call(doors, front) for wire in wires]
    await until_entered(front.room)
    doors.go_on.set()
    await asyncio.gather(*tasks)
    assert [wire.status for wire in wires] == [200, 200, 200]
    assert (front.room.in_work, front.room.queued) == (0, 0)


async def test_tags_of_the_header_are_those_of_the_call_also_over_several_lines() -> None:
    doors = Doors()
    doors.go_on.set()
    tags = ((b"x-conclave-tags", b"team=search"), (b"x-conclave-tags", b"env=prod"))
    await Wire(KEY, *tags).call(doors, Front())
    assert doors.calls[0].request is not None
    assert tags_of(doors.calls[0].request) == {"team": "search", "env": "prod"}


async def test_a_bad_tag_is_a_400_that_says_where() -> None:
    wire = Wire(KEY, (b"x-conclave-tags", b"team"))
    await wire.call(Doors(), Front())
    assert (wire.status, wire.error["param"]) == (400, "x-conclave-tags")


@pytest.mark.parametrize(
    ("proxies", "found"), [(Proxies(["127.0.0.0/8"]), "203.0.113.7"), (Proxies(), "127.0.0.1")], ids=["trusted", "not"]
)
def test_the_source_is_as_the_trusted_proxies_say(proxies: Proxies, found: str) -> None:
    scope = {"headers": [(b"x-forwarded-for", b"203.0.113.7")], "client": ("127.0.0.1", 1)}
    assert head_of(scope, proxies).source == found
