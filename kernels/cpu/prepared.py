"""Weights made ready for the CPU path beside the originals: int8 rows to decode with, oneDNN's order for more rows.

Both are asked for, never made silently: int8 changes the answer (about 1.4 % of its size, in norm) and adds half of
the bf16 weights' memory; packing adds all of it. The originals stay, so that switching back gives the same bits as
before. A `Prepared` knows which weights it was made from, and `fits` says whether they have been changed since.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

INT8_MAX = 127  # symmetric: -128 is not used, so that a row and its negative quantise alike
SMALLEST_SCALE = 1e-30  # for a row of zeros


@dataclass(frozen=True, slots=True)
class Int8Weights:
    """One scale an output row: `w[e, n, :] ~ rows[e, n, :] * scale[e, n]`."""

    rows: torch.Tensor  # [E, N, K] int8
    scale: torch.Tensor  # [E, N] float32


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one layer's weights became; either half may be missing."""

    made_from: tuple[tuple[int, int], ...]
    int8: tuple[Int8Weights, Int8Weights] | None
    packed: tuple[list[Any], list[Any]] | None  # oneDNN's opaque tensors, one an expert

    def fits(self, *weights: torch.Tensor) -> bool:
        return self.made_from == tuple(_state(w) for w in weights)


def prepare(w1: torch.Tensor, w2: torch.Tensor, *, int8: bool = False, packed: bool = False) -> Prepared:
    """Make the copies. `packed` is left out where oneDNN cannot pack this dtype on this processor."""
    return Prepared(
        made_from=(_state(w1), _state(w2)),
        int8=(quantise_rows(w1), quantise_rows(w2)) if int8 else None,
        packed=(_pack(w1), _pack(w2)) if packed and packs(w1.dtype) else None,
    )


def quantise_rows(w: torch.Tensor) -> Int8Weights:
    """Round to the nearest of 255 steps a row. Raises `ValueError` on weights that are not finite."""
    rows = torch.empty(w.shape, dtype=torch.int8)
    scale = torch.empty(w.shape[:2], dtype=torch.float32)
    for e, expert in enumerate(w.detach()):  # one expert at a time: float32 of all would be four times the result
        exact = expert.float()
        if not bool(torch.isfinite(exact).all()):
            raise ValueError(f"the weights of expert {e} hold NaN or infinity, so they have no int8 form")
        scale[e] = (exact.abs().amax(-1) / INT8_MAX).clamp(min=SMALLEST_SCALE)
        rows[e] = torch.round(exact / scale[e][:, None]).clamp(-INT8_MAX, INT8_MAX).to(torch.int8)
    return Int8Weights(rows, scale)


@lru_cache
def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN packs weights of this dtype on this processor (bf16: with AVX-512 or avx_ne_convert).

    The operators are private to PyTorch and may change with any release, so they are tried, not looked up.
    """
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(torch.zeros(16, 16, dtype=dtype), None)
        product = torch.ops.mkldnn._linear_pointwise(torch.zeros(2, 16, dtype=dtype), packed, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return tuple(product.shape) == (2, 16)


def _pack(w: torch.Tensor) -> list[Any]:
    return [torch.ops.mkldnn._reorder_linear_weight(expert.contiguous(), None) for expert in w.detach()]


def _state(w: torch.Tensor) -> tuple[int, int]:
    """Where the weights lie and how often they were written to in place; changes whenever their values may have."""
    return w.data_ptr(), 0 if w.is_inference() else w._version
