"""The auxiliary losses of mixture-of-experts training, each from its paper's equation.

Each takes probabilities [T, N] and what was chosen [T, K], leaves out padding, and returns a scalar in fp32 without
its coefficient. transformers' own `load_balancing_loss_func` computes top-k from the configuration again and knows
neither null experts nor a varying number of experts; so the policies bring these.
"""

import torch

from conclave.moe.routing import Tensor


def shares(picked: Tensor, columns: int, real: Tensor) -> Tensor:
    """The share of all choices that fell on each column: [columns], sums to 1. Choices outside count for none."""
    inside = (picked < columns) & real.unsqueeze(-1)  # [T, K]
    counts = torch.zeros(columns, dtype=torch.float32, device=picked.device)
    counts.index_add_(0, picked.clamp(max=columns - 1).reshape(-1), inside.reshape(-1).float())
    return counts / counts.sum().clamp(min=1.0)


def mean_scores(scores: Tensor, real: Tensor) -> Tensor:
    """P_i: the mean score of each column over the tokens that are not padding. [N]"""
    kept = real.unsqueeze(-1).float()
    return (scores * kept).sum(dim=0) / kept.sum().clamp(min=1.0)


def balance(scores: Tensor, picked: Tensor, real: Tensor) -> Tensor:
    """N sum_i f_i P_i; 1 when all is even.

    Fedus et al. 2021 (arXiv 2101.03961), eq. 4-6, for k > 1 as in Dai et al. 2024 (DeepSeekMoE, arXiv 2401.06066),
    eq. 12-14: f_i is expert i's share of all choices, so the value does not grow with k.
    """
    return scores.shape[1] * (shares(picked, scores.shape[1], real) * mean_scores(scores, real)).sum()


def null_balance(scores: Tensor, picked: Tensor, real: Tensor, *, experts: int) -> Tensor:
    """As `balance`, but each null expert counts with the nulls' mean share, so they need no balance among themselves.

    Zeng et al. 2024 (AdaMoE, arXiv 2406.13233), eq. 6. Columns from `experts` on are the nulls. The mean is taken over
    columns; the published code for Mixtral slices the top-k axis instead, where the slice is empty and does nothing.
    """
    columns = scores.shape[1]
    load = shares(picked, columns, real)
    null = load[experts:].mean().expand(columns - experts)
    return columns * (torch.cat([load[:experts], null]) * mean_scores(scores, real)).sum()


def entropy(scores: Tensor, real: Tensor) -> Tensor:
    """-sum_i P_i ln P_i, mean over tokens: small when routing is sharp.

    Huang et al. 2024 (Dynamic MoE, arXiv 2403.07652), the dynamic loss.
    """
    each = -(scores * torch.log(scores.clamp(min=1e-9))).sum(dim=-1)  # [T]
    return (each * real).sum() / real.sum().clamp(min=1)


def z_loss(logits: Tensor, real: Tensor) -> Tensor:
    """Mean squared log-sum-exp of the gate's logits: keeps them small. Zoph et al. 2022 (arXiv 2202.08906), eq. 5."""
    each = torch.logsumexp(logits.float(), dim=-1).square()  # [T]
    return (each * real).sum() / real.sum().clamp(min=1)


def device_balance(scores: Tensor, picked: Tensor, real: Tensor, *, devices: int) -> Tensor:
    """D sum_d f_d P_d over groups of experts that share a device: f_d the mean share, P_d the summed score.

    Dai et al. 2024 (arXiv 2401.06066), eq. 15-17, with f on the scale of `balance` (1 when all is even).
    """
    columns = scores.shape[1]
    if devices < 1 or columns % devices:
        raise ValueError(f"{columns} experts cannot stand on {devices} devices in equal numbers")
    load = shares(picked, columns, real).view(devices, -1).sum(dim=-1)  # [D]
    return devices * (load * mean_scores(scores, real).view(devices, -1).sum(dim=-1)).sum()


def consistency(first: Tensor, second: Tensor, real: Tensor) -> Tensor:
    """Half the symmetric KL between two passes' next-token distributions, mean over tokens.

    Zuo et al. 2021 (THOR, arXiv 2110.04260), the consistency term of the training objective: two passes with experts
    drawn independently are pulled together. Their code sums over tokens; the mean keeps alpha free of batch size.
    """
    p, q = first.float().log_softmax(dim=-1), second.float().log_softmax(dim=-1)  # [T, V]
    each = 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(dim=-1)
    return (each * real).sum() / real.sum().clamp(min=1)
