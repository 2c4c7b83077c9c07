"""`down_decode` and `down_token`: checks and launch."""

import torch
import triton

from conclave.kernels.align_slots.plan import Plan
from conclave.kernels.checks import check_ids, check_same_device
from conclave.kernels.down_decode.kernel import down_decode as _down_decode
from conclave.kernels.down_decode.kernel import down_token as _down_token
from conclave.kernels.tiles.api import Tile, f32_dot, programs, rows_argument

TOKEN_COLS, TOKEN_DEPTH, TOKEN_WARPS = 16, 256, 4


def down_decode(
    h: torch.Tensor,
    w2: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    plan: Plan | None,
    *,
    tile: Tile,
    scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """`h [T * k, I]`, `w2 [E, H, I]`, `weights` and `ids [T, k]` -> `y [T * k, H]` float32, weighted.

    Rows of slots without work are not written. Without a plan each slot is a block of its own. int8 needs `scale [E,
    H]`.
    """
    _check(h, w2, weights, ids, scale)
    if plan is not None and plan.block_m != tile.rows:
        raise ValueError(f"the plan's blocks of {plan.block_m} rows must be as high as a tile: {tile.rows}")
    (experts, hidden, inter), slots = w2.shape, ids.numel()
    y = torch.empty(slots, hidden, dtype=torch.float32, device=h.device)
    w, tma = rows_argument(w2.view(-1, inter), [tile.cols, tile.depth])
    nprog = programs(h.device, per_sm=2)
    _down_decode[(nprog,)](
        h, w, scale, y, weights, *((plan.slots, plan.block_expert, plan.num_blocks) if plan else (None, None, None)),
        ids, slots, hidden, inter, experts, inter, nprog, BLOCK_T=tile.rows, BLOCK_N=tile.cols, BLOCK_K=tile.depth,
        DIRECT=plan is None, W8=scale is not None, TMA=tma, F32_DOT=f32_dot(h.dtype), **tile.options,
    )  # fmt: skip
    return y


def down_token(
    h: torch.Tensor, w2: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, *, scale: torch.Tensor | None = None
) -> torch.Tensor:
    """As `down_decode` and `combine` together -> `[T, H]` in the dtype of `h`; reads weights once a slot."""
    _check(h, w2, weights, ids, scale)
    (experts, hidden, inter), (tokens, top_k) = w2.shape, ids.shape
    out = torch.empty(tokens, hidden, dtype=h.dtype, device=h.device)
    depth = min(TOKEN_DEPTH, triton.next_power_of_2(inter))
    _down_token[(triton.cdiv(hidden, TOKEN_COLS), tokens)](
        h, w2, scale, weights, ids, out, hidden, inter, experts,
        TOP_K=top_k, BLOCK_N=TOKEN_COLS, BLOCK_K=depth, W8=scale is not None, num_warps=TOKEN_WARPS,
    )  # fmt: skip
    return out


def _check(
    h: torch.Tensor, w2: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, scale: torch.Tensor | None
) -> None:
    check_ids(ids)
    check_same_device(h=h, w2=w2, weights=weights, ids=ids)
    if not all(tensor.is_contiguous() for tensor in (h, w2, weights, ids)) or len(h) != ids.numel():
        raise ValueError(f"h must have T * k = {ids.numel()} rows, and all tensors be contiguous; h has {len(h)}")
    if (w2.dtype == torch.int8) != (scale is not None):
        raise ValueError("int8 weights come with a scale and others without")
