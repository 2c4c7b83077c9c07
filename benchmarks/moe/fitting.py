"""What the experiments share: a small model around a block, one way to train it, the loss on fresh data, a CSV.

Every arm of an experiment gets the same data in the same order, the same steps and the same learning rate.
"""

import csv
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from conclave.moe.block import BlockSpec
from conclave.moe.model import ConclaveMoeConfig, ConclaveMoeForCausalLM

RESULTS = Path(__file__).parent / "results"
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Fit:
    """How an arm is trained."""

    steps: int = 400
    peak_rate: float = 3e-3
    warm_up: int = 40

    def rate(self, step: int) -> float:
        """Linear up, then linear down to a twentieth."""
        down = 1.0 - 0.95 * max(0, step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.peak_rate * min((step + 1) / self.warm_up, down)


def model(spec: BlockSpec, *, vocabulary: int, width: int = 64, layers: int = 2, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return ConclaveMoeForCausalLM(
        ConclaveMoeConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
            block=spec.settings(),
        )
    )


def train(
    made: Any,
    batches: Iterable[Batch],
    fit: Fit,
    *,
    extra: Callable[[Any, Batch], torch.Tensor] | None = None,
    more: Iterable[torch.Tensor] = (),
) -> float:
    """Train in place; the CPU seconds that it took. `extra` is added to the loss, `more` are further parameters."""
    began = time.process_time()
    optimiser = torch.optim.AdamW([*made.parameters(), *more], lr=fit.peak_rate, betas=(0.9, 0.98), weight_decay=0.01)
    made.train()
    for step, batch in zip(range(fit.steps), batches, strict=False):
        for group in optimiser.param_groups:
            group["lr"] = fit.rate(step)
        loss = made(**batch).loss
        if extra is not None:
            loss = loss + extra(made, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    made.eval()
    return time.process_time() - began


def nll(made: Any, batches: Iterable[Batch]) -> float:
    """Mean negative log-likelihood of the labels, in nats a token."""
    total, counted = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            number = int((batch["labels"][:, 1:] != -100).sum())  # noqa: PLR2004  transformers' mark
            total += float(made(**batch).loss) * number
            counted += number
    return total / counted


def save(name: str, rows: list[Mapping[str, Any]]) -> Path:
    """A CSV with the versions and the commit in every row."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    made_by = {
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[*rows[0], *made_by], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **made_by} for row in rows)
    return path


def show(rows: list[Mapping[str, Any]]) -> None:
    for row in rows:
        print("  ".join(f"{k}={v:.4f}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()))
