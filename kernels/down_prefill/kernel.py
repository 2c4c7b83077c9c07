"""The down product for many rows an expert: both operands stream, rows are weighted and scattered to slots."""

import triton
import triton.language as tl

from conclave.kernels.tiles.kernel import dot, load_rows, swizzle


@triton.jit
def down_prefill(
    h, w, y_ptr, weights_ptr, slots_ptr, block_expert_ptr, num_blocks_ptr, num_rows, num_slots, N, K, s_h, s_w, s_y,
    NPROG, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    TMA_H: tl.constexpr, TMA: tl.constexpr, F32_DOT: tl.constexpr,
):  # fmt: skip
    """`y[slot] = weights[slot] * (h[row] @ down.T)`; N = H, K = I; `w` views [E * H, I]."""
    num_m = tl.load(num_blocks_ptr)
    num_n = tl.cdiv(N, BLOCK_N)
    for tile in tl.range(tl.program_id(0), num_m * num_n, NPROG):
        pm, pn = swizzle(tile, num_m, num_n, GROUP_M)
        e = tl.load(block_expert_ptr + pm)
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in range(0, K, BLOCK_K):
            a = load_rows(h, pm * BLOCK_M, num_rows, k, K, s_h, TMA_H, BLOCK_M, BLOCK_K)
            b = load_rows(w, e * N + pn * BLOCK_N, e * N + N, k, K, s_w, TMA, BLOCK_N, BLOCK_K)
            acc = dot(a, b.T, acc, F32_DOT)  # [BLOCK_M, BLOCK_N]
        slots = tl.load(slots_ptr + pm * BLOCK_M + tl.arange(0, BLOCK_M))
        real = slots < num_slots
        weight = tl.load(weights_ptr + slots, mask=real, other=0.0).to(tl.float32)
        cols = pn * BLOCK_N + tl.arange(0, BLOCK_N)
        where = y_ptr + slots.to(tl.int64)[:, None] * s_y + cols[None, :]
        tl.store(where, (acc * weight[:, None]).to(y_ptr.dtype.element_ty), mask=real[:, None] & (cols < N)[None, :])
