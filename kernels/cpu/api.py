"""The expert layer on a CPU: a few rows an expert through numba's loops, more through one product an expert.

The choice is by rows per active expert, S' / E', since that is what decides between reading weights and multiplying:

| weights | up to | path |
|---|---|---|
| int8, when prepared | 32 rows | loops over int8 |
| bf16, no AVX512_BF16 | 32 rows | loops over bf16; above, float32 products of one widened expert at a time |
| bf16 with it, float32 | 4 rows | loops; above, oneDNN over packed weights when prepared, else plain products |
| float16 | - | float32 products of one widened expert at a time |

Measured per expert of 2048 x 2048 on an AVX2 EPYC, one thread: bf16 products of 1 / 4 / 16 / 64 rows take 0.93 / 3.55
/ 13.1 / 52 ms, widened 2.1 / 4.8 / 5.8 / 11 ms, loops 0.55 / 0.94 / about 3.8 / 15 ms. Where numba is missing the
products serve alone. Answers are the same bits at every number of threads. One call at a time uses the loops: they
take all threads that torch has.
"""

import threading
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name that PyTorch's own pages use

from conclave.kernels.cpu.prepared import Int8Weights, Prepared, packs
from conclave.kernels.experts.reference import ACTIVATIONS, by_expert

LOOP_ROWS = 32  # rows an expert up to which loops win where products of this dtype are emulated
LOOP_ROWS_NATIVE = 4  # and where the processor multiplies it itself
LOOP_ACTS = ("silu",)

Weights = Literal["float32", "bfloat16", "int8"]
_ONE_AT_A_TIME = threading.Lock()  # numba's pool may be the one that ends the process on concurrent use


def cpu_experts(
    x: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    *,
    act: str = "silu",
    prepared: Prepared | None = None,
) -> torch.Tensor:
    """`[T, H]` -> `[T, H]`, as `fused_experts`; `prepared` is used where it fits these weights and this size."""
    order, counts = by_expert(ids, experts=w1.shape[0])
    if prepared is not None and not prepared.fits(w1, w2):
        prepared = None
    rows_per_expert = len(order) / max(1, sum(count > 0 for count in counts))
    kind = loop_weights(x.dtype, rows_per_expert, act=act, int8=prepared is not None and prepared.int8 is not None)
    if kind is None or not all(tensor.is_contiguous() for tensor in (w1, w2)):
        return _products(x, w1, w2, order, counts, weights, act=act, prepared=prepared)
    gate_up, down = (w1, w2) if kind != "int8" or prepared is None or prepared.int8 is None else prepared.int8
    return _loops(kind, x, gate_up, down, order, counts, weights)


def loop_weights(dtype: torch.dtype, rows_per_expert: float, *, act: str, int8: bool) -> Weights | None:
    """Which loops serve this size, or None for products."""
    if act not in LOOP_ACTS or not _has_numba():
        return None
    if int8 and rows_per_expert <= LOOP_ROWS:
        return "int8"
    native = dtype == torch.float32 or packs(dtype)
    if dtype not in (torch.float32, torch.bfloat16) or rows_per_expert > (LOOP_ROWS_NATIVE if native else LOOP_ROWS):
        return None
    return "float32" if dtype == torch.float32 else "bfloat16"


def _loops(
    kind: Weights,
    x: torch.Tensor,
    gate_up: torch.Tensor | Int8Weights,
    down: torch.Tensor | Int8Weights,
    order: torch.Tensor,
    counts: list[int],
    weights: torch.Tensor,
) -> torch.Tensor:
    from conclave.kernels.cpu.loops import set_threads  # noqa: PLC0415  numba is an extra

    tokens = order // (weights.shape[1])
    active = torch.tensor([e for e, count in enumerate(counts) if count], dtype=torch.int64)
    starts = torch.tensor([0, *(count for count in counts if count)]).cumsum(0)
    (w1, s1), (w2, s2) = _arrays(gate_up), _arrays(down)
    rows = x.detach().float()[tokens]  # [S', H] fp32
    slot_weights = weights.detach().reshape(-1)[order].float()  # [S']
    h = torch.empty(len(order), w2.shape[2])  # [S', I] fp32
    out = torch.empty(x.shape)  # [T, H] fp32
    first, second = _compiled(kind)
    with _ONE_AT_A_TIME:
        set_threads(torch.get_num_threads())
        first(rows.numpy(), w1, s1, active.numpy(), starts.numpy(), slot_weights.numpy(), h.numpy())
        second(h.numpy(), w2, s2, active.numpy(), starts.numpy(), tokens.numpy(), out.numpy())
    return out.to(x.dtype)


def _arrays(weights: torch.Tensor | Int8Weights) -> tuple[Any, Any]:
    """Weights and their row scales as numpy sees them, without a copy."""
    if isinstance(weights, Int8Weights):
        return weights.rows.numpy(), weights.scale.numpy()
    bits = weights.detach()
    ones = torch.ones(1).expand(weights.shape[:2])  # [E, N], one number in memory
    return (bits.view(torch.uint16) if bits.dtype == torch.bfloat16 else bits).numpy(), ones.numpy()


def _products(
    x: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    order: torch.Tensor,
    counts: list[int],
    weights: torch.Tensor,
    *,
    act: str,
    prepared: Prepared | None,
) -> torch.Tensor:
    activate = ACTIVATIONS[act]
    packed = prepared.packed if prepared is not None else None
    widen = packed is None and x.dtype != torch.float32 and not packs(x.dtype)
    dtype = torch.float32 if widen else x.dtype
    tokens = order // weights.shape[1]
    rows = x.to(dtype)[tokens]  # [S', H]
    slot_weights = weights.reshape(-1)[order].float()[:, None]  # [S', 1]
    out = torch.zeros(x.shape)  # [T, H] fp32
    wide1, wide2 = (torch.empty(w.shape[1:]) if widen else None for w in (w1, w2))
    start = 0
    for e, count in enumerate(counts):
        if count:
            end = start + count
            if packed is not None:
                gate, up = _packed_product(rows[start:end], packed[0][e]).chunk(2, dim=-1)
                y = _packed_product(activate(gate) * up, packed[1][e])
            else:
                gate, up = F.linear(rows[start:end], _widened(w1[e], wide1)).chunk(2, dim=-1)  # [count, I] each
                y = F.linear(activate(gate).mul_(up), _widened(w2[e], wide2))  # [count, H]
            out.index_add_(0, tokens[start:end], y.float().mul_(slot_weights[start:end]))
            start = end
    return out.to(x.dtype)


def _packed_product(rows: torch.Tensor, packed: Any) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
    return product


def _widened(w: torch.Tensor, wide: torch.Tensor | None) -> torch.Tensor:
    return w if wide is None else wide.copy_(w)


@lru_cache
def _compiled(kind: Weights) -> tuple[Any, Any]:
    from conclave.kernels.cpu import loops  # noqa: PLC0415  numba is an extra

    widen = {"float32": loops.from_f32, "bfloat16": loops.from_bf16, "int8": loops.from_int8}[kind]
    return loops.compile_loops(widen)


@lru_cache
def _has_numba() -> bool:
    try:
        import numba  # noqa: F401, PLC0415  an extra
    except ImportError:
        return False
    return True
