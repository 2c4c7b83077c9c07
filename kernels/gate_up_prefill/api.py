"""`gate_up_prefill`: checks and launch."""

import torch

from conclave.kernels.align_slots.plan import Plan
from conclave.kernels.checks import check_rows, check_same_device
from conclave.kernels.gate_up_prefill.kernel import gate_up_prefill as _gate_up_prefill
from conclave.kernels.tiles.api import Tile, f32_dot, programs, rows_argument


def gate_up_prefill(x: torch.Tensor, w1: torch.Tensor, plan: Plan, *, top_k: int, act: str, tile: Tile) -> torch.Tensor:
    """`x [T, H]`, `w1 [E, 2I, H]` -> `h [rows of the plan, I]` in the plan's order; rows of padding are not written."""
    check_rows(x=x, w1=w1)
    check_same_device(x=x, w1=w1, slots=plan.slots)
    if tile.rows != plan.block_m or not w1.is_contiguous():
        raise ValueError(f"w1 must be contiguous, the plan's blocks ({plan.block_m}) a tile high ({tile.rows})")
    hidden, inter = x.shape[1], w1.shape[1] // 2
    h = torch.empty(len(plan.slots), inter, dtype=x.dtype, device=x.device)
    w, tma = rows_argument(w1.view(-1, hidden), [tile.cols, tile.depth])
    nprog = programs(x.device, per_sm=1)
    _gate_up_prefill[(nprog,)](
        x, w, h, plan.slots, plan.block_expert, plan.num_blocks, x.shape[0] * top_k, inter, hidden, top_k,
        x.stride(0), hidden, inter, nprog, BLOCK_M=tile.rows, BLOCK_N=tile.cols, BLOCK_K=tile.depth,
        GROUP_M=tile.group, ACT=act, TMA=tma, F32_DOT=f32_dot(x.dtype), **tile.options,
    )  # fmt: skip
    return h
