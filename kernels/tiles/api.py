"""Tile sizes, and what a launch needs to know of the machine: programs, TMA or pointers, how products are taken.

The sizes are starting points from published H200 tables and from compiled facts (registers, shared memory); none has
been tuned on a GPU by us.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton

INTERPRETED_PROGRAMS = 3  # more than one, so that tiles are shared out
TMA_BYTES = 16  # base address and row length of a descriptor are multiples of this
HOPPER = 9


@dataclass(frozen=True, slots=True)
class Tile:
    """One program's share: `rows` slots by `cols` weight rows, `depth` of the summed dimension at a time."""

    rows: int
    cols: int
    depth: int
    warps: int
    stages: int
    group: int = 8  # row tiles that are swept together

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "depth"):
            size = getattr(self, name)
            if size < TMA_BYTES or size & (size - 1):
                raise ValueError(f"{name} of a tile must be a power of two of at least {TMA_BYTES}, not {size}")

    @property
    def options(self) -> dict[str, int]:
        return {"num_warps": self.warps, "num_stages": self.stages}


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python (TRITON_INTERPRET=1)."""
    return bool(triton.knobs.runtime.interpret)


def programs(device: torch.device, *, per_sm: int) -> int:
    """How many programs fill the device: kernels loop over tiles, and their number is known only there."""
    if interpreted():
        return INTERPRETED_PROGRAMS
    return int(torch.cuda.get_device_properties(device).multi_processor_count) * per_sm


def rows_argument(tensor: torch.Tensor, block: list[int]) -> tuple[Any, bool]:
    """The 2-D tensor as a kernel takes it: `(descriptor, True)` where TMA can read it, else `(tensor, False)`."""
    dense = tensor.stride(1) == 1 and (tensor.stride(0) * tensor.element_size()) % TMA_BYTES == 0
    aligned = tensor.data_ptr() % TMA_BYTES == 0
    if not (dense and aligned and (interpreted() or torch.cuda.get_device_capability(tensor.device)[0] >= HOPPER)):
        return tensor, False
    from triton.tools.tensor_descriptor import TensorDescriptor  # noqa: PLC0415  absent before Triton 3.4

    return TensorDescriptor.from_tensor(tensor, block), True


def f32_dot(dtype: torch.dtype) -> bool:
    """Multiply in float32: float32 itself, and bf16 where Triton's interpreter would multiply its bits (3.5 to 3.9)."""
    return dtype == torch.float32 or (dtype == torch.bfloat16 and interpreted())
