"""What an overloaded gateway still gets done: calls come at twice the rate that it can serve, answered or not.

    python -m benchmarks.gateway.overload            # 3 rounds of 4 s each way: half a minute

Each round first measures the capacity (so many connections, each sending its next call when an answer has come), then
sends calls at `--times` that rate, at random moments (Poisson), for as long. Goodput is the rate of calls that were
answered with 200 within `--within-s` of the moment at which they were due; the refused are not sent again.
"""

import asyncio
import random
import statistics
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

import click
import msgspec
import uvloop

from benchmarks.gateway.conclave import conclave
from benchmarks.gateway.load import PROMPT
from benchmarks.gateway.mock import Pace, listen
from benchmarks.gateway.servers import Server, running
from benchmarks.gateway.targets import Target

CONNECTIONS: Final = 32  # that measure the capacity
MOST_CONNECTIONS: Final = 2000


class Client(asyncio.Protocol):
    """One kept-alive connection: sends a request, and resolves with the status once the answer is whole."""

    def __init__(self) -> None:
        self._transport = asyncio.Transport()
        self._buffer = b""
        self._done: asyncio.Future[tuple[int, float]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes) -> "asyncio.Future[tuple[int, float]]":
        """The status and the seconds that it asks to wait, 0 if it does not."""
        self._done, self._buffer = asyncio.get_running_loop().create_future(), b""
        self._transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, gap, body = self._buffer.partition(b"\r\n\r\n")
        if not gap or self._done is None or self._done.done():
            return
        if b"content-length: " in head:
            length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
            whole = len(body) >= length
        else:
            whole = body.endswith(b"0\r\n\r\n")
        if whole:
            waits = head.split(b"retry-after-ms: ", 1)
            wait_s = int(waits[1].split(b"\r\n", 1)[0]) / 1000 if len(waits) > 1 else 0.0
            self._done.set_result((int(head[9:12]), wait_s))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        if self._done is not None and not self._done.done():
            self._done.set_result((0, 0.0))


@dataclass(slots=True)
class Seen:
    """How the calls of one run ended. `served_s` are the latencies of the good ones, from when they were due."""

    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    served_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    in_time: int = 0  # of the good ones, those that were answered before the run's own end
    cpu_s: float = 0.0

    @property
    def goodput(self) -> float:
        return self.in_time / self.seconds


