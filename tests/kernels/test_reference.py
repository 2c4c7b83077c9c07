"""The oracle and the sorted loop: against transformers' own experts, and at the edges of routing."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch, from the extra `moe`")

from conclave.kernels.experts.api import fused_experts  # noqa: E402  torch may be missing
from conclave.kernels.experts.reference import oracle, sorted_loop  # noqa: E402

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("tokens", [1, 63])
def test_the_sorted_loop_computes_the_oracle(
    make_layer: Callable[..., Any], assert_close: Callable[..., None], tokens: int, act: str, dtype: Any
) -> None:
    layer = make_layer(tokens, 65, 33, 8, 2, dtype)
    assert_close(sorted_loop(*layer.parts(), act=act), oracle(*layer.parts(), act=act))


@pytest.mark.parametrize("outside", [-1, 8, 9, 2**31 - 1], ids=["minus one", "E", "E + 1", "largest"])
def test_an_id_outside_is_no_work_even_if_its_weight_is_not_a_number(
    make_layer: Callable[..., Any], assert_close: Callable[..., None], outside: int
) -> None:
    layer = make_layer(5, 32, 16, 8, 3, torch.float32)
    layer.ids[1, 2], layer.weights[1, 2] = outside, float("nan")
    layer.ids[3, :], layer.weights[3, :] = outside, float("inf")
    found = sorted_loop(*layer.parts())
    assert_close(found, oracle(*layer.parts()))
    assert torch.equal(found[3], torch.zeros(32))


def test_all_tokens_may_choose_one_expert(make_layer: Callable[..., Any], assert_close: Callable[..., None]) -> None:
    layer = make_layer(65, 32, 16, 8, 1, torch.float32)
    layer.ids.fill_(7)
    assert_close(sorted_loop(*layer.parts()), oracle(*layer.parts()))


def test_the_order_of_tokens_does_not_matter(make_layer: Callable[..., Any]) -> None:
    layer = make_layer(17, 32, 16, 8, 2, torch.float64)
    back = torch.arange(16, -1, -1)
    turned = sorted_loop(layer.x[back], layer.w1, layer.w2, layer.ids[back], layer.weights[back])
    torch.testing.assert_close(turned[back], sorted_loop(*layer.parts()))


def test_gradients_reach_the_input_the_weights_and_the_routing(make_layer: Callable[..., Any]) -> None:
    layer = make_layer(4, 8, 6, 4, 2, torch.float64)
    layer.ids[1, 1] = -1
    ids, weights = layer.ids, layer.weights.double()
    inputs = [part.requires_grad_() for part in (layer.x, layer.w1, layer.w2, weights)]
    torch.autograd.gradcheck(lambda x, w1, w2, weights: sorted_loop(x, w1, w2, ids, weights), inputs)


@pytest.mark.parametrize("impl", ["auto", "reference", "cpu"])
@pytest.mark.parametrize(("tokens", "top_k"), [(0, 2), (3, 0)], ids=["no token", "no slot"])
def test_nothing_to_do_is_zeros(make_layer: Callable[..., Any], tokens: int, top_k: int, impl: Any) -> None:
    layer = make_layer(1, 32, 16, 8, 2, torch.float32)
    ids, weights = torch.zeros(tokens, top_k, dtype=torch.int64), torch.zeros(tokens, top_k)
    x = torch.ones(tokens, 32)
    assert torch.equal(fused_experts(x, layer.w1, layer.w2, ids, weights, impl=impl), torch.zeros(tokens, 32))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        pytest.param("x", lambda t: t[0], "x must have 2 dimensions", id="one token without its dimension"),
        pytest.param("x", lambda t: t.long(), "must share float32", id="integers"),
        pytest.param("x", lambda t: t.half(), "must share float32", id="two dtypes"),
        pytest.param("w1", lambda t: t[:, 1:], "must be even", id="odd rows of gate and up"),
        pytest.param("w1", lambda t: t.transpose(1, 2), r"w1 must be \[E, 2I, H\]", id="transposed gate"),
        pytest.param("w2", lambda t: t.transpose(1, 2), r"w2 must be \[E, H, I\]", id="transposed down"),
        pytest.param("w2", lambda t: t[1:], r"w2 must be \[E, H, I\]", id="an expert short"),
        pytest.param("ids", lambda t: t[1:], r"ids must be \[T, k\]", id="a token short"),
        pytest.param("ids", lambda t: t.float(), "ids must be int32 or int64", id="ids as floats"),
        pytest.param("weights", lambda t: t[:, 1:], r"weights must be \[T, k\]", id="a weight short"),
    ],
)
def test_bad_tensors_are_refused_with_what_was_meant(
    make_layer: Callable[..., Any], name: str, change: Callable[[Any], Any], words: str
) -> None:
    layer = make_layer(3, 32, 24, 8, 2, torch.float32)
    parts = {part: getattr(layer, part) for part in ("x", "w1", "w2", "ids", "weights")}
    with pytest.raises(ValueError, match=words):
        fused_experts(**(parts | {name: change(parts[name])}))


def test_what_is_no_tensor_and_unknown_names_are_refused(make_layer: Callable[..., Any]) -> None:
    layer = make_layer(3, 32, 16, 8, 2, torch.float32)
    with pytest.raises(TypeError, match="ids must be a tensor, not list"):
        fused_experts(layer.x, layer.w1, layer.w2, [[1, 2]], layer.weights)
    with pytest.raises(ValueError, match="unknown activation 'relu'; known are silu, gelu, gelu_tanh"):
        fused_experts(*layer.parts(), act="relu")
    with pytest.raises(ValueError, match="unknown impl 'cuda'"):
        fused_experts(*layer.parts(), impl="cuda")
