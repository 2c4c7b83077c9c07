"""DeepSeekMoE (arXiv 2401.06066): do finer and shared experts help at equal total and active parameters?

    OMP_NUM_THREADS=1 python -m benchmarks.moe.fine_grained            # about 7 CPU minutes

Arms: (i) 8 experts of 64, 2 active; (ii) 32 of 16, 8 active; (iii) 31 of 16 routed, 7 active, 1 shared. Three seeds
of data, weights and order. The claim holds if the mean loss is ordered (iii) <= (ii) + 0.01 <= (i) + 0.02. The
paper's own test of redundancy: the loss when the most used share of routed experts is forbidden rises faster in (iii)
than in (i).
Negative control: (i) with a random, untrained gate; if it is as good, the task does not need routing and says nothing.
"""

from itertools import islice
from typing import Any

import click
import torch

from benchmarks.moe.domains import Domains
from benchmarks.moe.fitting import Fit, model, nll, save, show, train
from conclave.moe.block import BlockSpec, fine_grained
from conclave.moe.routing import Limits

COARSE = BlockSpec(experts=8, inner=64, policy={"name": "topk", "k": 2, "balance": 0.01})
ARMS = {
    "coarse": COARSE,
    "fine": fine_grained(COARSE, split=4),
    "fine_shared": fine_grained(COARSE, split=4, shared=1),
    "random_gate": COARSE,
}
ROWS = 32


def without_the_busiest(made: Any, domains: Domains, share: float, *, seed: int) -> float:
    """The loss when in the first layer's order of use the busiest `share` of routed experts is forbidden everywhere."""
    made.meter.reset()
    test = list(islice(domains.batches(seed=seed, rows=ROWS), 6))
    nll(made, test)
    load = torch.tensor([use.load for use in made.meter.layers()]).mean(dim=0)  # [E]
    gone = load.topk(int(share * len(load))).indices
    allowed = torch.ones(ROWS, len(load), dtype=torch.bool)
    allowed[:, gone] = False
    with made.limited(Limits(allowed=allowed)):
        return nll(made, test)


@click.command(help=__doc__)
@click.option("--steps", default=400, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--domains", "number", default=12, show_default=True)
def main(steps: int, seeds: int, number: int) -> None:
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        domains = Domains.make(number, seed=seed)
        floor = float(domains.floor().mean())
        for name, spec in ARMS.items():
            made = model(spec, vocabulary=domains.vocabulary, seed=seed)
            if name == "random_gate":
                for block in made.blocks:
                    block.gates[0].weight.data.mul_(25.0)  # as decided as a trained one
                    block.gates[0].weight.requires_grad_(False)
            seconds = train(made, domains.batches(seed=100 + seed, rows=ROWS), Fit(steps=steps))
            loss = nll(made, islice(domains.batches(seed=900 + seed, rows=ROWS), 20))
            rows.append(
                {
                    "arm": name,
                    "seed": seed,
                    "nll": loss,
                    "above_floor": loss - floor,
                    "without_busiest_quarter": without_the_busiest(made, domains, 0.25, seed=800 + seed) - loss,
                    "experts_per_token": made.meter.experts_per_token,
                    "parameters": sum(p.numel() for p in made.parameters()),
                    "steps": steps,
                    "cpu_s": round(seconds, 1),
                }
            )
            show(rows[-1:])
    print(save("fine_grained", rows))


if __name__ == "__main__":
    main()
