"""`route_topk` in plain PyTorch: the specification, in float32."""

import torch


def route_topk_reference(
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
    """`logits [T, E + nulls]` -> `ids [T, k]` int32 and `weights [T, k]` float32; -1 and 0 where there is no work."""
    experts = logits.shape[1] - nulls
    scores = logits.float().softmax(-1) if softmax else logits.float().sigmoid()  # [T, columns]
    columns = (scores if bias is None else scores + bias.float()).topk(top_k, dim=-1).indices  # [T, k]
    weights = scores.gather(1, columns)  # [T, k]
    work = columns < experts
    if top_p is not None:
        work &= weights.cumsum(-1) - weights < top_p
    inside = columns.clamp(max=experts - 1)
    if scale is not None:
        weights = weights * scale.float()[inside]
    ids = inside if remap is None else remap.long()[inside]
    work &= ids >= 0
    ids, weights = torch.where(work, ids, -1), torch.where(work, weights, 0.0)
    if renorm:
        total = weights.sum(-1, keepdim=True)
        weights = weights / torch.where(total > 0, total, 1.0)
    return ids.to(torch.int32), weights
