"""How a network learns several tasks at once: rows drawn by their odds, a loss a task on the rows that have its label.

The same rows, steps and rate for every network that is compared. Everything random is drawn from the plan's seed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

from conclave.router.train.multigate.gauges import Gauges, read
from conclave.router.train.multigate.network import Home, Plain, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

NETWORKS: Final[dict[str, type[Any]]] = {"home": Home, "plain": Plain}
UNKNOWN: Final = -1  # the label of a row that says nothing on a task
READ_ROWS: Final = 4096  # rows a pass when nothing is learnt


@dataclass(frozen=True, slots=True)
class Rows:
    """`inputs` [rows, inputs]; `labels` [rows, tasks], UNKNOWN where there is none; `odds` of being drawn, [rows]."""

    inputs: "NDArray[np.float32]"
    labels: "NDArray[np.int64]"
    odds: "NDArray[np.float64]"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast."""

    steps: int = 600
    batch: int = 512
    rate: float = 3e-3  # at its peak; a cosine takes it to zero
    decay: float = 1e-2  # AdamW's
    seed: int = 0


def learn(kind: str, shape: Shape, rows: Rows, plan: Plan) -> nn.Module:
    """A trained network, in its reading state."""
    torch.manual_seed(plan.seed)
    network = NETWORKS[kind](shape)
    draw = np.random.default_rng(plan.seed)
    odds = rows.odds / rows.odds.sum()
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=plan.decay)
    down = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, plan.steps)
    network.train()
    for _ in range(plan.steps):
        drawn = draw.choice(len(odds), plan.batch, p=odds)
        optimiser.zero_grad()
        sum(losses(network, rows.inputs[drawn], rows.labels[drawn])).backward()
        optimiser.step()
        down.step()
    return network.eval()


def losses(network: nn.Module, inputs: "NDArray[np.float32]", labels: "NDArray[np.int64]") -> list[torch.Tensor]:
    """Mean log loss of each task over the rows that have its label; tasks without any are left out."""
    logits = network(torch.from_numpy(inputs)).logits
    truth = torch.from_numpy(labels)
    return [
        nn.functional.cross_entropy(scores, truth[:, task], ignore_index=UNKNOWN)
        for task, scores in enumerate(logits)
        if bool((truth[:, task] != UNKNOWN).any())
    ]


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not typed here
def predict(network: nn.Module, inputs: "NDArray[np.float32]") -> list["NDArray[np.float32]"]:
    """Logits of each task, [rows, classes]."""
    parts = [network(torch.from_numpy(some)).logits for some in _slices(inputs)]
    return [np.concatenate([part[task].numpy() for part in parts]) for task in range(len(parts[0]))]


@torch.no_grad()  # type: ignore[untyped-decorator]  # as above
def gauge(network: nn.Module, inputs: "NDArray[np.float32]") -> Gauges:
    """The three anomaly gauges over some rows."""
    parts = [network(torch.from_numpy(some)) for some in _slices(inputs)]
    layers = [
        np.concatenate([layer.numpy() for layer in some]) for some in zip(*(p.layers for p in parts), strict=True)
    ]
    gates = np.concatenate([part.gates.numpy() for part in parts])
    return read(layers, gates, own=network.shape.own, shared=network.shape.shared)


def own_gradients(network: nn.Module, rows: Rows) -> list[float]:
    """Norm of the gradient that reaches each task's own experts (their first weights), over all rows at once."""
    network.zero_grad()
    weight = network.experts.weight if isinstance(network, Home) else network.weights[0]
    sum(losses(network, rows.inputs, rows.labels)).backward()
    own = network.shape.own
    return [float(weight.grad[t * own : (t + 1) * own].norm()) for t in range(len(network.shape.classes))]


def _slices(inputs: "NDArray[np.float32]") -> list["NDArray[np.float32]"]:
    return [inputs[start : start + READ_ROWS] for start in range(0, len(inputs), READ_ROWS)]
