"""Does the gateway keep its memory and its record over many mixed calls? One in ten is a stream that its client leaves.

    python -m benchmarks.gateway.soak                        # 200,000 requests: about ten minutes
    python -m benchmarks.gateway.soak --requests 20000

The gateway's resident memory is read after the first tenth (caches are warm by then) and at the end, each time after a
pause. Ends with status 1 if it grew by more than `--most-percent`, if an answer had another status than it should, or
if the journal does not verify. Every request has its row: they are counted, too.
"""

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
import msgspec
import uvloop

from benchmarks.gateway.conclave import COMMAND, conclave
from benchmarks.gateway.load import PROMPT
from benchmarks.gateway.rounds import set_pace
from benchmarks.gateway.servers import Server, running
from benchmarks.gateway.targets import ROOT, Target, mock

CONNECTIONS: Final = 32
PACE_MS: Final = 1  # of the mock's chunks: a stream lives for 50 ms, time enough to leave it
WARM: Final = 0.1  # of the requests, before the first look at the memory
SETTLE_S: Final = 3.0
WITHIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request: its share of all, its bytes, the status that it must get; `leave`: hang up on the answer."""

    name: str
    share: float
    bytes_of: Callable[[Target, int], bytes]
    status: int
    leave: bool = False


def request(target: Target, body: bytes, *, path: str = "/v1/chat/completions", key: bool = True) -> bytes:
    """A POST as it stands on the wire."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items()) if key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\ncontent-type: application/json\r\n{headers}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def chat(target: Target, number: int, *, stream: bool = False, more: str = "", **fields: object) -> bytes:
    """A chat request; no two prompts are the same."""
    messages = [{"role": "user", "content": PROMPT % number + more}]
    return request(target, msgspec.json.encode({"model": "auto", "messages": messages, "stream": stream, **fields}))


def embedding(target: Target, number: int) -> bytes:
    """A text for the built-in encoder."""
    body = {"model": "encoder", "input": PROMPT % number}
    return request(target, msgspec.json.encode(body), path="/v1/embeddings")


KINDS: Final = (
    Kind("plain", 0.55, chat, 200),
    Kind("stream", 0.20, lambda target, number: chat(target, number, stream=True), 200),
    Kind("left stream", 0.10, lambda target, number: chat(target, number, stream=True), 200, leave=True),
    Kind("64 KB prompt", 0.02, lambda target, number: chat(target, number, more="word " * 13_000), 200),
    Kind("embedding", 0.03, embedding, 200),
    Kind("unknown model", 0.03, lambda target, number: chat(target, number, model=f"model-{number}"), 404),
    Kind("no JSON", 0.03, lambda target, number: request(target, b'{"model": %d' % number), 400),
    Kind("wrong type", 0.02, lambda target, number: chat(target, number, temperature="hot"), 400),
    Kind("no key", 0.02, lambda target, _: request(target, b"{}", key=False), 401),
)


@dataclass(slots=True)
class Soak:
    """The work, shared by all connections: requests are taken from one counter, and what went wrong is counted."""

    target: Target
    requests: int
    rng: random.Random
    taken: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    async def run(self, until: int) -> None:
        """Go on until so many requests are done."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._connection(until))

    async def _connection(self, until: int) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while self.taken < until:
            number, kind = self.taken, self._kind()
            self.taken += 1
            self.sent[kind.name] += 1
            if reader is None or writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.target.port)
            async with asyncio.timeout(WITHIN_S):
                status = await self._one(kind, number, reader, writer)
            if status != kind.status:
                self.wrong[f"{kind.name}: {status}"] += 1
            if kind.leave:
                writer.transport.abort()
                reader = writer = None
        if writer is not None:
            writer.close()

    def _kind(self) -> Kind:
        return self.rng.choices(KINDS, [kind.share for kind in KINDS])[0]

    async def _one(self, kind: Kind, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """The status. An answer is read to its end, or to its first events."""
        writer.write(kind.bytes_of(self.target, number))
        head = await reader.readuntil(b"\r\n\r\n")
        if kind.leave:
            await reader.readuntil(b"data: ")
        elif b"content-length: " in head:
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        else:
            while (size := int(await reader.readuntil(b"\r\n"), 16)) > 0:
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        return int(head.split()[1])


def settled_mb(server: Server) -> float:
    """Resident memory when followers and collectors have caught up."""
    time.sleep(SETTLE_S)
    return server.rss_mb()


@click.command()
@click.option("--requests", default=200_000, show_default=True, type=click.IntRange(1_000, 10_000_000))
@click.option("--most-percent", default=5.0, show_default=True, help="How much the memory may grow.")
@click.option("--seed", default=1, show_default=True)
def main(requests: int, most_percent: float, seed: int) -> None:
    """Run the soak and print what it found."""
    with ExitStack() as stack:
        upstream = mock()
        stack.enter_context(running(upstream))
        target = conclave(upstream.base_url, stack)
        with running(target) as server:
            set_pace(upstream, PACE_MS)
            soak = Soak(target, requests, random.Random(seed))  # noqa: S311  so that a run can be had again
            begun_s = time.perf_counter()
            uvloop.run(soak.run(int(requests * WARM)))
            before_mb = settled_mb(server)
            uvloop.run(soak.run(requests))
            took_s = time.perf_counter() - begun_s
            after_mb = settled_mb(server)
        state = Path(target.command[-1]).parent / "state"
        verified = subprocess.run(
            [*COMMAND, "audit", "--state-dir", str(state), "verify"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    grown = 100 * (after_mb / before_mb - 1)
    click.echo(f"{requests:,} requests in {took_s:.0f} s: " + ", ".join(f"{n:,} {k}" for k, n in soak.sent.items()))
    click.echo(f"memory {before_mb:.1f} MB after {WARM:.0%}, {after_mb:.1f} MB at the end: {grown:+.1f} %")
    click.echo(f"answers with a wrong status: {dict(soak.wrong) or 'none'}")
    click.echo(f"audit verify: {verified.stdout.strip() or verified.stderr.strip()}")
    if grown > most_percent or soak.wrong or verified.returncode:
        sys.exit(1)


if __name__ == "__main__":
    main()
