"""`align_slots`: checks and launch. Never waits for the device."""

import torch
import triton

from conclave.kernels.align_slots.kernel import align_slots as _align_slots
from conclave.kernels.align_slots.kernel import count_slots
from conclave.kernels.align_slots.plan import Plan, most_blocks
from conclave.kernels.checks import check_ids

ONE_PASS_SLOTS = 4096  # as many as one program holds at once
CHUNK_SLOTS = 2048
MOST_EXPERTS = 1023  # of a layer: one more than this has its own bin for slots without work


def align_slots(ids: torch.Tensor, *, experts: int, block_m: int) -> Plan:
    """`ids [T, k]`, any integers, -> the plan for blocks of `block_m` rows. Raises `ValueError` on other tensors."""
    check_ids(ids)
    if not ids.is_contiguous():
        raise ValueError(f"ids must be contiguous; their strides are {ids.stride()}")
    if not 1 <= experts <= MOST_EXPERTS:
        raise ValueError(f"experts must be 1 to {MOST_EXPERTS}, not {experts}")
    total = ids.numel()
    most = most_blocks(total, experts=experts, block_m=block_m)

    def ints(size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.int32, device=ids.device)

    plan = Plan(ints(most * block_m), ints(most), ints(1), ints(experts), block_m)
    one_pass = total <= ONE_PASS_SLOTS
    chunk = triton.next_power_of_2(max(total, 16)) if one_pass else CHUNK_SLOTS
    if not one_pass:
        count_slots[(experts,)](ids, plan.counts, total, BLOCK_S=chunk)
    _align_slots[(experts,)](
        ids, plan.counts, plan.slots, plan.block_expert, plan.num_blocks, total, experts,
        BLOCK_M=block_m, BLOCK_S=chunk, BLOCK_E=triton.next_power_of_2(experts + 1), COUNT=one_pass,
    )  # fmt: skip
    return plan
