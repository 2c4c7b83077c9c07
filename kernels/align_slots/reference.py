"""`align_slots` in plain PyTorch: the specification of its layout (slots ascending within an expert, padded with S)."""

import torch

from conclave.kernels.align_slots.plan import Plan, most_blocks


def align_slots_reference(ids: torch.Tensor, *, experts: int, block_m: int) -> Plan:
    """`ids [T, k]` -> the plan. Past its last block stand S and -1, where the kernel writes nothing."""
    flat = ids.reshape(-1).long()
    total = flat.numel()
    known = (flat >= 0) & (flat < experts)
    counts = torch.bincount(flat[known], minlength=experts)  # [E]
    blocks = (counts + block_m - 1) // block_m
    most = most_blocks(total, experts=experts, block_m=block_m)
    slots = torch.full((most * block_m,), total, dtype=torch.int32)
    owner = torch.full((most,), -1, dtype=torch.int32)
    row = 0
    for e in range(experts):
        mine = torch.nonzero(flat == e).reshape(-1)
        slots[row * block_m : row * block_m + len(mine)] = mine.to(torch.int32)
        owner[row : row + int(blocks[e])] = e
        row += int(blocks[e])
    return Plan(slots, owner, torch.tensor([row], dtype=torch.int32), counts.to(torch.int32), block_m)
