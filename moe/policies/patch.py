"""Patch-causal routing: neighbouring tokens share their experts, chosen from the patch that came before.

So the experts of the next patch are known before its first token, which is what lets them be fetched ahead.
"""

from dataclasses import dataclass

import torch

from conclave.moe.losses import balance
from conclave.moe.routing import POLICIES, Choice, Routing, Scored, Step, Tensor


@POLICIES.register("patch_causal")
@dataclass(frozen=True, slots=True)
class PatchCausal:
    """The k experts that the gate scores highest for the mean hidden state of the previous patch.

    After Union-of-Experts (Yang et al. 2025, arXiv 2503.02495), whose expert selection reads the whole patch, future
    tokens included: it cannot be used for next-token prediction. We differ: a patch is routed from the one before, the
    first one token by token. `union` weighs each chosen expert by 1 (the gate still learns, through a straight-through
    factor), so that all slices of a split dense layer add up to that layer.
    """

    k: int = 2
    patch: int = 8
    union: bool = True
    balance: float = 0.01

    def __post_init__(self) -> None:
        if self.k < 1 or self.patch < 1:
            raise ValueError(f"k and patch are at least 1, not {self.k} and {self.patch}")

    @property
    def null_experts(self) -> int:
        return 0

    @property
    def renormalise(self) -> bool | None:
        return False if self.union else None

    @property
    def looks_back(self) -> bool:
        return True

    def check(self, experts: int) -> None:
        if self.k > experts:
            raise ValueError(f"patch_causal wants {self.k} experts for each patch, and the layer has {experts}")

    def select(self, scored: Scored, step: Step, layer: int) -> Choice:
        scores = scored.of(self._looked_at(scored, step, layer))  # [T, E]
        forbidden = torch.isneginf(scored.choice)
        scores = scores.masked_fill(forbidden, 0.0)
        index = torch.topk(scores.masked_fill(forbidden, -1.0), self.k, dim=-1).indices
        weight = scores.gather(1, index)
        if self.union:
            weight = 1.0 + (weight - weight.detach())  # value 1, gradient of the score
        return Choice(index, weight)

    def _looked_at(self, scored: Scored, step: Step, layer: int) -> Tensor:
        """The vector that decides for each token: the previous patch's mean, or its own in the first patch. [T, d]"""
        width = scored.hidden.shape[-1]
        hidden = scored.hidden.float().view(step.batch, step.length, width)
        place = step.start.unsqueeze(1) + step.real.cumsum(dim=1) - 1  # [B, S] position among the real tokens
        patch = place.clamp(min=0) // self.patch
        first = step.start // self.patch  # [B] the patch that this pass begins in
        rows = int((patch.amax(dim=1) - first).amax()) + 3  # one before, one after the last for the remainder
        sums = hidden.new_zeros(step.batch, rows, width + 1)  # sums of hidden states, and how many
        self._recall(sums, step, layer)
        slot = (patch - first.unsqueeze(1) + 1).unsqueeze(-1)  # row 0 is the patch before this pass
        counted = torch.cat([hidden, hidden.new_ones(step.batch, step.length, 1)], dim=-1) * step.real.unsqueeze(-1)
        sums = sums.scatter_add(1, slot.expand(-1, -1, width + 1), counted)
        self._remember(sums, first, step, layer)
        before = sums.gather(1, (slot - 1).expand(-1, -1, width + 1))  # [B, S, d + 1]
        mean = before[..., :width] / before[..., width:].clamp(min=1.0)
        own = (before[..., width:] == 0) | (patch == 0).unsqueeze(-1)  # nothing came before: the first patch
        return torch.where(own, hidden, mean).reshape(-1, width)

    def _recall(self, sums: Tensor, step: Step, layer: int) -> None:
        if bool((step.start == 0).all()):
            return
        kept = None if step.memory is None else step.memory.get(layer)
        if kept is None or kept.shape[0] != step.batch:
            raise ValueError(
                "patch_causal routing has no memory of the tokens before these: begin each sequence under the policy, "
                "and keep the order of the batch (no beam search)"
            )
        sums[:, :2] = kept  # the last whole patch, and the one that was begun

    def _remember(self, sums: Tensor, first: Tensor, step: Step, layer: int) -> None:
        if step.memory is None:
            return
        end = step.start + step.real.sum(dim=1)  # [B] real tokens so far
        row = (end // self.patch - first + 1).view(-1, 1)  # the patch that the next token falls into
        pair = torch.cat([row - 1, row], dim=1)  # [B, 2]
        step.memory[layer] = sums.gather(1, pair.unsqueeze(-1).expand(-1, -1, sums.shape[-1])).detach()

    def loss(self, routing: Routing, step: Step) -> Tensor:
        return self.balance * balance(routing.scores, routing.index, step.real.reshape(-1))
