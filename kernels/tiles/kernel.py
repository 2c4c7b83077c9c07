"""Pieces that several kernels share: the order of tiles, loading rows of weights, the activation.

Rows of weights come by TMA where `TMA` is set (`w` is then a tensor descriptor, which gives zeros past the last
column), else through a pointer with masks, for sizes that no descriptor takes and for chips before sm_90.
"""

import triton
import triton.language as tl


@triton.jit
def swizzle(tile, num_m, num_n, GROUP_M: tl.constexpr):
    """Tiles that share activations or weights run close together, so that both stay in the L2 cache."""
    width = GROUP_M * num_n
    group = tile // width
    size = tl.minimum(num_m - group * GROUP_M, GROUP_M)
    return group * GROUP_M + (tile % width) % size, (tile % width) // size


@triton.jit
def load_rows(w, row, rows_end, k, K, stride, TMA: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """`w[row : row + BLOCK_N, k : k + BLOCK_K]`, zero past K. Past `rows_end` TMA gives rows of the next matrix."""
    if TMA:
        tile = w.load([row, k])
    else:
        n = row + tl.arange(0, BLOCK_N)
        kk = k + tl.arange(0, BLOCK_K)
        where = w + n.to(tl.int64)[:, None] * stride + kk[None, :]  # E * 2I * H passes 2**31 in the largest models
        tile = tl.load(where, mask=(n < rows_end)[:, None] & (kk < K)[None, :], other=0.0)
    return tile


@triton.jit
def dot(a, b, acc, F32_DOT: tl.constexpr):
    """`acc + a @ b` with float32 sums; F32_DOT multiplies in float32 too: float32 models, bf16 in the interpreter."""
    if F32_DOT:
        acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        acc = tl.dot(a, b, acc)
    return acc


@triton.jit
def gated(gate, up, ACT: tl.constexpr):
    """`act(gate) * up` in float32."""
    if ACT == "silu":
        value = gate * tl.sigmoid(gate)
    elif ACT == "gelu":
        value = gate * 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    else:
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        value = gate * tl.sigmoid(2.0 * inner)  # (1 + tanh(z)) / 2 = sigmoid(2z)
    return value * up
