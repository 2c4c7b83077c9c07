"""`combine`: checks and launch."""

import torch
import triton

from conclave.kernels.checks import check_ids, check_same_device
from conclave.kernels.combine.kernel import combine as _combine

BLOCK_H = 1024  # columns a program


def combine(y: torch.Tensor, ids: torch.Tensor, *, experts: int, dtype: torch.dtype) -> torch.Tensor:
    """`y [T * k, H]` and `ids [T, k]` -> `[T, H]` of `dtype`; rows of slots without work are not read."""
    check_ids(ids)
    check_same_device(y=y, ids=ids)
    tokens, top_k = ids.shape
    slots = tokens * top_k
    if y.shape[0] != slots or not y.is_contiguous() or not ids.is_contiguous():
        raise ValueError(f"y must have T * k = {slots} rows, and y and ids be contiguous; y is {tuple(y.shape)}")
    hidden = y.shape[1]
    out = torch.empty(tokens, hidden, dtype=dtype, device=y.device)
    block = min(BLOCK_H, triton.next_power_of_2(hidden))
    _combine[(tokens, triton.cdiv(hidden, block))](y, ids, out, hidden, experts, K=top_k, BLOCK_H=block)
    return out
