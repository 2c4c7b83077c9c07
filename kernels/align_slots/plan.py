"""Which rows of which expert a product works on: what `align_slots` makes and the products read, all on the device."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Plan:
    """Blocks of `block_m` rows, each of one expert. A row holds a slot (token * k + position), or S for padding."""

    slots: torch.Tensor  # [most_blocks * block_m] int32
    block_expert: torch.Tensor  # [most_blocks] int32
    num_blocks: torch.Tensor  # [1] int32: how many of them are real
    counts: torch.Tensor  # [E] int32: slots of each expert
    block_m: int


def most_blocks(slots: int, *, experts: int, block_m: int) -> int:
    """More blocks than this no routing needs, so buffers and grids are sized without asking the device."""
    return max((slots + min(experts, slots) * (block_m - 1)) // block_m, 1)
