"""`gate_up_decode`: checks and launch, with or without a plan, whole or split sums, weights as they are or int8."""

import torch
import triton

from conclave.kernels.align_slots.plan import Plan
from conclave.kernels.checks import check_ids, check_rows, check_same_device
from conclave.kernels.gate_up_decode.kernel import finish_split
from conclave.kernels.gate_up_decode.kernel import gate_up_decode as _gate_up_decode
from conclave.kernels.tiles.api import Tile, f32_dot, programs, rows_argument

FINISH_COLS = 1024  # columns a program when parts are added up


def gate_up_decode(
    x: torch.Tensor,
    w1: torch.Tensor,
    ids: torch.Tensor,
    plan: Plan | None,
    *,
    act: str,
    tile: Tile,
    split_k: int = 1,
    scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """`x [T, H]`, `w1 [E, 2I, H]`, `ids [T, k]` -> `h [T * k, I]`, by slot; rows of slots without work are not written.

    Without a plan each slot is a block of its own. int8 weights need `scale [E, 2I]` float32.
    """
    check_ids(ids)
    check_rows(x=x)
    check_same_device(x=x, w1=w1, ids=ids)
    if not (w1.is_contiguous() and ids.is_contiguous()) or (plan is not None and plan.block_m != tile.rows):
        raise ValueError(f"w1 and ids must be contiguous, and the plan's blocks as high as a tile: {tile.rows} rows")
    if (w1.dtype == torch.int8) != (scale is not None) or split_k < 1:
        raise ValueError(f"int8 weights come with a scale and others without; split_k is at least 1, not {split_k}")
    (experts, two_inter, hidden), slots = w1.shape, ids.numel()
    inter = two_inter // 2
    h = torch.empty(slots, inter, dtype=x.dtype, device=x.device)
    parts = torch.empty(split_k, slots, two_inter, dtype=torch.float32, device=x.device) if split_k > 1 else h
    w, tma = rows_argument(w1.view(-1, hidden), [tile.cols, tile.depth])
    nprog = programs(x.device, per_sm=2)
    _gate_up_decode[(nprog,)](
        x, w, scale, parts, *((plan.slots, plan.block_expert, plan.num_blocks) if plan else (None, None, None)), ids,
        slots, inter, hidden, experts, ids.shape[1], x.stride(0), hidden, nprog, BLOCK_T=tile.rows, BLOCK_N=tile.cols,
        BLOCK_K=tile.depth, SPLIT_K=split_k, DIRECT=plan is None, W8=scale is not None, ACT=act, TMA=tma,
        F32_DOT=f32_dot(x.dtype), **tile.options,
    )  # fmt: skip
    if split_k > 1:
        cols = min(FINISH_COLS, triton.next_power_of_2(inter))
        finish_split[(slots, triton.cdiv(inter, cols))](
            parts, ids, h, slots, inter, experts, SPLIT_K=split_k, BLOCK_N=cols, ACT=act
        )
    return h
