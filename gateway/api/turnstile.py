"""What a call is told that finds no place, before anything is opened for it.

An overloaded gateway must be able to say no for next to nothing: a request that is refused by its head costs a
fourteenth of a call. It decides who is told so, and in which words; that there is no place is the room's to say.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

import msgspec

from conclave.gateway.access.admission import Access
from conclave.gateway.api import headers
from conclave.gateway.api.front import Front
from conclave.gateway.errors import Overloaded

LINE: Final = b"HTTP/1.1 429 Too Many Requests\r\n"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a call that was turned away."""

    about: headers.Headers
    body: bytes
    status: int = Overloaded.status

    def whole(self, *, last: bool) -> bytes:
        """As it stands on the wire; `last`: the connection ends with it."""
        return headers.message(LINE, [*self.about, headers.CLOSE] if last else self.about, self.body)


class Turnstile:
    """Who has no good key is not turned away: it goes the usual way, and is counted there."""

    def __init__(self, access: Callable[[], Access], front: Front, paths: Collection[str]) -> None:
        self._access = access
        self._front = front
        self._paths = frozenset(path.encode() for path in paths)

    @property
    def closed(self) -> bool:
        """Whether there may be no place. Asked for each request."""
        return self._front.room.full

    def stops(self, path: bytes, fields: headers.Headers) -> Refusal | None:
        """What a POST to this path gets, by its headers; None if it may come in, or is no call."""
        return self.refusal(fields) if path in self._paths else None

    def refusal(self, fields: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
        """What a call with these headers gets; None if it may come in. One that is turned away is counted."""
        found = dict(fields)
        tenant = self._access().tenant_of(found.get(b"authorization", b"").decode("latin-1"))
        error = self._front.room.turn_away(tenant) if tenant is not None else None
        if error is None:
            return None
        body = _envelope(error.message)
        about = [headers.PLAIN, (b"content-length", b"%d" % len(body)), *headers.error_headers(error)]
        about += headers.request_headers(headers.new_id())
        if self._front.cors:
            about += self._front.cors.headers(found[b"origin"].decode("latin-1") if b"origin" in found else None)
        return Refusal(about, body)


@cache
def _envelope(message: str) -> bytes:
    return msgspec.json.encode(Overloaded(message).envelope())
