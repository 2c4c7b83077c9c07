"""`down_prefill`: checks and launch."""

import torch

from conclave.kernels.align_slots.plan import Plan
from conclave.kernels.checks import check_same_device
from conclave.kernels.down_prefill.kernel import down_prefill as _down_prefill
from conclave.kernels.tiles.api import Tile, f32_dot, programs, rows_argument


def down_prefill(h: torch.Tensor, w2: torch.Tensor, weights: torch.Tensor, plan: Plan, *, tile: Tile) -> torch.Tensor:
    """`h [rows, I]` in the plan's order, `w2 [E, H, I]`, `weights [T, k]` -> weighted `y [T * k, H]`, dtype of `h`.

    Rows of slots without work are not written.
    """
    check_same_device(h=h, w2=w2, weights=weights, slots=plan.slots)
    if tile.rows != plan.block_m or not (w2.is_contiguous() and h.is_contiguous() and weights.is_contiguous()):
        raise ValueError(
            f"h, w2, weights must be contiguous, the plan's blocks ({plan.block_m}) a tile high ({tile.rows})"
        )
    hidden, inter = w2.shape[1:]
    y = torch.empty(weights.numel(), hidden, dtype=h.dtype, device=h.device)
    a, tma_h = rows_argument(h, [tile.rows, tile.depth])
    w, tma = rows_argument(w2.view(-1, inter), [tile.cols, tile.depth])
    nprog = programs(h.device, per_sm=1)
    _down_prefill[(nprog,)](
        a, w, y, weights, plan.slots, plan.block_expert, plan.num_blocks, h.shape[0], weights.numel(), hidden, inter,
        inter, inter, hidden, nprog, BLOCK_M=tile.rows, BLOCK_N=tile.cols, BLOCK_K=tile.depth, GROUP_M=tile.group,
        TMA_H=tma_h, TMA=tma, F32_DOT=f32_dot(h.dtype), **tile.options,
    )  # fmt: skip
    return y
