"""Adds up each token's slots: `out[t] = sum_j y[t * k + j]`, over slots with work; the others were never written."""

import triton
import triton.language as tl


@triton.jit
def combine(y_ptr, ids_ptr, out_ptr, H, E, K: tl.constexpr, BLOCK_H: tl.constexpr):
    t = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    acc = tl.zeros((BLOCK_H,), tl.float32)
    for j in range(K):
        e = tl.load(ids_ptr + t * K + j)
        if (e >= 0) & (e < E):
            acc += tl.load(y_ptr + (t * K + j) * H + cols, mask=cols < H, other=0.0).to(tl.float32)
    tl.store(out_ptr + t * H + cols, acc.to(out_ptr.dtype.element_ty), mask=cols < H)
