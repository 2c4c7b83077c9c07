"""Chain-of-Experts (arXiv 2506.18945): does routing twice with half the experts beat routing once, at equal calls?

    OMP_NUM_THREADS=1 python -m benchmarks.moe.chain                   # about 4 CPU minutes

Task: [f, g, x] -> g(f(x)) for memorised permutations f and g of 16 values. One layer, so that a second step of work can
only come from the block. What counts is the loss on the triples that are trained on, after equal steps: too few to
learn them all. Arms, all with four expert calls for a token: single (4 at once), chain (2, then 2), and the paper's
ablations: one gate for both rounds, and residual around the whole only. The claim holds if the chain's mean loss is at
least 0.02 below single's and below both ablations'. Negative control: the same with one function, [f, -, x] -> f(x),
where there is nothing to chain. A tenth of the triples is held out: in so few steps no arm learns to compose.

Sizes and measure were chosen on seed 0 (with 360 triples every arm learned all of them by heart, and the chain's
held-out loss was no better); so seed 0 is not among the seeds that are reported.
"""

from collections.abc import Iterator
from typing import Any

import click
import torch

from benchmarks.moe.fitting import Batch, Fit, model, nll, save, show, train
from conclave.moe.block import BlockSpec

VALUES, FUNCTIONS = 16, 12
ROWS = 256


def _policy(k: int) -> dict[str, Any]:
    return {"name": "topk", "k": k, "balance": 0.01}


ARMS = {
    "single": BlockSpec(experts=16, inner=32, policy=_policy(4)),
    "chain": BlockSpec(experts=16, inner=32, policy=_policy(2), rounds=2, residual="inner"),
    "chain_one_gate": BlockSpec(experts=16, inner=32, policy=_policy(2), rounds=2, residual="inner", own_gates=False),
    "chain_outer_residual": BlockSpec(experts=16, inner=32, policy=_policy(2), rounds=2, residual="outer"),
}


class Tables:
    """All triples of the task, split once into those to learn and those held out."""

    def __init__(self, *, seed: int, hops: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        tables = torch.stack([torch.randperm(VALUES, generator=generator) for _ in range(FUNCTIONS)])
        f, g, x = torch.cartesian_prod(torch.arange(FUNCTIONS), torch.arange(FUNCTIONS), torch.arange(VALUES)).T
        answer = tables[f, x] if hops == 1 else tables[g, tables[f, x]]
        ids = torch.stack([VALUES + f, VALUES + FUNCTIONS + g, x, answer], dim=1)  # [triples, 4]
        order = torch.randperm(len(ids), generator=generator)
        self.held_out, self.learned = ids[order[: len(ids) // 10]], ids[order[len(ids) // 10 :]]
        self.vocabulary = VALUES + 2 * FUNCTIONS
        self._generator = generator

    def batches(self) -> Iterator[Batch]:
        while True:
            drawn = torch.randint(len(self.learned), (ROWS,), generator=self._generator)
            yield as_batch(self.learned[drawn])


def as_batch(ids: torch.Tensor) -> Batch:
    labels = ids.clone()
    labels[:, :-1] = -100
    return {"input_ids": ids, "labels": labels}


def accuracy(made: Any, ids: torch.Tensor) -> float:
    with torch.no_grad():
        return float((made(ids).logits[:, -2].argmax(dim=-1) == ids[:, -1]).float().mean())


@click.command(help=__doc__)
@click.option("--steps", default=500, show_default=True)
@click.option("--seeds", default=3, show_default=True)
def main(steps: int, seeds: int) -> None:
    rows: list[dict[str, Any]] = []
    for hops in (2, 1):
        for seed in range(1, seeds + 1):
            for name, spec in ARMS.items():
                if hops == 1 and name not in {"single", "chain"}:
                    continue
                tables = Tables(seed=seed, hops=hops)
                made = model(spec, vocabulary=tables.vocabulary, layers=1, seed=seed)
                seconds = train(made, tables.batches(), Fit(steps=steps // (1 if hops > 1 else 8), peak_rate=4e-3))
                made.meter.reset()
                loss = nll(made, [as_batch(tables.learned)])
                rows.append(
                    {
                        "hops": hops,
                        "arm": name,
                        "seed": seed,
                        "nll": loss,
                        "accuracy": accuracy(made, tables.learned),
                        "held_out_nll": nll(made, [as_batch(tables.held_out)]),
                        "expert_calls": made.meter.experts_per_token * spec.rounds,
                        "steps": steps,
                        "cpu_s": round(seconds, 1),
                    }
                )
                show(rows[-1:])
    print(save("chain", rows))


if __name__ == "__main__":
    main()
