"""`gate_up_prefill` in plain PyTorch: the specification. Rows of padding stay NaN: the kernel does not write them."""

import torch

from conclave.kernels.align_slots.plan import Plan
from conclave.kernels.experts.reference import ACTIVATIONS


def gate_up_reference(x: torch.Tensor, w1: torch.Tensor, plan: Plan, *, top_k: int, act: str) -> torch.Tensor:
    """`x [T, H]`, `w1 [E, 2I, H]` -> `h [rows of the plan, I]` in float64, in the plan's order."""
    total = x.shape[0] * top_k
    h = torch.full((len(plan.slots), w1.shape[1] // 2), float("nan"), dtype=torch.float64)
    for block in range(int(plan.num_blocks)):
        expert = int(plan.block_expert[block])
        for row in range(block * plan.block_m, (block + 1) * plan.block_m):
            slot = int(plan.slots[row])
            if slot < total:
                gate, up = (w1[expert].double() @ x[slot // top_k].double()).chunk(2)
                h[row] = ACTIVATIONS[act](gate) * up
    return h
