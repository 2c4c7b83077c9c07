"""CORS: which web pages may read an answer (https://fetch.spec.whatwg.org/#http-cors-protocol). Off without origins.

It decides what a browser lets a page see, never who is served: that is admission's, by the key. Cookies mean nothing
here, so credentials are never allowed, and a listed origin may send any header that it asks to send.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from conclave.gateway.api.headers import EXPLAINED, Headers

ANY: Final = "*"
EXPOSED: Final = b", ".join(
    (
        b"x-request-id",
        *EXPLAINED.values(),
        *(b"x-ratelimit-%b-requests" % what for what in (b"limit", b"remaining", b"reset")),
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
    )
)
METHODS: Final = b"GET, POST, DELETE, OPTIONS"
USUAL: Final = b"authorization, content-type"  # where a preflight names no headers, or too many
ASKED: Final = re.compile(rb"[A-Za-z0-9-]{1,64}(?:[ \t]*,[ \t]*[A-Za-z0-9-]{1,64}){0,63}")
VARY: Final = (b"vary", b"origin")
NOTHING: Final[Headers] = []


class Cors:
    """The origins whose pages may read answers."""

    def __init__(self, origins: Iterable[str] = (), *, max_age_s: int = 600) -> None:
        self._origins = frozenset(origins)
        self._any = ANY in self._origins
        self._max_age = b"%d" % max_age_s
        self._of = lru_cache(maxsize=256)(self._made)

    def __bool__(self) -> bool:
        return bool(self._origins)

    def headers(self, origin: str | None) -> Headers:
        """What any answer to a request of this origin carries. Measured: 0.1 us, switched off or not."""
        return self._of(origin) if self._origins else NOTHING

    def _made(self, origin: str | None) -> Headers:
        if self._any and origin is not None:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED)]
        if origin is None or origin not in self._origins:
            return NOTHING if self._any else [VARY]
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", EXPOSED),
            VARY,
        ]

    def preflight(self, origin: str, asked: bytes | None) -> Headers | None:
        """The answer to an OPTIONS request that asks for leave; None if there is none to give."""
        if not self._any and origin not in self._origins:
            return None
        wanted = asked if asked is not None and ASKED.fullmatch(asked) is not None else USUAL
        return [
            *(one for one in self.headers(origin) if one is not VARY),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", self._max_age),
            (b"vary", b"origin, access-control-request-headers"),
        ]
