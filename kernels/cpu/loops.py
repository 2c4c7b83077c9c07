"""The two products of a few rows, compiled by numba: weights are read once, widened in registers, summed in float32.

For up to about a dozen rows an expert the time is that of reading weights, which PyTorch's bf16 products do at a
third of the memory's rate on a processor without AVX512_BF16 (one row 0.93 ms, four rows 3.55 ms for 2048 x 2048;
here 0.55 and 0.94; one thread of an AVX2 EPYC). Three kinds of weights share the loops: float32, bf16 (as uint16) and
int8.

Each item of parallel work is some rows of weights, so no two threads write to one place and a run gives the same bits
again at any number of threads. Importing this module imports numba; nothing is compiled before the first call.
"""

from typing import Any

import numba
import numpy as np
from numba import njit, prange

ROWS = 32  # rows of weights an item: 128 KiB of bf16 at H = 2048, so a second pass over them finds them in the L2 cache
F32 = np.float32
FAST = {"reassoc", "contract", "arcp", "nsz"}  # sums may be reordered; NaN and infinity keep their meaning


@njit(inline="always")
def from_f32(value):
    return value


@njit(inline="always")
def from_bf16(bits):
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@njit(inline="always")
def from_int8(value):
    return np.float32(value)


@njit(fastmath=FAST)
def silu(x):
    return x / (F32(1) + np.exp(-x))


def compile_loops(widen: Any) -> tuple[Any, Any]:
    """`(gate_up, down)` for weights that `widen` turns into float32."""

    @njit(fastmath=FAST, nogil=True)
    def dots(w, row, x, start, count, out):
        """`out[i] = w[row] . x[start + i]` for up to four rows of x at a time."""
        k = w.shape[1]
        if count == 1:
            a = F32(0)
            for d in range(k):
                a += widen(w[row, d]) * x[start, d]
            out[0] = a
        elif count == 2:
            a, b = F32(0), F32(0)
            for d in range(k):
                v = widen(w[row, d])
                a += v * x[start, d]
                b += v * x[start + 1, d]
            out[0], out[1] = a, b
        elif count == 3:
            a, b, c = F32(0), F32(0), F32(0)
            for d in range(k):
                v = widen(w[row, d])
                a += v * x[start, d]
                b += v * x[start + 1, d]
                c += v * x[start + 2, d]
            out[0], out[1], out[2] = a, b, c
        else:
            a, b, c, e = F32(0), F32(0), F32(0), F32(0)
            for d in range(k):
                v = widen(w[row, d])
                a += v * x[start, d]
                b += v * x[start + 1, d]
                c += v * x[start + 2, d]
                e += v * x[start + 3, d]
            out[0], out[1], out[2], out[3] = a, b, c, e

    @njit(fastmath=FAST, nogil=True)
    def pair(w, row, other, x, start, out):
        """Two rows of weights with one row of x, which is then read once: 0.55 ms where one after the other is 0.70."""
        a, b = F32(0), F32(0)
        for d in range(w.shape[1]):
            v = x[start, d]
            a += widen(w[row, d]) * v
            b += widen(w[other, d]) * v
        out[0], out[1] = a, b

    @njit(parallel=True, fastmath=FAST, nogil=True)
    def gate_up(x, w1, s1, active, starts, weights, h):
        """`x [S, H]` sorted by expert -> `h [S, I]`, times the slot's weight; `active` and `starts` name the groups."""
        inter = h.shape[1]
        chunks = (inter + ROWS - 1) // ROWS
        for item in prange(active.shape[0] * chunks):
            group, chunk = item // chunks, item % chunks
            w, scale = w1[active[group]], s1[active[group]]
            gate = np.empty(4, np.float32)
            up = np.empty(4, np.float32)
            for start in range(starts[group], starts[group + 1], 4):
                count = min(4, starts[group + 1] - start)
                for n in range(chunk * ROWS, min(inter, chunk * ROWS + ROWS)):
                    if count == 1:
                        pair(w, n, n + inter, x, start, gate)
                        up[0] = gate[1]
                    else:
                        dots(w, n, x, start, count, gate)
                        dots(w, n + inter, x, start, count, up)
                    for i in range(count):
                        value = silu(gate[i] * scale[n]) * (up[i] * scale[n + inter])
                        h[start + i, n] = value * weights[start + i]

    @njit(parallel=True, fastmath=FAST, nogil=True)
    def down(h, w2, s2, active, starts, tokens, out):
        """`h [S, I]` -> `out [T, H]`, summed over each token's slots; `tokens` says whose a slot is."""
        hidden = out.shape[1]
        for chunk in prange((hidden + ROWS - 1) // ROWS):
            first, last = chunk * ROWS, min(hidden, chunk * ROWS + ROWS)
            found = np.empty(4, np.float32)
            out[:, first:last] = F32(0)
            for group in range(active.shape[0]):
                w, scale = w2[active[group]], s2[active[group]]
                for start in range(starts[group], starts[group + 1], 4):
                    count = min(4, starts[group + 1] - start)
                    n = first
                    while n < last:
                        if count == 1 and n + 1 < last:
                            pair(w, n, n + 1, h, start, found)
                            out[tokens[start], n] += found[0] * scale[n]
                            out[tokens[start], n + 1] += found[1] * scale[n + 1]
                            n += 2
                        else:
                            dots(w, n, h, start, count, found)
                            for i in range(count):
                                out[tokens[start + i], n] += found[i] * scale[n]
                            n += 1

    return gate_up, down


def set_threads(count: int) -> None:
    """For the calls of this thread; more than numba started with cannot be had."""
    numba.set_num_threads(max(1, min(count, numba.config.NUMBA_NUM_THREADS)))
