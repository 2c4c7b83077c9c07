"""Top-p: as many experts as it takes to hold a share p of the gate's mass. Sure tokens use one, unsure ones several."""

from dataclasses import dataclass

import torch

from conclave.moe.losses import balance, entropy
from conclave.moe.routing import POLICIES, Choice, Routing, Scored, Step, Tensor


@POLICIES.register("topp")
@dataclass(frozen=True, slots=True)
class TopP:
    """The fewest experts whose scores together exceed p, the crossing one included.

    Huang et al. 2024 (Dynamic MoE, arXiv 2403.07652); weights are not renormalised there. We differ in two points: a
    model that was trained with weights that sum to 1 keeps that (`renormalise: null`), and at least one expert always
    runs (the published argmax answers 0 when rounding keeps the sum below p).
    """

    p: float = 0.4
    experts_max: int | None = None
    balance: float = 0.01  # alpha
    sharpness: float = 0.0001  # beta, on the entropy of the gate
    renormalise: bool | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.p <= 1.0:
            raise ValueError(f"p is the share of the gate's mass to hold, above 0 and at most 1; {self.p} is not")
        if self.experts_max is not None and self.experts_max < 1:
            raise ValueError(f"experts_max is at least 1; {self.experts_max} is not")

    @property
    def null_experts(self) -> int:
        return 0

    @property
    def looks_back(self) -> bool:
        return False

    def check(self, experts: int) -> None:
        if self.experts_max is not None and self.experts_max > experts:
            raise ValueError(f"experts_max is {self.experts_max}, and the layer has {experts} experts")

    def select(self, scored: Scored, step: Step, layer: int) -> Choice:  # noqa: ARG002  every policy is asked alike
        k = min(self.experts_max or scored.experts, scored.experts)
        index = torch.topk(scored.choice, k, dim=-1).indices  # [T, k], best first
        weight = scored.scores.gather(1, index)
        mass = scored.scores.sum(dim=-1, keepdim=True)  # 1 for a softmax; a sigmoid's scores sum to anything
        before = weight.cumsum(dim=-1) - weight  # what the better ones hold: the first always stays
        kept = ~(before > self.p * mass) if self.p < 1.0 else torch.ones_like(before, dtype=torch.bool)  # NaN stays
        return Choice(torch.where(kept, index, scored.experts), torch.where(kept, weight, 0.0))

    def loss(self, routing: Routing, step: Step) -> Tensor:
        real = step.real.reshape(-1)
        return self.balance * balance(routing.scores, routing.index, real) + self.sharpness * entropy(
            routing.scores, real
        )
