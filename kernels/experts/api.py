"""One call for a whole expert layer: `fused_experts` checks its tensors, chooses a path and runs it.

The choice, by what the tensors are and what is installed (`impl="auto"`):

1. gradients are wanted -> `reference`, the only path that has them
2. CUDA, compute capability 8.0 or more, Triton there -> `triton`
3. CPU -> `cpu` (conclave.kernels.cpu)
4. anything else -> `reference`

It never moves a tensor to another device and never changes a dtype that the caller sees.
"""

from typing import Literal

import torch

from conclave.kernels.checks import check_experts
from conclave.kernels.cpu.prepared import Prepared
from conclave.kernels.experts.reference import sorted_loop

Impl = Literal["auto", "reference", "cpu", "triton"]
IMPLS: tuple[Impl, ...] = ("auto", "reference", "cpu", "triton")
TRITON_CAPABILITY = (8, 0)  # cp.async and bf16 tensor cores; TMA and wgmma come with 9.0


def fused_experts(
    x: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    *,
    act: str = "silu",
    impl: Impl = "auto",
    prepared: Prepared | None = None,
) -> torch.Tensor:
    """`x [T, H]`, `w1 [E, 2I, H]` (gate rows, then up rows), `w2 [E, H, I]`, `ids` and `weights [T, k]` -> `[T, H]`.

    An id outside `[0, E)` is no work. Only the CPU path looks at `prepared`. Raises `ValueError` on tensors that are
    no expert layer.
    """
    check_experts(x, w1, w2, ids, weights, act=act)
    if impl not in IMPLS:
        raise ValueError(f"unknown impl {impl!r}; known are {', '.join(IMPLS)}")
    if x.shape[0] == 0 or ids.shape[1] == 0:
        return torch.zeros_like(x)
    match choose(x, w1, w2, weights) if impl == "auto" else impl:
        case "triton":
            from conclave.kernels.experts.launch import triton_experts  # noqa: PLC0415  Triton is an extra

            return triton_experts(x, w1, w2, ids, weights, act=act)
        case "cpu":
            from conclave.kernels.cpu.api import cpu_experts  # noqa: PLC0415  numba is an extra

            return cpu_experts(x, w1, w2, ids, weights, act=act, prepared=prepared)
        case _:
            return sorted_loop(x, w1, w2, ids, weights, act=act)


def choose(x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, weights: torch.Tensor) -> Impl:
    """The path that serves these tensors."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, w1, w2, weights)):
        return "reference"
    if x.device.type == "cpu":
        return "cpu"
    if x.device.type == "cuda" and torch.cuda.get_device_capability(x.device) >= TRITON_CAPABILITY and _has_triton():
        return "triton"
    return "reference"


def _has_triton() -> bool:
    try:
        import triton  # noqa: F401, PLC0415  an extra: asked for only where a GPU is
    except ImportError:
        return False
    return True
