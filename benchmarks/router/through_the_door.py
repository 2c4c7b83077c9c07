"""Where do real questions go? The development questions through a running gateway, with the real openai client.

    python -m benchmarks.router.through_the_door --data DIR [--limit N] [--out docs/routing-dev.md]

Starts a mock upstream and `conclave serve` with one expert per category and a `generalist` for what is unsure, asks
each question of category_dev, and prints which expert it went to, by true category. The accuracy must equal that of
`conclave router evaluate`, since it is the same classifier behind the door: the script fails if it does not. About a
minute on two cores.
"""

import argparse
import asyncio
import collections
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

from benchmarks.gateway.ports import free_port, wait_for_port
from conclave.router.classify import Router

CLIENTS = 16
HEAD = """# Where real questions went

The development questions of the classifier (`category_dev`, which it was not trained on), sent through a running
gateway with one expert for each category and a generalist for what is unsure:
`python -m benchmarks.router.through_the_door --data DIR --out docs/routing-dev.md`.

"""


def policy(categories: tuple[str, ...], upstream: str) -> dict[str, Any]:
    """One expert a category, each the same mock upstream under its own model name."""
    names = [*categories, "generalist"]
    experts = {name: {"kind": "openai", "model": name, "base_url": upstream} for name in names}
    return {
        "policy": {"experts": experts, "categories": {name: [name] for name in categories}, "default": ["generalist"]}
    }


async def ask_all(rows: list[dict[str, str]], url: str) -> list[dict[str, Any]]:
    """The `conclave` object of each answer, in the order of the rows."""
    found: list[dict[str, Any]] = [{} for _ in rows]
    queue = iter(enumerate(rows))
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def worker() -> None:
            for at, row in queue:
                answer = await client.chat.completions.create(
                    model="auto", messages=[{"role": "user", "content": row["text"]}]
                )
                found[at] = (answer.model_extra or {})["conclave"]

        await asyncio.gather(*(worker() for _ in range(CLIENTS)))
    return found


def table(rows: list[dict[str, str]], found: list[dict[str, Any]]) -> str:
    """True category by what was decided, as Markdown."""
    by_truth: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row, explained in zip(rows, found, strict=True):
        by_truth[row["category"]].append(explained)
    lines = [
        "| true category | questions | found | sent to its expert | unsure, to the generalist | most often elsewhere |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for truth, answers in sorted(by_truth.items()):
        right = sum(answer["category"] == truth for answer in answers)
        served = sum(answer["expert"] == truth for answer in answers)
        unsure = sum(answer["expert"] == "generalist" for answer in answers)
        others = collections.Counter(a["expert"] for a in answers if a["expert"] not in {truth, "generalist"})
        elsewhere = ", ".join(f"{name} {count}" for name, count in others.most_common(2)) or "-"
        lines.append(f"| {truth} | {len(answers)} | {right} | {served} | {unsure} | {elsewhere} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("CONCLAVE_DATA"), required="CONCLAVE_DATA" not in os.environ
    )
    parser.add_argument("--limit", type=int, default=None, help="ask only the first N questions")
    parser.add_argument("--out", type=Path, default=None, help="also write the table to this Markdown file")
    options = parser.parse_args()
    with gzip.open(Path(options.data) / "category_dev.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines][: options.limit]
    router = Router.load()
    alone = sum(router.classify(row["text"]).category == row["category"] for row in rows) / len(rows)
    with tempfile.TemporaryDirectory() as folder:
        found, took_s = through_the_door(rows, router.categories, Path(folder))
    right = sum(answer["category"] == row["category"] for answer, row in zip(found, rows, strict=True)) / len(rows)
    served = sum(a["expert"] == r["category"] for a, r in zip(found, rows, strict=True))
    unsure = sum(a["expert"] == "generalist" for a in found)
    text = (
        f"{len(rows)} questions in {took_s:.0f} s. Category found: {right:.4f} (the router alone: {alone:.4f}). "
        f"Sent to the expert of the true category: {served}; unsure, so sent to the generalist: {unsure}; "
        f"sent to another expert: {len(rows) - served - unsure}.\n\n{table(rows, found)}\n"
    )
    print(text)
    if options.out:
        options.out.write_text(HEAD + text)
    return 0 if right == alone else 1


def through_the_door(
    rows: list[dict[str, str]], categories: tuple[str, ...], folder: Path
) -> tuple[list[dict[str, Any]], float]:
    """Start mock and gateway, ask everything, stop both."""
    upstream, port, admin = free_port(), free_port(), free_port()
    (folder / "conclave.yaml").write_text(json.dumps(policy(categories, f"http://127.0.0.1:{upstream}/v1")))
    mock = subprocess.Popen([sys.executable, "-m", "benchmarks.gateway.mock", "--port", str(upstream)])
    serve = [sys.executable, "-m", "conclave.gateway.cli", "serve", "--port", str(port), "--admin-port", str(admin)]
    gateway = subprocess.Popen(serve, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(upstream)
        wait_for_port(port)
        began = time.monotonic()
        return asyncio.run(ask_all(rows, f"http://127.0.0.1:{port}/v1")), time.monotonic() - began
    finally:
        for process in (gateway, mock):
            process.send_signal(signal.SIGTERM)
            process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
