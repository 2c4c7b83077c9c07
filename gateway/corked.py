"""The transport of a client's connection: decides when bytes are written, and when who does not read is hung up on.

An answer that is whole waits in our memory for its client, who may never read it: 2,048 vectors are 18 MB. A stream in
the making has its own limit (`api.respond`), which ends with it. Never looks at what is written.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

UNREAD_S: Final = 10.0  # how often it is looked whether a client reads
SETTLED: Final = 0.1  # of that time, until the first look: by then the kernel's buffers are full, and count no longer
# To be taken from one look to the next, or all that is left. Linux makes room for a writer in steps of a third of its
# socket buffer (4 MB at most, so 1.3 MB): a client of 2 Mbit/s takes one or two of them in this time.
LEAST_BYTES: Final = 1_000_000


class Corked:
    """A transport that writes once a turn of the event loop: head and body, or all events of one read, in one call.

    uvicorn writes a response's head and each part of its body apart, and a write to a socket costs more than anything
    else that the gateway does.
    """

    __slots__ = (
        "_due_bytes",
        "_least_bytes",
        "_look_at",
        "_loop",
        "_pending",
        "_seen_bytes",
        "_stays_open",
        "_transport",
        "_unread_s",
        "_written_bytes",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        *,
        stays_open: Callable[[], bool] | None = None,
        unread_s: float = UNREAD_S,
        least_bytes: int = LEAST_BYTES,
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._stays_open = stays_open
        self._unread_s = unread_s
        self._least_bytes = least_bytes
        self._pending: list[bytes] = []
        self._written_bytes = 0  # what waits here included
        self._due_bytes = 0  # of them, up to the end of the last answer
        self._seen_bytes: int | None = None  # what the client had taken at the last look; None: not looked yet
        self._look_at: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)
        self._written_bytes += len(data)

    def close(self) -> None:
        """Write what waits and close, unless who made this has it `stays_open`: they then close it later.

        A transport that is closed still waits for its client to read the rest, so that is watched here too.
        """
        self._flush()
        self.must_be_read()
        if self._stays_open is None or not self._stays_open():
            self._transport.close()

    def must_be_read(self) -> None:
        """All that was written so far is whole: from now on its client has to read it.

        One timer serves all answers of a connection, as they come: it costs next to nothing where clients read.
        """
        self._due_bytes = self._written_bytes
        if self._look_at is None:
            self._look_at = self._loop.call_later(SETTLED * self._unread_s, self._look)
        self._seen_bytes = None  # this answer is not to be hurried by the look that is due for the one before it

    def forget(self) -> None:
        """Let go of who made this, so that both are freed without a collection."""
        self._stays_open = None
        if self._look_at is not None:
            self._look_at.cancel()
            self._look_at = None

    def _look(self) -> None:
        self._look_at = None
        taken = self._taken_bytes()
        if taken >= self._due_bytes:
            return
        if self._seen_bytes is not None and taken - self._seen_bytes < self._least_bytes:
            self._transport.abort()
            return
        self._seen_bytes = taken
        self._look_at = self._loop.call_later(self._unread_s, self._look)

    def _taken_bytes(self) -> int:
        return self._written_bytes - sum(map(len, self._pending)) - self._transport.get_write_buffer_size()

    def _flush(self) -> None:
        data = b"".join(self._pending)
        self._pending.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
