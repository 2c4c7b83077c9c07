"""`down_decode` in plain PyTorch: the specification. Rows of slots without work stay NaN."""

import torch


def down_decode_reference(h: torch.Tensor, w2: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """`h [T * k, I]`, `w2 [E, H, I]`, `weights` and `ids [T, k]` -> `y [T * k, H]` in float64, by slot."""
    y = torch.full((ids.numel(), w2.shape[1]), float("nan"), dtype=torch.float64)
    flat = weights.reshape(-1).double()
    for slot, expert in enumerate(ids.reshape(-1).tolist()):
        if 0 <= expert < w2.shape[0]:
            y[slot] = flat[slot] * (w2[expert].double() @ h[slot].double())
    return y