class Driver:
    """Sends calls to one target, by closed and open loop."""

    def __init__(self, target: Target, *, stream: bool, within_s: float) -> None:
        self._address = urlsplit(target.url)
        body = {"model": target.model, "messages": [{"role": "user", "content": PROMPT}], "stream": stream}
        fields = {"host": self._address.netloc, "content-type": "application/json", **target.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._head = f"POST {self._address.path} HTTP/1.1\r\n{lines}".encode()
        self._body = msgspec.json.encode(body)
        self._within_s = within_s
        self._idle: list[Client] = []
        self._open = 0
        self._number = 0

    def _request(self) -> bytes:
        self._number += 1
        body = self._body.replace(b"%09d", b"%09d" % self._number)  # no two questions are the same
        return b"%bcontent-length: %d\r\n\r\n%b" % (self._head, len(body), body)

    async def _client(self) -> Client | None:
        if self._idle:
            return self._idle.pop()
        if self._open >= MOST_CONNECTIONS:
            return None
        self._open += 1
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(Client, self._address.hostname, self._address.port)
        return client

    async def _call(self, seen: Seen, due_s: float) -> None:
        client = await self._client()
        if client is None:
            seen.statuses[-1] += 1
            return
        status, wait_s = await client.send(self._request())
        took_s = time.perf_counter() - due_s
        seen.statuses[status] += 1
        if status:
            self._idle.append(client)
        else:
            self._open -= 1
        if status == 200 and took_s <= self._within_s:  # noqa: PLR2004  an HTTP status
            seen.served_s.append(took_s)
        elif status == 429:  # noqa: PLR2004  an HTTP status
            seen.refused_s.append(took_s)
            seen.waits_s.append(wait_s)

    async def closed(self, seconds: float) -> Seen:
        """What so many connections get done: the capacity."""
        seen, end_s = Seen(seconds), time.perf_counter() + seconds

        async def again() -> None:
            while (now_s := time.perf_counter()) < end_s:
                await self._call(seen, now_s)

        await asyncio.gather(*(again() for _ in range(CONNECTIONS)))
        seen.in_time = len(seen.served_s)
        return seen

    async def opened(self, seconds: float, rate: float, rng: random.Random, server: Server) -> Seen:
        """Calls at this rate, answered or not. What is still in line at the end counts for nothing."""
        cpu_s = server.cpu_s()
        seen, begun_s, due_s = Seen(seconds), time.perf_counter(), 0.0
        calls: list[asyncio.Task[None]] = []
        while (due_s := due_s + rng.expovariate(rate)) < seconds:
            ahead_s = begun_s + due_s - time.perf_counter()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            calls.append(asyncio.create_task(self._call(seen, begun_s + due_s)))
        seen.in_time, seen.cpu_s = len(seen.served_s), server.cpu_s() - cpu_s
        await asyncio.gather(*calls)
        return seen


@dataclass(frozen=True, slots=True)
class Round:
    """What was served at the capacity, and at a multiple of it."""

    full: Seen
    over: Seen
    offered: float  # calls a second

    @property
    def share(self) -> float:
        """Goodput beyond the capacity, as a share of it."""
        return self.over.goodput / self.full.goodput

    @property
    def cpu_share(self) -> float:
        """The same for each second of CPU that the gateway got: what others took from the machine is not in it."""
        return (self.over.in_time / self.over.cpu_s) / (self.full.in_time / self.full.cpu_s)


async def _round(server: Server, driver: Driver, *, seconds: float, times: float) -> Round:
    await driver.closed(seconds / 4)
    begun_s = server.cpu_s()
    full = await driver.closed(seconds)
    full.cpu_s = server.cpu_s() - begun_s
    over = await driver.opened(seconds, full.goodput * times, random.Random(1), server)  # noqa: S311  the same each time
    return Round(full, over, full.goodput * times)


def _shown(found: Round) -> str:
    seen = found.over
    late = sorted(seen.served_s) or [float("nan")]
    refused = statistics.median(seen.refused_s) * 1000 if seen.refused_s else float("nan")
    wait = statistics.median(seen.waits_s) if seen.waits_s else float("nan")
    return (
        f"capacity {found.full.goodput:5.0f}/s  offered {found.offered:5.0f}/s  goodput {seen.goodput:5.0f}/s "
        f"({found.share:.0%}, for the same CPU {found.cpu_share:.0%})  p50 {late[len(late) // 2] * 1000:.0f} ms "
        f"p99 {late[int(len(late) * 0.99)] * 1000:.0f} ms  429 after {refused:.0f} ms, retry-after {wait:.2f} s  "
        f"{dict(seen.statuses)}"
    )


async def _main(rounds: int, seconds: float, times: float, within_s: float, *, stream: bool) -> None:
    mock = await listen(0, Pace(0.0))
    upstream = f"http://127.0.0.1:{mock.sockets[0].getsockname()[1]}/v1"
    found: list[Round] = []
    with ExitStack() as stack:
        target = conclave(upstream, stack)
        starting = running(target)
        server = await asyncio.to_thread(starting.__enter__)
        try:
            for _ in range(rounds):
                driver = Driver(target, stream=stream, within_s=within_s)
                found.append(await _round(server, driver, seconds=seconds, times=times))
                print(_shown(found[-1]), flush=True)
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
    shares = [statistics.median(shares) for shares in zip(*((one.share, one.cpu_share) for one in found), strict=True)]
    print(f"goodput at {times:g} x capacity: {shares[0]:.0%} of it, {shares[1]:.0%} for the same CPU (medians)")


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Of each measurement.")
@click.option("--times", default=2.0, show_default=True, help="How much more is offered than can be served.")
@click.option("--within-s", default=5.0, show_default=True, help="An answer that comes later is of no use.")
@click.option("--stream", is_flag=True, help="Streams of 50 chunks instead of plain answers.")
def main(rounds: int, seconds: float, times: float, within_s: float, *, stream: bool) -> None:
    """Offer a gateway more than it can serve, and say how much it serves."""
    uvloop.run(_main(rounds, seconds, times, within_s, stream=stream))


if __name__ == "__main__":
    main()
