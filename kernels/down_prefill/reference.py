"""`down_prefill` in plain PyTorch: the specification. Rows of slots without work stay NaN."""

import torch

from conclave.kernels.align_slots.plan import Plan


def down_reference(h: torch.Tensor, w2: torch.Tensor, weights: torch.Tensor, plan: Plan) -> torch.Tensor:
    """`h [rows, I]` in the plan's order, `w2 [E, H, I]`, `weights [T, k]` -> `y [T * k, H]` in float64."""
    flat = weights.reshape(-1).double()
    y = torch.full((len(flat), w2.shape[1]), float("nan"), dtype=torch.float64)
    for block in range(int(plan.num_blocks)):
        expert = int(plan.block_expert[block])
        for row in range(block * plan.block_m, (block + 1) * plan.block_m):
            slot = int(plan.slots[row])
            if slot < len(flat):
                y[slot] = flat[slot] * (w2[expert].double() @ h[row].double())
    return y
