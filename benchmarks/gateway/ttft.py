"""Time to the first token, and whether the later ones come evenly: 32 streams at once, a chunk each 5 ms.

The client is a raw protocol under uvloop: its own work is small beside the server's. It looks only at content chunks.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, cast
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop

from benchmarks.gateway.load import PROMPT
from benchmarks.gateway.targets import Target

STREAMS: Final = 32
PACE_MS: Final = 5
BURST: Final = 0.2  # a gap below this share of the pace means that chunks were held back and came together
STREAM_WITHIN_S: Final = 30.0
CONTENT: Final = re.compile(rb'"content"\s*:\s*"[^"]')


@dataclass(slots=True)
class Stream:
    """When each content chunk of one stream came, in seconds after the request was written."""

    arrivals_s: list[float] = field(default_factory=list)
    status: int = 0

    @property
    def first_s(self) -> float:
        return self.arrivals_s[0]

    @property
    def gaps_s(self) -> list[float]:
        return [later - sooner for sooner, later in pairwise(self.arrivals_s)]


class Client(asyncio.Protocol):
    """One connection: `ask` sends a request, `answered` is done when its stream has ended."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._rest = b""
        self.answered: asyncio.Future[Stream] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def ask(self, request: bytes) -> None:
        self.answered = self._loop.create_future()
        self._stream = Stream()
        self._rest = b""
        self._begun_s = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._now_s = time.perf_counter() - self._begun_s
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        *events, self._rest = (self._rest + body).split(b"\n\n")
        self._stream.arrivals_s.extend(self._now_s for event in events if CONTENT.search(event))

    def on_message_complete(self) -> None:
        self._stream.status = self._parser.get_status_code()
        if not self.answered.done():
            self.answered.set_result(self._stream)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc or ConnectionError("the server closed the connection"))
            self.answered.exception()  # seen: the client may have been done with it


def request_bytes(target: Target, number: int) -> bytes:
    """The streamed chat request as it stands on the wire."""
    message = {"role": "user", "content": PROMPT % number}
    body = msgspec.json.encode({"model": target.model, "stream": True, "messages": [message]})
    parts = urlsplit(target.url)
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in target.headers.items()]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


async def waves(target: Target, *, seconds: float, streams: int = STREAMS) -> list[Stream]:
    """Start all streams at once, wait for all, again, for so many seconds. The first wave warms up and is left out."""
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, "127.0.0.1", target.port))[1] for _ in range(streams)]
    collected: list[Stream] = []
    try:
        await _wave(target, clients, 0)
        end_s, number = time.perf_counter() + seconds, streams
        while time.perf_counter() < end_s:
            collected += await _wave(target, clients, number)
            number += streams
    finally:
        for client in clients:
            client.transport.close()
    return collected


async def _wave(target: Target, clients: Sequence[Client], number: int) -> list[Stream]:
    for i, client in enumerate(clients):
        client.ask(request_bytes(target, number + i))
    async with asyncio.timeout(STREAM_WITHIN_S):
        return list(await asyncio.gather(*(client.answered for client in clients)))


def measure(target: Target, *, seconds: float) -> list[Stream]:
    """`waves` in a loop of its own."""
    return uvloop.run(waves(target, seconds=seconds))
