"""Random expert layers and the measure that all kernels are held to.

Without a GPU the Triton kernels run under its interpreter, which must be asked for before `triton` is first imported,
so this is set while tests are collected. With a GPU the same tests run the compiled kernels.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

HAS_TORCH = importlib.util.find_spec("torch") is not None


DEVICE = "cuda" if HAS_TORCH and importlib.import_module("torch").cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"  # Triton 3.9 warns that its default will change


@dataclass(frozen=True, slots=True)
class Layer:
    x: Any  # [T, H]
    w1: Any  # [E, 2I, H]
    w2: Any  # [E, H, I]
    ids: Any  # [T, k]
    weights: Any  # [T, k]

    def parts(self) -> tuple[Any, ...]:
        return self.x, self.w1, self.w2, self.ids, self.weights


@pytest.fixture
def make_layer() -> Callable[..., Layer]:
    """`make_layer(tokens, hidden, inter, experts, top_k, dtype)`: random normal weights, distinct experts a token."""
    torch = pytest.importorskip("torch", reason="needs torch, from the extra `moe`")

    def make(  # noqa: PLR0913, PLR0917  the sizes of a layer, always in this order
        tokens: int, hidden: int, inter: int, experts: int, top_k: int, dtype: Any, *, seed: int = 0
    ) -> Layer:
        rng = torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float = 1.0) -> Any:
            return (torch.randn(shape, generator=rng) * scale).to(dtype).to(DEVICE)

        ids = torch.stack([torch.randperm(experts, generator=rng)[:top_k] for _ in range(tokens)])
        return Layer(
            normal(tokens, hidden),
            normal(experts, 2 * inter, hidden, scale=hidden**-0.5),
            normal(experts, hidden, inter, scale=inter**-0.5),
            ids.to(DEVICE),
            torch.rand(tokens, top_k, generator=rng).softmax(-1).to(DEVICE),
        )

    return make


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """`assert_close(found, oracle)`: the norm of the error over that of the truth, against the dtype's own precision.

    float32 sums a few hundred products, so 8 units in the last place; float16 and bfloat16 round the hidden layer and
    the answer once each while sums are float32, so less than one unit. NaN fails. int8 rows: half a step of 127 in
    the largest of a row, about 1.4 % in norm for normal weights over both products.
    """
    torch = pytest.importorskip("torch", reason="needs torch, from the extra `moe`")
    bounds = {
        torch.float32: 8 * torch.finfo(torch.float32).eps,
        torch.float16: torch.finfo(torch.float16).eps,
        torch.bfloat16: torch.finfo(torch.bfloat16).eps,
        torch.int8: 0.02,
    }

    def check(found: Any, wanted: Any, *, weights: Any = None) -> None:
        assert found.shape == wanted.shape
        wanted = wanted.double().cpu()
        ratio = float((found.double().cpu() - wanted).norm() / wanted.norm().clamp(min=1e-300))
        bound = bounds[weights or found.dtype]
        assert ratio <= bound, f"error ratio {ratio:.2e}, bound {bound:.2e}"  # NaN compares false

    return check
