"""Stochastic experts: no gate at all, an expert is drawn at random. For models trained so (THOR); others fall apart.

What it buys: any expert that is at hand may answer, so a process that holds only some of them still serves.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from conclave.moe.routing import POLICIES, Choice, Routing, Scored, Step, Tensor

LAYER_STRIDE = 1_000_003  # a prime far above any length: layers and places do not share a seed


@POLICIES.register("stochastic")
@dataclass(frozen=True, slots=True)
class Stochastic:
    """One expert, uniform among the allowed ones, with weight 1 (Zuo et al. 2021, THOR, arXiv 2110.04260).

    In training one draw serves the whole batch and layer; otherwise one each token or one each sequence. The training
    loss that makes experts interchangeable is `losses.consistency` over two passes.
    """

    level: Literal["token", "sequence"] = "sequence"

    @property
    def null_experts(self) -> int:
        return 0

    @property
    def renormalise(self) -> bool | None:
        return True

    @property
    def looks_back(self) -> bool:
        return self.level == "sequence"

    def check(self, experts: int) -> None:
        if experts < 1:
            raise ValueError("a layer without experts has none to draw")

    def select(self, scored: Scored, step: Step, layer: int) -> Choice:
        allowed = (~torch.isneginf(scored.choice[:, : scored.experts])).float()  # [T, E]
        if step.training:
            drawn = torch.multinomial(allowed[:1], 1, generator=step.generator).expand(allowed.shape[0], 1)
            return Choice(drawn, torch.ones_like(drawn, dtype=torch.float32))  # [T, 1]
        generator = step.generator or _fixed(step, layer)
        if self.level == "token":
            drawn = torch.multinomial(allowed, 1, generator=generator)
        else:
            drawn = self._by_sequence(allowed, step, layer, generator)
        return Choice(drawn, torch.ones_like(drawn, dtype=torch.float32))  # [T, 1]

    def _by_sequence(self, allowed: Tensor, step: Step, layer: int, generator: torch.Generator) -> Tensor:
        kept = None if step.memory is None else step.memory.get(layer)
        if kept is None:
            kept = torch.multinomial(allowed[:: step.length], 1, generator=generator)  # [batch, 1]
            if step.memory is not None:
                step.memory[layer] = kept
        return step.by_token(kept)

    def loss(self, routing: Routing, step: Step) -> Tensor:  # noqa: ARG002  there is no gate to train
        return routing.scores.new_zeros(())


def _fixed(step: Step, layer: int) -> torch.Generator:
    """Where the caller brings no generator, the same pass over the same place draws the same experts again."""
    return torch.Generator(step.start.device).manual_seed(LAYER_STRIDE * (layer + 1) + int(step.start.sum()))
