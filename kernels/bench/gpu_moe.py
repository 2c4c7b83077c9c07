"""The expert layer on a GPU: correct first, then timed beside transformers' own, a cuBLAS loop and the two roofs.

    python -m conclave.kernels.bench.gpu_moe --budget 540 --out benchmarks/kernels/results

Within the budget in seconds: the roofs (copy, and a bf16 product of 8192 x 8192 on random data); every path against
float64 at small sizes; then five models' shapes at 1 to 16,384 tokens. A size that does not fit the time or the memory
left is left out, and the output says so. Times are medians of 12 calls between CUDA events, after warming up; at few
tokens our path is also replayed from a CUDA graph, as a server would. Four draws of tokens and experts take turns:
one token's weights alone would come from the L2 cache. It needs a CUDA device; without one it says so and exits with 1.

Written and checked without a GPU at hand: it has not run on one yet.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from transformers import OlmoeConfig
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from conclave.kernels.bench.rows import Write, csv_rows
from conclave.kernels.bench.shapes import SHAPES, Shape
from conclave.kernels.dispatch import NAME, register
from conclave.kernels.experts.launch import choose_path, triton_experts
from conclave.kernels.experts.reference import oracle, sorted_loop

TOKENS = (1, 2, 4, 8, 16, 32, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)
GRAPH_TOKENS = 64  # up to which launches weigh enough to replay them
BATCHED_BYTES = 20 << 30  # batched_mm copies every slot's weights: above this it is left out
CALLS, WARM_UP, DRAWS = 12, 4, 4
COPY_BYTES, PRODUCT = 4 << 30, 8192
CHECKED = (Shape("checked", 128, 64, 16, 4), Shape("checked, no descriptors", 123, 65, 16, 4))
CHECK_TOKENS = (1, 3, 17, 65, 256)
CHECK_BOUND = 2**-7  # one unit of bf16, as in the tests: the hidden layer and the answer are rounded once each


@dataclass(frozen=True, slots=True)
class Roofs:
    bytes_s: float
    operations_s: float


@click.command()
@click.option("--budget", type=click.FloatRange(min=30), default=540, show_default=True, help="Seconds in all.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the CSV.")
def main(budget: float, out: Path) -> None:
    """Measure and write one CSV row for each shape, size and implementation; exit 1 if an answer is wrong."""
    end = time.monotonic() + budget
    if not torch.cuda.is_available():
        click.echo("This needs a CUDA device, and torch sees none. For a CPU: conclave.kernels.bench.cpu_moe", err=True)
        sys.exit(1)
    register()
    torch.manual_seed(0)
    with torch.no_grad(), csv_rows(out, name="gpu", device=torch.cuda.get_device_name()) as write:
        roofs = _roofs()
        click.echo(f"copy {roofs.bytes_s / 1e12:.2f} TB/s, bf16 {roofs.operations_s / 1e12:.0f} TFLOP/s")
        if wrong := list(_wrong()):
            click.echo("\n".join(wrong), err=True)
            sys.exit(1)
        for i, shape in enumerate(SHAPES):
            share = (end - time.monotonic()) / (len(SHAPES) - i)  # what one shape leaves over goes to the next
            _measure(shape, roofs, until=time.monotonic() + share, write=write)


def _roofs() -> Roofs:
    """What this device does at best, today: a copy counts its bytes twice."""
    source = torch.empty(COPY_BYTES // 2, dtype=torch.bfloat16, device="cuda").normal_()
    target = torch.empty_like(source)
    copy = _median_s([partial(target.copy_, source)])
    a, b = (torch.randn(PRODUCT, PRODUCT, device="cuda").bfloat16() for _ in range(2))
    return Roofs(2 * COPY_BYTES / copy, 2 * PRODUCT**3 / _median_s([partial(torch.mm, a, b)]))


def _wrong() -> Iterator[str]:
    """Each path at each small size whose error ratio to float64 is not within the bound."""
    for shape in CHECKED:
        weights = _weights(shape)
        for tokens in CHECK_TOKENS:
            x, ids, routing = _routed(shape, tokens)
            ids[-1, 0], routing[-1, 0] = -1, float("nan")
            truth = oracle(*(part.cpu() for part in (x, *weights, ids, routing)))
            for path in ("direct", "decode", "prefill"):
                found = triton_experts(x, *weights, ids, routing, path=path).double().cpu()
                ratio = float((found - truth).norm() / truth.norm())
                if not ratio <= CHECK_BOUND:  # NaN too
                    yield f"{shape.name}, {tokens} tokens, {path}: error ratio {ratio:.2e}, bound {CHECK_BOUND:.2e}"


def _measure(shape: Shape, roofs: Roofs, *, until: float, write: Write) -> None:
    weights = _weights(shape)
    experts = _experts(shape, weights)
    for tokens in TOKENS:
        draws = [_routed(shape, tokens) for _ in range(DRAWS)]
        active = statistics.mean(len(ids.unique()) for _, ids, _ in draws)
        floor = shape.floor_s(tokens, active=round(active), bytes_s=roofs.bytes_s, operations_s=roofs.operations_s)
        for name, calls in _candidates(shape, tokens, experts, weights, draws):
            if time.monotonic() > until:
                click.echo(f"{shape.name}: the time is up at {tokens} tokens, {name}")
                return
            try:
                median = _graphed_s(calls) if name.endswith("graph") else _median_s(calls)
            except torch.OutOfMemoryError:
                click.echo(f"{shape.name}, {tokens} tokens, {name}: not enough memory, left out")
                torch.cuda.empty_cache()
                continue
            row = {
                "shape": shape.name,
                "tokens": tokens,
                "implementation": name,
                "path": choose_path(tokens, shape.top_k, experts=shape.experts) if name.startswith(NAME) else "",
                "median_us": round(median * 1e6, 1),
                "floor_us": round(floor * 1e6, 1),
                "share_of_floor": round(floor / median, 4),
                "gb_s": round(shape.bytes_moved(tokens, active=round(active)) / median / 1e9, 1),
                "tflop_s": round(shape.operations(tokens) / median / 1e12, 2),
                "copy_tb_s": round(roofs.bytes_s / 1e12, 3),
                "bf16_tflop_s": round(roofs.operations_s / 1e12, 1),
            }
            write(**row)
            print(" ".join(f"{value}" for value in row.values()), flush=True)


def _candidates(
    shape: Shape, tokens: int, experts: Any, weights: tuple[torch.Tensor, torch.Tensor], draws: list[Any]
) -> Iterator[tuple[str, list[Callable[[], Any]]]]:
    """Every implementation as one call a draw; the draws are asked in turn."""

    def through(implementation: str) -> list[Callable[[], Any]]:
        def call(routed: Any) -> Any:
            experts.config._experts_implementation = implementation
            return experts(*routed)

        return [partial(call, routed) for routed in draws]

    yield NAME, through(NAME)
    if tokens <= GRAPH_TOKENS:
        yield f"{NAME} graph", through(NAME)
    if tokens * shape.top_k * 6 * shape.hidden * shape.inter < BATCHED_BYTES:
        yield "batched_mm", through("batched_mm")
    yield "grouped_mm", through("grouped_mm")
    yield "eager", through("eager")
    yield "cuBLAS loop", [partial(sorted_loop, x, *weights, ids, routing) for x, ids, routing in draws]


def _median_s(calls: list[Callable[[], Any]]) -> float:
    """Median of `CALLS` calls, each between two events on the device's own clock."""
    for i in range(WARM_UP):
        calls[i % len(calls)]()
    times: list[float] = []
    for i in range(CALLS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        calls[i % len(calls)]()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def _graphed_s(calls: list[Callable[[], Any]]) -> float:
    """The same, replayed from CUDA graphs: without the host's part of a launch."""
    graphs = []
    for call in calls:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        graphs.append(graph)
    return _median_s([graph.replay for graph in graphs])


def _weights(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """Random normal, made on the device: zeros would flatter every product."""
    w1 = torch.empty(shape.experts, 2 * shape.inter, shape.hidden, dtype=torch.bfloat16, device="cuda")
    w2 = torch.empty(shape.experts, shape.hidden, shape.inter, dtype=torch.bfloat16, device="cuda")
    return w1.normal_(0, shape.hidden**-0.5), w2.normal_(0, shape.inter**-0.5)


def _experts(shape: Shape, weights: tuple[torch.Tensor, torch.Tensor]) -> Any:
    config = OlmoeConfig(hidden_size=shape.hidden, intermediate_size=shape.inter, num_experts=shape.experts)
    with torch.device("meta"):
        experts = OlmoeExperts(config)
    experts.gate_up_proj, experts.down_proj = (torch.nn.Parameter(w, requires_grad=False) for w in weights)
    return experts


def _routed(shape: Shape, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(tokens, shape.hidden, device="cuda").bfloat16()
    scores, ids = torch.rand(tokens, shape.experts, device="cuda").topk(shape.top_k, dim=-1)
    return x, ids, scores.softmax(-1)


if __name__ == "__main__":
    main()
