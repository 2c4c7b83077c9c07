"""The same number of experts for every token: plain top-k, and top-k inside the best groups.

`topk` with the model's own k is what the model was trained with; a smaller k is the simplest way to spend less.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from conclave.moe.losses import balance
from conclave.moe.routing import POLICIES, Choice, Routing, Scored, Step, Tensor, best


@POLICIES.register("topk")
@dataclass(frozen=True, slots=True)
class TopK:
    """The k experts with the highest scores (Shazeer et al. 2017, arXiv 1701.06538; weights as the gate was trained).

    With `BlockSpec.shared` and `fine_grained` this is DeepSeekMoE (arXiv 2401.06066, eq. 9-11).
    """

    k: int = 2
    balance: float = 0.01
    renormalise: bool | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is the number of experts of each token; {self.k} is less than 1")

    @property
    def null_experts(self) -> int:
        return 0

    @property
    def looks_back(self) -> bool:
        return False

    def check(self, experts: int) -> None:
        if self.k > experts:
            raise ValueError(f"top-k wants {self.k} experts for each token, and the layer has {experts}")

    def select(self, scored: Scored, step: Step, layer: int) -> Choice:  # noqa: ARG002  every policy is asked alike
        return best(scored, scored.choice, self.k)

    def loss(self, routing: Routing, step: Step) -> Tensor:
        return self.balance * balance(routing.scores, routing.index, step.real.reshape(-1))


@POLICIES.register("group_topk")
@dataclass(frozen=True, slots=True)
class GroupTopK:
    """Top-k inside the best groups of neighbouring experts (DeepSeek-V2, arXiv 2405.04434; V3, arXiv 2412.19437).

    A group counts as its best expert (`by: max`, V2) or the sum of its two best (`by: top2`, V3).
    """

    k: int = 2
    groups: int = 2
    groups_kept: int = 1
    by: Literal["max", "top2"] = "max"
    balance: float = 0.01
    renormalise: bool | None = None

    def __post_init__(self) -> None:
        if self.k < 1 or not 1 <= self.groups_kept <= self.groups:
            raise ValueError("group_topk needs k of at least 1 and 1 <= groups_kept <= groups")

    @property
    def null_experts(self) -> int:
        return 0

    @property
    def looks_back(self) -> bool:
        return False

    def check(self, experts: int) -> None:
        if experts % self.groups:
            raise ValueError(f"{experts} experts do not fall into {self.groups} equal groups")
        size = experts // self.groups
        if self.k > self.groups_kept * size:
            raise ValueError(f"{self.groups_kept} groups of {size} experts do not hold {self.k} for each token")
        if self.by == "top2" and size < 2:  # noqa: PLR2004  it adds two
            raise ValueError("by: top2 adds a group's two best experts; these groups hold one")

    def select(self, scored: Scored, step: Step, layer: int) -> Choice:  # noqa: ARG002  as above
        tokens, experts = scored.choice.shape
        grouped = scored.choice.view(tokens, self.groups, -1)  # [T, G, E / G]
        worth = grouped.amax(dim=-1) if self.by == "max" else grouped.topk(2, dim=-1).values.sum(dim=-1)  # [T, G]
        kept = torch.zeros_like(worth, dtype=torch.bool)
        kept.scatter_(1, worth.topk(self.groups_kept, dim=-1).indices, value=True)
        outside = ~kept.repeat_interleave(experts // self.groups, dim=1)  # [T, E]
        return best(scored, scored.choice.masked_fill(outside, float("-inf")), self.k)

    def loss(self, routing: Routing, step: Step) -> Tensor:
        return self.balance * balance(routing.scores, routing.index, step.real.reshape(-1))
