"""`route_topk`: checks and launch. A policy that drops, cuts, merges or reweights experts is an input here."""

import torch
import triton

from conclave.kernels.checks import FLOATS, check_rows, check_same_device
from conclave.kernels.route_topk.kernel import route_topk as _route_topk

MOST_COLUMNS = 1024


def route_topk(
    logits: torch.Tensor,
    *,
    top_k: int,
    softmax: bool = True,
    renorm: bool = False,
    bias: torch.Tensor | None = None,
    top_p: float | None = None,
    nulls: int = 0,
    remap: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`logits [T, E + nulls]` -> `ids [T, k]` int32, `weights [T, k]` float32; -1 and 0 where there is no work.

    `bias [E + nulls]` moves the choice and not the weight; `remap [E]` int32 sends an expert's work to another, or to
    none with -1; `scale [E]` multiplies an expert's weight. Renormalising comes last, over what is left. Equal
    scores: the lower column. Raises `ValueError` on sizes that do not belong together.
    """
    if logits.dim() != 2 or logits.dtype not in FLOATS:  # noqa: PLR2004  tokens by columns
        raise ValueError(f"logits must be floats [T, E + nulls], not {logits.dtype} {tuple(logits.shape)}")
    tokens, columns = logits.shape
    experts = columns - nulls
    if not 0 <= nulls < columns <= MOST_COLUMNS or not 1 <= top_k <= columns:
        raise ValueError(f"{columns} columns, {nulls} of them null, do not serve top_k={top_k}; at most {MOST_COLUMNS}")
    tables = {"bias": (bias, columns), "remap": (remap, experts), "scale": (scale, experts)}
    given = {name: (table, size) for name, (table, size) in tables.items() if table is not None}
    for name, (table, size) in given.items():
        if tuple(table.shape) != (size,) or not table.is_contiguous():
            raise ValueError(f"{name} must be contiguous with {size} numbers; its shape is {tuple(table.shape)}")
    check_rows(logits=logits)
    check_same_device(logits=logits, **{name: table for name, (table, _) in given.items()})
    ids = torch.empty(tokens, top_k, dtype=torch.int32, device=logits.device)
    weights = torch.empty(tokens, top_k, dtype=torch.float32, device=logits.device)
    if tokens:
        _route_topk[(tokens,)](
            logits, bias, remap, scale, ids, weights, columns, experts, 1.0 if top_p is None else top_p,
            logits.stride(0), K=top_k, BLOCK_E=triton.next_power_of_2(columns), SOFTMAX=softmax, RENORM=renorm,
            TOP_P=top_p is not None, HAS_BIAS=bias is not None, HAS_REMAP=remap is not None,
            HAS_SCALE=scale is not None, BLOCK_K=triton.next_power_of_2(top_k), num_warps=1,
        )  # fmt: skip
    return ids, weights
