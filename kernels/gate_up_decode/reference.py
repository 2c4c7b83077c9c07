"""`gate_up_decode` in plain PyTorch: the specification. Rows of slots without work stay NaN."""

import torch

from conclave.kernels.experts.reference import ACTIVATIONS


def gate_up_decode_reference(x: torch.Tensor, w1: torch.Tensor, ids: torch.Tensor, *, act: str) -> torch.Tensor:
    """`x [T, H]`, `w1 [E, 2I, H]`, `ids [T, k]` -> `h [T * k, I]` in float64, by slot."""
    h = torch.full((ids.numel(), w1.shape[1] // 2), float("nan"), dtype=torch.float64)
    for slot, expert in enumerate(ids.reshape(-1).tolist()):
        if 0 <= expert < w1.shape[0]:
            gate, up = (w1[expert].double() @ x[slot // ids.shape[1]].double()).chunk(2)
            h[slot] = ACTIVATIONS[act](gate) * up
    return h
