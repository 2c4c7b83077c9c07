"""Gate and up products for a few rows an expert, with the operands swapped: weights are the tensor core's tall side.

A tile of 16 rows would never use the Hopper tensor cores (a product with M = 16 compiles to the older, slower mma);
64 weight rows as M and 16 tokens as N do. What counts here is reading each expert's weights once, so the sum can be
split over programs.
"""

import triton
import triton.language as tl

from conclave.kernels.tiles.kernel import dot, gated, load_rows


@triton.jit
def gate_up_decode(
    x_ptr, w, scale_ptr, out_ptr, slots_ptr, block_expert_ptr, num_blocks_ptr, ids_ptr, num_slots, N, K, E, top_k,
    s_x, s_w, NPROG, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT_K: tl.constexpr,
    DIRECT: tl.constexpr, W8: tl.constexpr, ACT: tl.constexpr, TMA: tl.constexpr, F32_DOT: tl.constexpr,
):  # fmt: skip
    """`h[slot] = act(gate @ x) * (up @ x)`, or with SPLIT_K > 1 the parts of both sums: `[SPLIT_K, S, 2N]` float32.

    DIRECT has no plan: block b is slot b alone. W8 weights are int8 with a scale a row.
    """
    if DIRECT:
        num_t = num_slots
    else:
        num_t = tl.load(num_blocks_ptr)
    num_n = tl.cdiv(N, BLOCK_N)
    kk = tl.arange(0, BLOCK_K)
    lane = tl.arange(0, BLOCK_T)
    k_part = tl.cdiv(tl.cdiv(K, BLOCK_K), SPLIT_K) * BLOCK_K
    for tile in tl.range(tl.program_id(0), num_t * num_n * SPLIT_K, NPROG):
        part = tile % SPLIT_K
        pn = (tile // SPLIT_K) % num_n
        pt = tile // (SPLIT_K * num_n)
        k_first = part * k_part
        k_last = tl.minimum(K, k_first + k_part)
        if DIRECT:
            chosen = tl.load(ids_ptr + pt)
            known = (chosen >= 0) & (chosen < E)
            e = tl.where(known, chosen, 0).to(tl.int32)
            slots = tl.where((lane == 0) & known, pt, num_slots)
            k_last = tl.where(known, k_last, k_first)  # no work: not a byte of weights is read
        else:
            e = tl.load(block_expert_ptr + pt)
            slots = tl.load(slots_ptr + pt * BLOCK_T + lane)
        real = slots < num_slots
        x_rows = x_ptr + (slots // top_k).to(tl.int64)[None, :] * s_x
        acc_gate = tl.zeros((BLOCK_N, BLOCK_T), tl.float32)
        acc_up = tl.zeros((BLOCK_N, BLOCK_T), tl.float32)
        first = e * 2 * N
        row = first + pn * BLOCK_N
        for k in range(k_first, k_last, BLOCK_K):
            xt = tl.load(x_rows + (k + kk)[:, None], mask=real[None, :] & ((k + kk) < K)[:, None], other=0.0)
            gate = load_rows(w, row, first + N, k, K, s_w, TMA, BLOCK_N, BLOCK_K)
            up = load_rows(w, row + N, first + 2 * N, k, K, s_w, TMA, BLOCK_N, BLOCK_K)
            if W8:
                gate = gate.to(x_ptr.dtype.element_ty)
                up = up.to(x_ptr.dtype.element_ty)
            acc_gate = dot(gate, xt, acc_gate, F32_DOT)  # [BLOCK_N, BLOCK_T]
            acc_up = dot(up, xt, acc_up, F32_DOT)
        cols = pn * BLOCK_N + tl.arange(0, BLOCK_N)
        mask = real[None, :] & (cols < N)[:, None]
        if W8:
            acc_gate *= tl.load(scale_ptr + first + cols, mask=cols < N, other=0.0)[:, None]
            acc_up *= tl.load(scale_ptr + first + N + cols, mask=cols < N, other=0.0)[:, None]
        if SPLIT_K == 1:
            h = gated(acc_gate, acc_up, ACT)
            where = out_ptr + slots.to(tl.int64)[None, :] * N + cols[:, None]
            tl.store(where, h.to(out_ptr.dtype.element_ty), mask=mask)
        else:
            where = out_ptr + (part * num_slots + slots).to(tl.int64)[None, :] * (2 * N) + cols[:, None]
            tl.store(where, acc_gate, mask=mask)
            tl.store(where + N, acc_up, mask=mask)


@triton.jit
def finish_split(
    parts_ptr, ids_ptr, h_ptr, num_slots, N, E, SPLIT_K: tl.constexpr, BLOCK_N: tl.constexpr, ACT: tl.constexpr
):
    """Adds the parts in their order, so that a run gives the same bits again, and applies the activation."""
    slot = tl.program_id(0)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    e = tl.load(ids_ptr + slot)
    if (e >= 0) & (e < E):
        gate = tl.zeros((BLOCK_N,), tl.float32)
        up = tl.zeros((BLOCK_N,), tl.float32)
        for part in range(SPLIT_K):
            where = parts_ptr + (part * num_slots + slot).to(tl.int64) * (2 * N) + cols
            gate += tl.load(where, mask=cols < N, other=0.0)
            up += tl.load(where + N, mask=cols < N, other=0.0)
        h = gated(gate, up, ACT)
        tl.store(h_ptr + slot.to(tl.int64) * N + cols, h.to(h_ptr.dtype.element_ty), mask=cols < N)
