"""What experts compute: gated feed-forward networks, the same with a shared low-rank input, and always-on shared ones.

Each takes tokens, expert indices and weights, and skips slots without an expert. None chooses anything.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, silu
from transformers.integrations import use_experts_implementation

from conclave.moe.routing import Tensor


@use_experts_implementation
class FfnExperts(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """E experts `down(silu(gate x) * up x)`, as 3-D parameters, run by the model's experts implementation."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.num_experts = int(config.num_experts)
        self.hidden_dim, self.intermediate_dim = int(config.hidden_size), int(config.intermediate_size)
        self.gate_up_proj = nn.Parameter(torch.empty(self.num_experts, 2 * self.intermediate_dim, self.hidden_dim))
        self.down_proj = nn.Parameter(torch.empty(self.num_experts, self.hidden_dim, self.intermediate_dim))
        self.act_fn = silu

    def forward(self, hidden: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """[T, d], [T, K], [T, K] -> [T, d]: the `eager` implementation, expert by expert."""
        out = torch.zeros_like(hidden)
        for expert in torch.unique(index).tolist():
            if expert >= self.num_experts:
                continue
            token, slot = torch.where(index == expert)
            gate, up = linear(hidden[token], self.gate_up_proj[expert]).chunk(2, dim=-1)  # [t, f]
            inner = linear(self.act_fn(gate) * up, self.down_proj[expert])  # [t, d]
            out.index_add_(0, token, (inner * weight[token, slot, None]).to(out.dtype))
        return out


class LatentExperts(nn.Module):  # type: ignore[misc]  # as above
    """Experts whose input projections share a factor: gate_i = A_i B, up_i = A'_i B', one B for `group` experts.

    Liu et al. 2025 (MoLAE, arXiv 2503.23100; called MoLE in its first version, whose untransformed down projection we
    keep). `B x` is computed once for each token and group, however many experts of the group the token uses.
    """

    def __init__(self, *, experts: int, width: int, inner: int, latent: int, group: int) -> None:
        super().__init__()
        if not 1 <= latent <= width or group < 1 or experts % group:
            raise ValueError(
                f"latent experts need 1 <= latent <= {width} and groups that divide {experts} experts, "
                f"not latent {latent} and group {group}"
            )
        self.num_experts, self.group = experts, group
        self.shared_proj = nn.Parameter(torch.empty(experts // group, 2, latent, width))  # B of gate and of up
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2, inner, latent))  # A
        self.down_proj = nn.Parameter(torch.empty(experts, width, inner))

    def forward(self, hidden: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """[T, d], [T, K], [T, K] -> [T, d]"""
        latent = torch.einsum("gpmd,td->gptm", self.shared_proj, hidden)  # [G, 2, T, m]
        out = torch.zeros_like(hidden)
        for expert in torch.unique(index).tolist():
            if expert >= self.num_experts:
                continue
            token, slot = torch.where(index == expert)
            seen = latent[expert // self.group][:, token]  # [2, t, m]
            gate, up = torch.einsum("pfm,ptm->ptf", self.gate_up_proj[expert], seen)  # [t, f] each
            inner = linear(silu(gate) * up, self.down_proj[expert])  # [t, d]
            out.index_add_(0, token, (inner * weight[token, slot, None]).to(out.dtype))
        return out


class SharedExperts(nn.Module):  # type: ignore[misc]  # as above
    """Experts that every token uses, as one wide network (DeepSeekMoE, arXiv 2401.06066, eq. 9: the first sum)."""

    def __init__(self, *, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(width, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(hidden).chunk(2, dim=-1)
        return self.down_proj(silu(gate) * up)
