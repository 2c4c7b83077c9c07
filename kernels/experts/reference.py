"""What an expert layer computes, twice in plain PyTorch: slowly in float64, and by sorting in the tensors' own dtype.

`oracle` is the specification and the only truth that the kernels are held to: one product a token and slot, in float64.
`sorted_loop` is what runs where no kernel does, on any device, and the one path here with gradients. It never reads a
clock, a setting or the device: an expert id outside `[0, E)` means no work, and the slot's weight is not looked at.

    y[t] = sum_j weights[t, j] * down[e] @ (act(gate[e] @ x[t]) * (up[e] @ x[t])),   e = ids[t, j]
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  the name that PyTorch's own pages use

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def oracle(
    x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, *, act: str = "silu"
) -> torch.Tensor:
    """The layer in float64: `x [T, H]`, `w1 [E, 2I, H]`, `w2 [E, H, I]`, `ids` and `weights [T, k]` -> `[T, H]`."""
    activate = ACTIVATIONS[act]
    out = torch.zeros(x.shape, dtype=torch.float64)
    for t in range(x.shape[0]):
        for j in range(ids.shape[1]):
            e = int(ids[t, j])
            if 0 <= e < w1.shape[0]:
                gate, up = (w1[e].double() @ x[t].double()).chunk(2)  # [I] each
                out[t] += weights[t, j].double() * (w2[e].double() @ (activate(gate) * up))  # [H]
    return out


def sorted_loop(
    x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, *, act: str = "silu"
) -> torch.Tensor:
    """The layer in the dtype of `x`, one product an expert over the rows that chose it; has gradients."""
    activate = ACTIVATIONS[act]
    top_k = ids.shape[1]
    order, counts = by_expert(ids, experts=w1.shape[0])
    rows = x[order // top_k]  # [S', H], sorted by expert; S' slots have work
    parts, start = [], 0
    for e, count in enumerate(counts):
        if count:
            gate, up = F.linear(rows[start : start + count], w1[e]).chunk(2, dim=-1)  # [count, I] each
            parts.append(F.linear(activate(gate) * up, w2[e]))  # [count, H]
            start += count
    out = torch.zeros_like(x)
    if not parts:
        return out
    y = torch.cat(parts) * weights.reshape(-1)[order].to(x.dtype)[:, None]
    return out.index_add(0, order // top_k, y)


def by_expert(ids: torch.Tensor, *, experts: int) -> tuple[torch.Tensor, list[int]]:
    """The slots that have work, in order of their expert, and how many each expert has (a wait for the device)."""
    flat = ids.reshape(-1).long()
    key = torch.where((flat >= 0) & (flat < experts), flat, experts)
    counts = torch.bincount(key, minlength=experts + 1)[:experts].tolist()
    return torch.argsort(key, stable=True)[: sum(counts)], counts
