"""What spans cost: gateways with them off, on, and on for one call in ten, side by side, CPU time a request.

    python -m benchmarks.gateway.spans                 7 rounds of 2 s a measurement
    python -m benchmarks.gateway.spans --rounds 15
    python -m benchmarks.gateway.spans --defences   with every check on, and so with a span of the guard

Each round loads every gateway once, in turn and back again; the ratio of a round is that of two neighbours in time. The
CPU time is that of the whole process, with what it does after its calls: it is read when the followers and the
exporter have had time for the rest. A collector in this process takes the spans and throws them away.
"""

import asyncio
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

import click

from benchmarks.gateway.conclave import conclave
from benchmarks.gateway.load import Load, drive
from benchmarks.gateway.ports import free_port
from benchmarks.gateway.servers import Server, running
from benchmarks.gateway.targets import mock

LOADS: Final = (Load("plain", 16), Load("stream", 16))
OFF, ON, TENTH = "off", "on", "one call in ten"
SAMPLED: Final = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
SETTLE_S: Final = 2.0  # the followers look twice a second, the exporter's batch leaves within the second after
SOON: Final = {"OTEL_BSP_SCHEDULE_DELAY": "500"}
TAKEN: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def collector() -> Iterator[str]:
    """The address of a server that says yes to whatever it is sent."""
    port, loop = free_port(), asyncio.new_event_loop()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"content-length" in line)
                await reader.readexactly(length)
                writer.write(TAKEN)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    loop.run_until_complete(asyncio.start_server(take, "127.0.0.1", port))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def cpu_us(server: Server, load: Load, seconds: int) -> float:
    """CPU time a request, in microseconds, the work after the calls included."""
    before_s = server.cpu_s()
    measured = drive(server.target, load, seconds=seconds)
    time.sleep(SETTLE_S)
    return (server.cpu_s() - before_s) / measured.requests * 1e6


@click.command(help=__doc__.partition("\n")[0] if __doc__ else None)
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1, 100))
@click.option("--seconds", default=2, show_default=True, type=click.IntRange(1, 60), help="Length of one measurement.")
@click.option("--defences", is_flag=True, help="With every check on.")
def main(rounds: int, seconds: int, *, defences: bool) -> None:
    with ExitStack() as stack:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.enter_context(collector()), **SOON}
        upstream = stack.enter_context(running(mock())).target.base_url
        on = partial(conclave, upstream, stack, telemetry={"spans": True}, defences=defences)
        targets = {
            OFF: conclave(upstream, stack, defences=defences),
            ON: on(env=env),
            TENTH: on(env={**env, **SAMPLED}),
        }
        servers = {name: stack.enter_context(running(target)) for name, target in targets.items()}
        for load in LOADS:
            for server in servers.values():
                drive(server.target, load, seconds=1)  # warm
            _show(load, _measure(servers, load, rounds=rounds, seconds=seconds))


def _measure(servers: dict[str, Server], load: Load, *, rounds: int, seconds: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        order = list(servers.items()) if number % 2 == 0 else list(servers.items())[::-1]
        for name, server in order:
            taken[name].append(cpu_us(server, load, seconds))
    return taken


def _show(load: Load, taken: dict[str, list[float]]) -> None:
    print(f"\n{load.name}: CPU us a request, median of {len(taken[OFF])}; ratio to spans off, median (least-most)")
    for name, values in taken.items():
        ratios = [value / off for value, off in zip(values, taken[OFF], strict=True)]
        print(
            f"{name:16} {statistics.median(values):8.0f}   "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
