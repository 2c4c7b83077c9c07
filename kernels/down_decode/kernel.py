"""The down product for a few rows an expert: swapped operands as in gate_up_decode, or token by token with the sum.

`down_token` reads a slot's weights for that token alone, which is right only for a handful of tokens; it needs
neither `y` nor a combine. `down_decode` reads each expert's weights once for up to BLOCK_T rows.
"""

import triton
import triton.language as tl

from conclave.kernels.tiles.kernel import dot, load_rows


@triton.jit
def down_decode(
    h_ptr, w, scale_ptr, y_ptr, weights_ptr, slots_ptr, block_expert_ptr, num_blocks_ptr, ids_ptr, num_slots, N, K, E,
    s_w, NPROG, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, DIRECT: tl.constexpr,
    W8: tl.constexpr, TMA: tl.constexpr, F32_DOT: tl.constexpr,
):  # fmt: skip
    """`y[slot] = weights[slot] * (down @ h[slot])`; N = H, K = I; `w` views [E * H, I]."""
    if DIRECT:
        num_t = num_slots
    else:
        num_t = tl.load(num_blocks_ptr)
    num_n = tl.cdiv(N, BLOCK_N)
    kk = tl.arange(0, BLOCK_K)
    lane = tl.arange(0, BLOCK_T)
    for tile in tl.range(tl.program_id(0), num_t * num_n, NPROG):
        pn = tile % num_n
        pt = tile // num_n
        k_last = K
        if DIRECT:
            chosen = tl.load(ids_ptr + pt)
            known = (chosen >= 0) & (chosen < E)
            e = tl.where(known, chosen, 0).to(tl.int32)
            slots = tl.where((lane == 0) & known, pt, num_slots)
            k_last = tl.where(known, K, 0)
        else:
            e = tl.load(block_expert_ptr + pt)
            slots = tl.load(slots_ptr + pt * BLOCK_T + lane)
        real = slots < num_slots
        h_rows = h_ptr + slots.to(tl.int64)[None, :] * K
        acc = tl.zeros((BLOCK_N, BLOCK_T), tl.float32)
        first = e * N
        for k in range(0, k_last, BLOCK_K):
            ht = tl.load(h_rows + (k + kk)[:, None], mask=real[None, :] & ((k + kk) < K)[:, None], other=0.0)
            b = load_rows(w, first + pn * BLOCK_N, first + N, k, K, s_w, TMA, BLOCK_N, BLOCK_K)
            if W8:
                b = b.to(h_ptr.dtype.element_ty)
            acc = dot(b, ht, acc, F32_DOT)  # [BLOCK_N, BLOCK_T]
        cols = pn * BLOCK_N + tl.arange(0, BLOCK_N)
        if W8:
            acc *= tl.load(scale_ptr + first + cols, mask=cols < N, other=0.0)[:, None]
        weight = tl.load(weights_ptr + slots, mask=real, other=0.0).to(tl.float32)
        where = y_ptr + slots.to(tl.int64)[None, :] * N + cols[:, None]
        tl.store(where, (acc * weight[None, :]).to(y_ptr.dtype.element_ty), mask=real[None, :] & (cols < N)[:, None])


@triton.jit
def down_token(
    h_ptr, w_ptr, scale_ptr, weights_ptr, ids_ptr, out_ptr, N, K, E, TOP_K: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, W8: tl.constexpr,
):  # fmt: skip
    """`out[t] = sum_j weights[t, j] * (down[e] @ h[t * k + j])`: one token by BLOCK_N outputs, a dot product a row."""
    t = tl.program_id(1)
    cols = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_N,), tl.float32)
    for j in range(TOP_K):
        e = tl.load(ids_ptr + t * TOP_K + j).to(tl.int64)
        if (e >= 0) & (e < E):
            weight = tl.load(weights_ptr + t * TOP_K + j).to(tl.float32)
            part = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
            for k in range(0, K, BLOCK_K):
                kk = k + tl.arange(0, BLOCK_K)
                h = tl.load(h_ptr + (t * TOP_K + j) * K + kk, mask=kk < K, other=0.0).to(tl.float32)
                where = w_ptr + (e * N + cols)[:, None] * K + kk[None, :]
                w = tl.load(where, mask=(cols < N)[:, None] & (kk < K)[None, :], other=0.0).to(tl.float32)
                part += w * h[None, :]
            total = tl.sum(part, axis=1)
            if W8:
                total *= tl.load(scale_ptr + e * N + cols, mask=cols < N, other=0.0)
            acc += total * weight
    tl.store(out_ptr + t.to(tl.int64) * N + cols, acc.to(out_ptr.dtype.element_ty), mask=cols < N)
