"""The whole layer on Triton kernels: which of them, with which tiles, from sizes that the host knows. Never waits.

By S = T * k slots over E experts, r = S / min(E, S) rows an active expert:

| size | launches |
|---|---|
| T <= 4 or 4S <= E | gate_up_decode without a plan (split sums below a wave of tiles), then down_token or down_decode
and combine | | r <= 48 | align_slots, gate_up_decode, down_decode, combine | | more | align_slots, gate_up_prefill,
down_prefill, combine |

These borders are reasoned from bytes and tiles, not tuned on a GPU. All buffers have sizes that the host knows, so a
CUDA graph can hold the calls.
"""

from dataclasses import replace
from typing import Literal

import torch

from conclave.kernels.align_slots.api import align_slots
from conclave.kernels.combine.api import combine
from conclave.kernels.down_decode.api import down_decode, down_token
from conclave.kernels.down_prefill.api import down_prefill
from conclave.kernels.gate_up_decode.api import gate_up_decode
from conclave.kernels.gate_up_prefill.api import gate_up_prefill
from conclave.kernels.tiles.api import Tile, programs

Path = Literal["direct", "decode", "prefill"]
TOKEN_TOKENS = 4  # up to which reading weights once a slot is no dearer than sorting
DECODE_ROWS = 48  # rows an expert up to which weights are the tall side of the product
SPLITS = (1, 2, 4)

# rows, cols, depth, warps, stages; compiled for sm_90 by Triton 3.9 without spills (tests/kernels/test_compiled.py)
DECODE_TILES = (Tile(16, 64, 64, 4, 5), Tile(32, 64, 64, 4, 5), Tile(64, 64, 64, 4, 4))
GATE_UP_TILES = (Tile(64, 128, 64, 4, 3), Tile(128, 64, 64, 8, 4))
DOWN_TILES = (Tile(64, 128, 64, 4, 3), Tile(128, 256, 64, 8, 3))
HALF_BYTES = 2  # of an element, for which the tiles above are written
SMALL_ROWS = 96  # rows an expert up to which prefill blocks are 64 rows, above 128


def triton_experts(
    x: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    *,
    act: str = "silu",
    path: Path | None = None,
) -> torch.Tensor:
    """`[T, H]` -> `[T, H]` as `fused_experts`; `path` overrides the choice, for benchmarks and tests."""
    x, w1, w2, ids, weights = (tensor.contiguous() for tensor in (x, w1, w2, ids, weights))
    path = path or choose_path(*ids.shape, experts=w1.shape[0])
    if path == "prefill":
        return _prefill(x, w1, w2, ids, weights, act=act)
    return _decode(x, w1, w2, ids, weights, act=act, direct=path == "direct")


def choose_path(tokens: int, top_k: int, *, experts: int) -> Path:
    """The table above."""
    slots = tokens * top_k
    if tokens <= TOKEN_TOKENS or 4 * slots <= experts:
        return "direct"
    return "decode" if slots <= DECODE_ROWS * min(experts, slots) else "prefill"


def _decode(
    x: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    *,
    act: str,
    direct: bool,
) -> torch.Tensor:
    experts = w1.shape[0]
    tile = sized(DECODE_TILES[0] if direct else decode_tile(ids.numel(), experts=experts), x)
    plan = None if direct else align_slots(ids, experts=experts, block_m=tile.rows)
    blocks = ids.numel() if plan is None else len(plan.block_expert)
    split_k = choose_split(blocks, w1.shape[1] // 2, cols=tile.cols, wanted=programs(x.device, per_sm=2))
    h = gate_up_decode(x, w1, ids, plan, act=act, tile=tile, split_k=split_k)
    if direct and len(x) <= TOKEN_TOKENS:
        return down_token(h, w2, weights, ids)
    y = down_decode(h, w2, weights, ids, plan, tile=tile)
    return combine(y, ids, experts=experts, dtype=x.dtype)


def _prefill(
    x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, *, act: str
) -> torch.Tensor:
    experts, slots = w1.shape[0], ids.numel()
    large = slots > SMALL_ROWS * min(experts, slots)
    up, down = sized(GATE_UP_TILES[large], x), sized(DOWN_TILES[large], x)
    plan = align_slots(ids, experts=experts, block_m=up.rows)
    h = gate_up_prefill(x, w1, plan, top_k=ids.shape[1], act=act, tile=up)
    y = down_prefill(h, w2, weights, plan, tile=down)
    return combine(y, ids, experts=experts, dtype=x.dtype)


def sized(tile: Tile, x: torch.Tensor) -> Tile:
    """As deep in bytes for float32 as for 16-bit floats: twice the shared memory would not fit (128x256x64: 294 KB)."""
    return replace(tile, depth=max(16, tile.depth * HALF_BYTES // x.element_size()))


def decode_tile(slots: int, *, experts: int) -> Tile:
    """The lowest tile that holds an average expert's rows."""
    rows = slots / min(experts, slots)
    return next((tile for tile in DECODE_TILES if rows <= tile.rows), DECODE_TILES[-1])


def choose_split(blocks: int, inter: int, *, cols: int, wanted: int) -> int:
    """In how many parts to sum, so that about as many tiles as programs exist; the host's bound on blocks decides."""
    tiles = blocks * -(-inter // cols)
    return next((split for split in SPLITS if tiles * split >= wanted), SPLITS[-1])
