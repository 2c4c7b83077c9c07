"""The tiny model end to end: time to its first token and tokens a second, asked directly and through the gateway.

    OMP_NUM_THREADS=1 python -m benchmarks.moe.serving --rounds 20

Both doors stand before the same local expert and are asked in turn, so that what else the machine does meets both.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import openai

from tests.e2e.processes import free_port, until

ASKED = [{"role": "user", "content": "What is Conclave?"}]


def started(command: list[str], port: int, folder: Path) -> subprocess.Popen[bytes]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / f"{port}.log").open("ab") as out:
        process = subprocess.Popen([sys.executable, "-m", "conclave.gateway.cli", *command], cwd=folder, env=env,
                                   stdout=out, stderr=out)  # fmt: skip

    def listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listening, "it listens", limit_s=120)
    return process


def ask(client: openai.OpenAI, model: str) -> tuple[float, float]:
    """Seconds to the first text, and pieces of text a second after it."""
    began, first, pieces = time.perf_counter(), 0.0, 0
    with client.chat.completions.create(model=model, messages=ASKED, stream=True) as stream:  # type: ignore[call-overload]
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                first = first or time.perf_counter()
                pieces += 1
    return first - began, (pieces - 1) / (time.perf_counter() - first)


@click.command()
@click.option("--rounds", default=20, show_default=True)
def main(rounds: int) -> None:
    """Ask both doors in turn and print the medians."""
    folder = Path(tempfile.mkdtemp(prefix="conclave-serving-"))
    expert, gateway, admin = free_port(), free_port(), free_port()
    local = {"kind": "openai", "model": "tiny", "base_url": f"http://127.0.0.1:{expert}/v1"}
    (folder / "conclave.yaml").write_text(json.dumps({"policy": {"experts": {"local": local}, "default": ["local"]}}))
    processes = [started(["moe", "serve", "--port", str(expert)], expert, folder)]
    try:
        processes.append(started(["serve", "--port", str(gateway), "--admin-port", str(admin)], gateway, folder))
        doors = {
            "directly": (openai.OpenAI(base_url=f"http://127.0.0.1:{expert}/v1", api_key="none"), "tiny"),
            "through the gateway": (openai.OpenAI(base_url=f"http://127.0.0.1:{gateway}/v1", api_key="none"), "local"),
        }
        for door in doors.values():
            ask(*door)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in doors}
        for _ in range(rounds):
            for name, door in doors.items():
                found[name].append(ask(*door))
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    for name, each in found.items():
        firsts, rates = [first * 1000 for first, _ in each], [rate for _, rate in each]
        print(
            f"{name}: first token {statistics.median(firsts):.0f} ms "
            f"(p90 {statistics.quantiles(firsts, n=10)[8]:.0f}), {statistics.median(rates):.0f} tokens/s"
        )
    more = [b[0] - a[0] for a, b in zip(found["directly"], found["through the gateway"], strict=True)]
    print(f"the gateway adds {statistics.median(more) * 1000:.1f} ms to the first token (median of {rounds} pairs)")


if __name__ == "__main__":
    main()
