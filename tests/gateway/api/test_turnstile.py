"""What an overloaded gateway says to a call by its head alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from conclave.gateway.access.admission import Access
from conclave.gateway.access.room import Room
from conclave.gateway.api.cors import Cors
from conclave.gateway.api.front import Front
from conclave.gateway.api.turnstile import Turnstile

PATH = b"/v1/chat/completions"
FIELDS = [(b"host", b"x"), (b"authorization", b"Bearer good")]


class Keys(Access):
    """Knows one key."""

    def __init__(self) -> None:
        """Nothing but the look-up is asked."""

    def tenant_of(self, authorization: str | None) -> str | None:
        return "acme" if authorization == "Bearer good" else None


@asynccontextmanager
async def full(cors: Cors | None = None) -> AsyncIterator[tuple[Turnstile, Room]]:
    """A turnstile before a room whose only place is taken."""
    room = Room(max_calls=1, max_queue=0)
    assert room.try_enter()
    yield Turnstile(Keys, Front(room=room, cors=cors or Cors()), ["/v1/chat/completions"]), room
    room.leave()


async def test_a_call_is_told_when_to_come_back_and_counted_by_tenant() -> None:
    async with full() as (turnstile, room):
        assert turnstile.closed
        refusal = turnstile.stops(PATH, FIELDS)
        assert refusal is not None
        about = dict(refusal.about)
        assert (refusal.status, about[b"x-should-retry"]) == (429, b"true")
        assert int(about[b"retry-after-ms"]) > 0
        assert int(about[b"retry-after"]) >= 1
        assert about[b"x-request-id"].startswith(b"req_")
        assert int(about[b"content-length"]) == len(refusal.body)
        assert msgspec.json.decode(refusal.body)["error"]["code"] == "overloaded"
        assert (room.collect(), room.refused) == ({"acme": 1}, 1)


@pytest.mark.parametrize("last", [False, True], ids=["kept", "last"])
async def test_on_the_wire_it_is_one_whole_answer(last: bool) -> None:
    async with full() as (turnstile, _):
        refusal = turnstile.stops(PATH, FIELDS)
        assert refusal is not None
        head, body = refusal.whole(last=last).split(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 429 Too Many Requests"
        assert lines[1 : len(refusal.about) + 1] == [b"%b: %b" % field for field in refusal.about]
        assert (b"connection: close" in lines, body) == (last, refusal.body)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (PATH, [(b"host", b"x")]),
        (PATH, [(b"authorization", b"Bearer bad")]),
        (b"/v1/models", FIELDS),
        (b"/v1/chat/completions?x", FIELDS),
    ],
    ids=["no key", "a bad key", "no call", "a query"],
)
async def test_others_are_left_to_the_usual_way_and_not_counted(path: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    async with full() as (turnstile, room):
        assert turnstile.stops(path, fields) is None
        assert room.collect() == {}


async def test_a_page_that_may_read_answers_may_read_this_one() -> None:
    async with full(Cors(["https://app.example"])) as (turnstile, _):
        refusal = turnstile.stops(PATH, [*FIELDS, (b"origin", b"https://app.example")])
        other = turnstile.stops(PATH, [*FIELDS, (b"origin", b"https://evil.example")])
        assert refusal is not None
        assert other is not None
        assert (b"access-control-allow-origin", b"https://app.example") in refusal.about
        assert not any(name == b"access-control-allow-origin" for name, _ in other.about)


async def test_it_is_open_while_there_is_a_place() -> None:
    async with full() as (turnstile, room):
        room.leave()
        assert not turnstile.closed
        assert turnstile.stops(PATH, FIELDS) is None
        assert room.try_enter()
    await asyncio.sleep(0)
