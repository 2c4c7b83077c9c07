"""Sorts slots by expert into blocks of one expert each, on the device, without atomics: the same order at every run.

One program an expert. It counts what comes before it and writes its own slots, so nothing waits for the host. Slots
without work are in no block.
"""

import triton
import triton.language as tl


@triton.jit
def count_slots(ids_ptr, counts_ptr, num_slots, BLOCK_S: tl.constexpr):
    """`counts[e]` for many slots, where one program cannot hold them all."""
    e = tl.program_id(0)
    found = tl.zeros((BLOCK_S,), tl.int32)
    for start in range(0, num_slots, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        ids = tl.load(ids_ptr + s, mask=s < num_slots, other=-1)
        found += (ids == e).to(tl.int32)
    tl.store(counts_ptr + e, tl.sum(found, 0))


@triton.jit
def align_slots(
    ids_ptr, counts_ptr, slots_ptr, block_expert_ptr, num_blocks_ptr, num_slots, E,
    BLOCK_M: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """Expert e's slots in ascending order from row `BLOCK_M * (blocks before e)`; its last block is filled with S."""
    e = tl.program_id(0)
    experts = tl.arange(0, BLOCK_E)
    if COUNT:  # all slots fit into one load: count every expert here and save a launch
        s = tl.arange(0, BLOCK_S)
        ids = tl.load(ids_ptr + s, mask=s < num_slots, other=-1)
        known = (ids >= 0) & (ids < E)
        counts = tl.histogram(tl.where(known, ids, E).to(tl.int32), BLOCK_E)  # BLOCK_E > E: strangers are counted there
        counts = tl.where(experts < E, counts, 0)
        tl.store(counts_ptr + experts, counts, mask=(experts < E) & (experts == e))
    else:
        counts = tl.load(counts_ptr + experts, mask=experts < E, other=0)
    blocks = (counts + BLOCK_M - 1) // BLOCK_M
    first = tl.sum(tl.where(experts < e, blocks, 0), 0)
    mine = tl.sum(tl.where(experts == e, counts, 0), 0)
    my_blocks = (mine + BLOCK_M - 1) // BLOCK_M
    if e == 0:
        tl.store(num_blocks_ptr, tl.sum(blocks, 0))

    rank = 0
    for start in range(0, num_slots, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        ids = tl.load(ids_ptr + s, mask=s < num_slots, other=-1)
        here = (ids == e).to(tl.int32)
        place = rank + tl.cumsum(here, 0) - here
        tl.store(slots_ptr + first * BLOCK_M + place, s, mask=here > 0)
        rank += tl.sum(here, 0)
    pad = mine + tl.arange(0, BLOCK_M)
    fill = tl.zeros((BLOCK_M,), tl.int32) + num_slots
    tl.store(slots_ptr + first * BLOCK_M + pad, fill, mask=pad < my_blocks * BLOCK_M)
    for b in range(0, my_blocks):
        tl.store(block_expert_ptr + first + b, e)
