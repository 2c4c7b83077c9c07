"""`combine` in plain PyTorch: the specification."""

import torch


def combine_reference(y: torch.Tensor, ids: torch.Tensor, *, experts: int) -> torch.Tensor:
    """`y [T * k, H]`, already weighted, and `ids [T, k]` -> `[T, H]` in float32."""
    work = ((ids >= 0) & (ids < experts))[:, :, None]  # [T, k, 1]
    return torch.where(work, y.float().view(*ids.shape, -1), 0.0).sum(1)
