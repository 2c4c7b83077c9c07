"""Gate and up products with the activation fused, for many rows an expert: a persistent grid over tiles of sorted rows.

Activations are gathered row by row (sm_90 has no TMA gather), weights streamed; `h` is written in sorted order, so
that the down product reads it by TMA.
"""

import triton
import triton.language as tl

from conclave.kernels.tiles.kernel import dot, gated, load_rows, swizzle


@triton.jit
def gate_up_prefill(
    x_ptr, w, h_ptr, slots_ptr, block_expert_ptr, num_blocks_ptr, num_slots, N, K, top_k, s_x, s_w, s_h, NPROG,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    ACT: tl.constexpr, TMA: tl.constexpr, F32_DOT: tl.constexpr,
):  # fmt: skip
    """`h[row] = act(x[token] @ gate.T) * (x[token] @ up.T)`; N = I, K = H; `w` views [E * 2I, H]."""
    num_m = tl.load(num_blocks_ptr)
    num_n = tl.cdiv(N, BLOCK_N)
    kk = tl.arange(0, BLOCK_K)
    for tile in tl.range(tl.program_id(0), num_m * num_n, NPROG):
        pm, pn = swizzle(tile, num_m, num_n, GROUP_M)
        e = tl.load(block_expert_ptr + pm)
        rows = pm * BLOCK_M + tl.arange(0, BLOCK_M)
        slots = tl.load(slots_ptr + rows)
        real = slots < num_slots
        x_rows = x_ptr + (slots // top_k).to(tl.int64)[:, None] * s_x
        acc_gate = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        acc_up = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        first = e * 2 * N
        row = first + pn * BLOCK_N
        for k in range(0, K, BLOCK_K):
            a = tl.load(x_rows + (k + kk)[None, :], mask=real[:, None] & ((k + kk) < K)[None, :], other=0.0)
            gate = load_rows(w, row, first + N, k, K, s_w, TMA, BLOCK_N, BLOCK_K)
            up = load_rows(w, row + N, first + 2 * N, k, K, s_w, TMA, BLOCK_N, BLOCK_K)
            acc_gate = dot(a, gate.T, acc_gate, F32_DOT)  # [BLOCK_M, BLOCK_N]
            acc_up = dot(a, up.T, acc_up, F32_DOT)
        h = gated(acc_gate, acc_up, ACT)
        cols = pn * BLOCK_N + tl.arange(0, BLOCK_N)
        where = h_ptr + rows.to(tl.int64)[:, None] * s_h + cols[None, :]
        tl.store(where, h.to(h_ptr.dtype.element_ty), mask=real[:, None] & (cols < N)[None, :])
