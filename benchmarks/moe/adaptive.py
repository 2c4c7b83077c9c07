"""AdaMoE and top-p: fewer experts for a token at the same loss?

    OMP_NUM_THREADS=1 python -m benchmarks.moe.adaptive                              # Markov domains, 4 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.moe.adaptive --model moe/artifacts/tiny   # the shipped model, 4 CPU minutes

One trained model is fine-tuned under each policy, on the same data in the same order: its own top-k; null experts
(arXiv 2406.13233); top-p (arXiv 2403.07652) with p set so that the base model uses 0.8 k. The claim holds if the mean
number of true experts is at most 0.9 k, its standard deviation over tokens above 0.3, and the loss on fresh data within
0.01 of top-k's.
Negative control: top-k of which slots are dropped at random, fine-tuned too, at the mean of the null experts'. If that
is as good, the task needs no second expert and the claim is empty. Top-k's own loss with one expert less stands
beside it.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import click
import torch
from transformers import OlmoeConfig, OlmoeForCausalLM

from benchmarks.moe.domains import Domains
from benchmarks.moe.fitting import Batch, Fit, nll, save, show, train
from conclave.moe.adapt import Adapted, adapt
from conclave.moe.policies.topk import TopK
from conclave.moe.routing import POLICIES, Choice, Policy, Routing, Scored, Step

DOMAINS = 8
SHARPNESS = (0.2, 3.0)  # of the chains' chances: every second domain is nearly even, the others nearly certain
TARGET = 0.8  # of k


@dataclass(frozen=True)
class RandomDrop:
    """Top-k less slots thrown away by chance, the first always kept: what a policy must be better than."""

    inner: TopK
    drop: float
    null_experts: int = 0
    renormalise: bool | None = None
    looks_back: bool = False

    def check(self, experts: int) -> None:
        self.inner.check(experts)

    def select(self, scored: Scored, step: Step, layer: int) -> Choice:
        found = self.inner.select(scored, step, layer)
        gone = torch.rand(found.index.shape) < self.drop
        gone[:, 0] = False
        return Choice(found.index.masked_fill(gone, scored.experts), found.weight)

    def loss(self, routing: Routing, step: Step) -> torch.Tensor:
        return self.inner.loss(routing, step)


def markov(steps: int) -> tuple[Any, Iterator[Batch], list[Batch], Domains]:
    """A top-2 model of eight experts, trained here."""
    domains = Domains.make(DOMAINS, seed=0, sharpness=SHARPNESS)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    made = OlmoeForCausalLM(
        OlmoeConfig(
            **shape,
            vocab_size=domains.vocabulary,
            num_experts=8,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            output_router_logits=True,
            max_position_embeddings=64,
            pad_token_id=None,
            eos_token_id=None,
        )
    )
    train(made, domains.batches(seed=1), Fit(steps=steps))
    made.config.output_router_logits = False
    return made, domains.batches(seed=2), list(islice(domains.batches(seed=3), 20)), domains


def shipped(folder: Path) -> tuple[Any, Iterator[Batch], list[Batch], None]:
    """The tiny model, and its own kind of chats from seeds that its training did not use."""
    from conclave.moe.checkpoint import load  # noqa: PLC0415  only for this arm
    from conclave.moe.corpus import Corpus  # noqa: PLC0415
    from conclave.moe.tiny import Schedule, batches, router_topics  # noqa: PLC0415

    opened = load(folder, dtype=torch.float32)
    corpus = Corpus(topics=router_topics())

    def stream(seed: int) -> Iterator[Batch]:
        return batches(corpus, opened.tokenizer, replace(Schedule(), seed=seed, batch_tokens=1024))

    return opened.model, stream(101), list(islice(stream(102), 30)), None


def p_for(adapted: Adapted, batch: Batch, target: float) -> float:
    """The p at which the model, as it is, uses `target` experts for a token of `batch`."""
    low, high = 0.02, 0.98
    for _ in range(8):
        middle = (low + high) / 2
        policy = POLICIES.make({"name": "topp", "p": middle, "experts_max": int(adapted.layers[0].router.top_k)})
        with adapted.installed(policy), torch.no_grad():
            adapted.model(**batch)
            low, high = (middle, high) if adapted.meter.experts_per_token < target else (low, middle)
    return round((low + high) / 2, 3)


def spread(adapted: Adapted, batch: Batch) -> float:
    """Standard deviation over tokens of the experts used, mean over layers."""
    adapted.model.train()  # routings are kept in training only
    with torch.no_grad():
        adapted.model(**batch)
    found = [float(routing.used.float().std()) for routing in adapted.routings]
    adapted.model.eval()
    return sum(found) / len(found)


def arm(
    base: Any, policy: Policy, batches: list[Batch], test: list[Batch], *, rate: float
) -> tuple[Adapted, dict[str, Any]]:
    adapted = adapt(copy.deepcopy(base))
    adapted.install(policy)
    torch.manual_seed(0)
    fit = Fit(steps=len(batches), peak_rate=rate, warm_up=max(1, len(batches) // 10))
    seconds = train(adapted.model, batches, fit, extra=lambda _m, _b: adapted.loss(), more=adapted.parameters())
    adapted.meter.reset()
    loss = nll(adapted.model, test)
    used = adapted.meter.experts_per_token
    return adapted, {"nll": loss, "experts": used, "experts_std": spread(adapted, test[0]), "cpu_s": round(seconds, 1)}


@click.command(help=__doc__)
@click.option("--model", "folder", type=click.Path(path_type=Path, exists=True), help="Instead of Markov domains.")
@click.option("--base-steps", default=400, show_default=True)
@click.option("--steps", default=150, show_default=True)
def main(folder: Path | None, base_steps: int, steps: int) -> None:
    base, stream, test, domains = markov(base_steps) if folder is None else shipped(folder)
    batches = list(islice(stream, steps))
    adapted = adapt(base)
    k, experts = int(adapted.layers[0].router.top_k), adapted.layers[0].width
    p = p_for(adapted, test[0], TARGET * k)
    null = {"name": "null", "k": round(1.5 * k), "nulls": experts, "balance": 0.01}
    policies: dict[str, Policy] = {
        "topk": TopK(k=k),
        "null": POLICIES.make(null),
        "topp": POLICIES.make({"name": "topp", "p": p, "experts_max": k}),
        "topk_less_one": TopK(k=k - 1),
    }
    rows: list[dict[str, Any]] = []
    rate = 1e-3 if folder is None else 5e-4
    for name in [*policies, "random_drop"]:
        if name == "random_drop":
            mean = next(row["experts"] for row in rows if row["arm"] == "null")
            policy: Policy = RandomDrop(TopK(k=k), drop=min(0.99, max(0.0, (k - mean) / (k - 1))))
        else:
            policy = policies[name]
        made, found = arm(base, policy, batches, test, rate=rate)
        row = {"substrate": "markov" if folder is None else folder.name, "arm": name, "k": k, "p": p} | found
        if domains is not None:
            row["entropy_correlation"] = correlation(made, domains)
        rows.append(row)
        show(rows[-1:])
    print(save("adaptive_markov" if folder is None else f"adaptive_{folder.name}", rows))


def correlation(adapted: Adapted, domains: Domains) -> float:
    """Between a domain's entropy and the experts its tokens use. 0 where all use the same number."""
    used = []
    for domain in range(DOMAINS):
        adapted.meter.reset()
        nll(adapted.model, islice(domains.batches(seed=4, domain=domain), 2))
        used.append(adapted.meter.experts_per_token)
    pair = torch.stack([torch.tensor(used), domains.floor()])
    return 0.0 if pair[0].std() < 0.01 else float(torch.corrcoef(pair)[0, 1])  # noqa: PLR2004  chance alone


if __name__ == "__main__":
    main()
