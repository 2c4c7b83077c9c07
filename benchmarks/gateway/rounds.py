"""One run: rounds in which each measurement is taken of every target in turn (A B C, A B C): all meet the same weather.

Each round starts its servers afresh. It decides the order and the length of what is measured, nothing of the targets.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, TypeAlias

import aiohttp
import msgspec
import psutil
import uvloop

from benchmarks.gateway.load import PROMPT, Load, drive
from benchmarks.gateway.mock import ANSWER
from benchmarks.gateway.results import BUSY, LOOP, Results
from benchmarks.gateway.servers import Server, TargetError, running
from benchmarks.gateway.targets import DIRECT, ROOT, Target
from benchmarks.gateway.targets import mock as mock_target
from benchmarks.gateway.ttft import BURST, PACE_MS, STREAMS, Stream, measure

LOADS: Final = tuple(Load(kind, connections) for kind in ("plain", "stream") for connections in (1, 16))
WARM_UP_S: Final = 2  # 16 streams of LiteLLM take 0.7 s of CPU before the first of them ends
QUIET_LOOK_S: Final = 0.5  # before a round, when nothing of ours runs
IMPORT_PROBE: Final = "import time; a = time.process_time(); import {module}; print(time.process_time() - a)"

Maker: TypeAlias = Callable[[str, ExitStack], Target]  # the mock's base URL, and where to put what must be undone


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a run is: so many rounds, so many seconds a measurement."""

    rounds: int
    seconds: int


def run(makers: Sequence[Maker], plan: Plan, results: Results, say: Callable[[str], None]) -> None:
    """Measure the mock itself and all targets; fill `results`. Raises TargetError and LoadError."""
    for number in range(1, plan.rounds + 1):
        results.add(DIRECT, BUSY, psutil.cpu_percent(QUIET_LOOK_S))
        results.add(DIRECT, LOOP, loop_ms())
        with ExitStack() as stack:
            mock = mock_target()
            targets = [mock, *(make(mock.base_url, stack) for make in makers)]
            servers = [stack.enter_context(running(target)) for target in targets]
            for server in servers:
                _note_start(server, results)
                _require_the_answer(server)
            for load in LOADS:
                say(f"round {number} of {plan.rounds}: {load.name}")
                for server in servers:
                    _note_load(server, load, plan.seconds, results)
            say(f"round {number} of {plan.rounds}: {PACE_MS} ms a chunk")
            for server in servers:
                _note_paced(server, mock, plan.seconds, results)
            for server in servers:
                results.add(server.target.name, "memory.peak_mb", server.peak_rss_mb())
    for load in LOADS:
        for metric in ("p50_ms", "p99_ms"):
            results.subtract_direct(f"{load.name}.{metric}", f"{load.name}.added_{metric}")


def loop_ms() -> float:
    """How fast this machine runs Python just now: CPU time of a million additions."""
    begun_s, total = time.process_time(), 0
    for i in range(1_000_000):
        total += i
    return (time.process_time() - begun_s) * 1e3


def _note_start(server: Server, results: Results) -> None:
    target = server.target
    results.add(target.name, "start.ready_s", server.ready_s)
    results.add(target.name, "memory.idle_mb", server.rss_mb())
    if target.imports is not None:
        results.add(target.name, "start.import_cpu_s", import_cpu_s(target.imports))


def import_cpu_s(module: str) -> float:
    """CPU seconds that importing the module takes in a fresh interpreter (its byte code is compiled already)."""
    command = [sys.executable, "-c", IMPORT_PROBE.format(module=module)]
    return float(subprocess.check_output(command, cwd=ROOT))


def _note_load(server: Server, load: Load, seconds: int, results: Results) -> None:
    drive(server.target, load, seconds=WARM_UP_S)
    before_s = server.cpu_s()
    measured = drive(server.target, load, seconds=seconds)
    cpu_ms = (server.cpu_s() - before_s) * 1e3 / measured.requests
    values = {
        "p50_ms": measured.p50_ms,
        "p99_ms": measured.p99_ms,
        "cpu_ms": cpu_ms,
        "per_s": measured.requests / measured.seconds,
        "errors": measured.errors,
    }
    for metric, value in values.items():
        results.add(server.target.name, f"{load.name}.{metric}", value)


def _note_paced(server: Server, mock: Target, seconds: int, results: Results) -> None:
    set_pace(mock, PACE_MS)
    before_s = server.cpu_s()
    try:
        streams = measure(server.target, seconds=seconds)
    finally:
        set_pace(mock, 0)
    asked = len(streams) + STREAMS  # the wave that warms up is not in `streams`, but cost its share
    values = {"cpu_ms": (server.cpu_s() - before_s) * 1e3 / asked, **summary(streams)}
    for metric, value in values.items():
        results.add(server.target.name, f"paced.{metric}", value)


def summary(streams: Sequence[Stream]) -> dict[str, float]:
    """Time to the first token and the share of gaps that are bursts. Raises TargetError if a stream had no content."""
    if not streams or any(not stream.arrivals_s for stream in streams):
        raise TargetError(f"streams without content, status {sorted({stream.status for stream in streams})}")
    first_ms = sorted(stream.first_s * 1e3 for stream in streams)
    gaps_ms = [gap * 1e3 for stream in streams for gap in stream.gaps_s]
    return {
        "ttft_p50_ms": first_ms[len(first_ms) // 2],
        "ttft_p99_ms": first_ms[min(len(first_ms) * 99 // 100, len(first_ms) - 1)],
        "bursts_percent": 100 * sum(gap < BURST * PACE_MS for gap in gaps_ms) / len(gaps_ms),
    }


def set_pace(mock: Target, pace_ms: int) -> None:
    """Tell the mock how far apart the chunks of later streams are."""
    uvloop.run(_post(f"http://127.0.0.1:{mock.port}/pace/{pace_ms}", {}, {}))


def _require_the_answer(server: Server) -> None:
    """One plain and one streamed request, read in full: what is measured must be the mock's answer, whole."""
    target = server.target
    for stream in (False, True):
        messages = [{"role": "user", "content": PROMPT % 0}]
        ask: dict[str, object] = {"model": target.model, "stream": stream, "messages": messages}
        body = uvloop.run(_post(target.url, ask, target.headers))
        try:
            said = _streamed_text(body) if stream else _plain_text(body)
        except (msgspec.DecodeError, LookupError, TypeError) as error:
            raise TargetError(f"{target.name} answered {body[:500]!r}:\n{server.last_words()}") from error
        if said != ANSWER:
            raise TargetError(f"{target.name} changed the answer to {said!r}")


async def _post(url: str, ask: dict[str, object], headers: dict[str, str]) -> bytes:
    async with aiohttp.ClientSession() as session, session.post(url, json=ask, headers=headers) as response:
        return await response.read()


def _plain_text(body: bytes) -> str:
    return str(msgspec.json.decode(body)["choices"][0]["message"]["content"])


def _streamed_text(body: bytes) -> str:
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event.startswith(b"data: {")]
    choices = [choice for event in events for choice in msgspec.json.decode(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
