"""The OLMoE-shaped expert layer on a CPU: our paths beside transformers' own, interleaved, in bf16.

    OMP_NUM_THREADS=1 python -m conclave.kernels.bench.cpu_moe --threads 1 --rounds 9 --out benchmarks/kernels/results

Each round draws new tokens and experts and asks every implementation once, in turn, so that what else the machine does
hits all alike; a ratio is the median of the rounds' own ratios. Wall time and CPU time of the process are both kept: on
a shared machine the second is the steadier. It takes about a minute of CPU time a round, nearly all of it in
transformers' implementations at 1,024 tokens. `batched_mm` copies each slot's weights and is asked at one token only.
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm
from transformers import OlmoeConfig
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from conclave.kernels.bench.rows import csv_rows
from conclave.kernels.bench.shapes import SHAPES
from conclave.kernels.dispatch import NAME, prepare_model, register

SHAPE = SHAPES[0]
TOKENS = (1, 16, 256, 1024)
PEERS = ("eager", "grouped_mm", "batched_mm")
BATCHED_MOST = 1  # tokens: at 16 it is 15 to 28 times slower than grouped_mm
INT8 = f"{NAME} int8"

Timed = dict[str, list[tuple[float, float]]]  # implementation -> (wall, CPU) seconds of each round


@click.command()
@click.option("--threads", type=click.IntRange(1), required=True, help="Threads for torch and numba.")
@click.option("--rounds", type=click.IntRange(3), default=9, show_default=True, help="Rounds at each size.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the CSV.")
def main(threads: int, rounds: int, out: Path) -> None:
    """Measure 1, 16, 256 and 1,024 tokens and write one CSV row for each size and implementation."""
    torch.set_num_threads(threads)
    register()
    plain, rounded = _experts(), None
    device = f"{platform.machine()} {os.cpu_count()} cores, {threads} threads"
    with csv_rows(out, name=f"cpu-{threads}t", device=device) as write:
        for tokens in TOKENS:
            rounded = rounded or _experts(like=plain)
            timed, difference = _measure(_candidates(plain, rounded, tokens), tokens, rounds)
            _report(timed, difference, tokens=tokens, write=write)


def _experts(*, like: Any = None) -> Any:
    """The layer with random weights; `like` shares another's weights and decodes in int8."""
    config = OlmoeConfig(hidden_size=SHAPE.hidden, intermediate_size=SHAPE.inter, num_experts=SHAPE.experts)
    with torch.device("meta"):
        experts = OlmoeExperts(config)
    if like is not None:
        experts.gate_up_proj, experts.down_proj = like.gate_up_proj, like.down_proj
        prepare_model(experts, int8=True)
        return experts
    rng = torch.Generator().manual_seed(0)
    for name, width in (("gate_up_proj", SHAPE.hidden), ("down_proj", SHAPE.inter)):
        weights = torch.empty(getattr(experts, name).shape, dtype=torch.bfloat16)
        weights.normal_(0, width**-0.5, generator=rng)
        setattr(experts, name, torch.nn.Parameter(weights, requires_grad=False))
    return experts


def _candidates(plain: Any, rounded: Any, tokens: int) -> dict[str, Callable[..., torch.Tensor]]:
    def through(experts: Any, implementation: str) -> Callable[..., torch.Tensor]:
        def call(*routed: torch.Tensor) -> torch.Tensor:
            experts.config._experts_implementation = implementation
            out: torch.Tensor = experts(*routed)
            return out

        return call

    peers = [name for name in PEERS if name != "batched_mm" or tokens <= BATCHED_MOST]
    return {name: through(plain, name) for name in (*peers, NAME)} | {INT8: through(rounded, NAME)}


def _measure(
    candidates: dict[str, Callable[..., torch.Tensor]], tokens: int, rounds: int
) -> tuple[Timed, dict[str, float]]:
    """The times, and how far each answer of the first round is from eager's, in norm. The first round is not timed."""
    rng = torch.Generator().manual_seed(tokens)
    timed: Timed = {name: [] for name in candidates}
    difference: dict[str, float] = {}
    with torch.no_grad():
        for i in tqdm(range(rounds + 1), desc=f"{tokens} tokens", disable=not sys.stderr.isatty()):
            x = torch.randn(tokens, SHAPE.hidden, generator=rng).bfloat16()
            order = torch.rand(tokens, SHAPE.experts, generator=rng).argsort(-1)[:, : SHAPE.top_k]
            weights = torch.rand(tokens, SHAPE.top_k, generator=rng).softmax(-1).bfloat16()
            answers = {}
            for name, call in candidates.items():
                wall, cpu = time.perf_counter(), time.process_time()
                answers[name] = call(x, order, weights)
                timed[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            if i == 0:
                eager = answers["eager"].double()
                difference = {n: float((a.double() - eager).norm() / eager.norm()) for n, a in answers.items()}
                timed = {name: [] for name in candidates}
    return timed, difference


def _report(timed: Timed, difference: dict[str, float], *, tokens: int, write: Any) -> None:
    """Ratios above 1 say how many times faster than eager, and than the best peer of the same round."""
    for name, times in timed.items():
        walls, cpus = [wall for wall, _ in times], [cpu for _, cpu in times]
        to_eager = _ratio(timed, ["eager"], name, 1)
        to_best = _ratio(timed, [peer for peer in PEERS if peer in timed], name, 1)
        row = {
            "shape": SHAPE.name,
            "dtype": "bfloat16",
            "tokens": tokens,
            "implementation": name,
            "rounds": len(times),
            "wall_median_ms": round(statistics.median(walls) * 1e3, 3),
            "wall_p90_ms": round(sorted(walls)[int(0.9 * (len(walls) - 1))] * 1e3, 3),
            "cpu_median_ms": round(statistics.median(cpus) * 1e3, 3),
            "eager_over_this_wall": round(_ratio(timed, ["eager"], name, 0), 3),
            "eager_over_this_cpu": round(to_eager, 3),
            "best_peer_over_this_wall": round(_ratio(timed, [p for p in PEERS if p in timed], name, 0), 3),
            "best_peer_over_this_cpu": round(to_best, 3),
            "difference_to_eager": f"{difference[name]:.2e}",
        }
        write(**row)
        print(" ".join(f"{value}" for value in row.values()))


def _ratio(timed: Timed, peers: list[str], name: str, clock: int) -> float:
    """Median over the rounds of (the least of the peers' times) / (ours); clock 0 is wall time, 1 CPU time."""
    ours = [times[clock] for times in timed[name]]
    theirs = [min(timed[peer][i][clock] for peer in peers) for i in range(len(ours))]
    return statistics.median(their / our for their, our in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    main()
