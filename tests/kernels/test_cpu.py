"""The CPU path: loops over bf16, float32 and int8, packed products, and the choice between them."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch, from the extra `moe`")
pytest.importorskip("numba", reason="needs numba, from the extra `moe`")

from conclave.kernels.cpu.api import LOOP_ROWS, cpu_experts, loop_weights  # noqa: E402  torch may be missing
from conclave.kernels.cpu.prepared import packs, prepare, quantise_rows  # noqa: E402
from conclave.kernels.experts.api import choose  # noqa: E402
from conclave.kernels.experts.reference import oracle  # noqa: E402

MakeLayer = Callable[..., Any]
AssertClose = Callable[..., None]
LOOPS, PRODUCTS = 9, 400  # tokens over 8 experts with 2 each: about 2 and 100 rows an expert


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tokens", [1, LOOPS, 63, PRODUCTS])
def test_each_size_and_dtype_computes_the_oracle(
    make_layer: MakeLayer, assert_close: AssertClose, tokens: int, dtype: Any
) -> None:
    layer = make_layer(tokens, 123, 65, 8, 2, dtype)
    assert_close(cpu_experts(*layer.parts()), oracle(*layer.parts()))


@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_tanh"])
def test_each_activation_computes_the_oracle(make_layer: MakeLayer, assert_close: AssertClose, act: str) -> None:
    layer = make_layer(LOOPS, 64, 32, 8, 2, torch.bfloat16)
    assert_close(cpu_experts(*layer.parts(), act=act), oracle(*layer.parts(), act=act))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7])
def test_groups_of_any_size_are_whole(make_layer: MakeLayer, assert_close: AssertClose, rows: int) -> None:
    """The loops take four rows at a time and write the rest out one by one."""
    layer = make_layer(rows, 33, 35, 4, 1, torch.bfloat16)
    layer.ids.fill_(2)
    assert_close(cpu_experts(*layer.parts()), oracle(*layer.parts()))


@pytest.mark.parametrize("tokens", [LOOPS, PRODUCTS])
@pytest.mark.parametrize("outside", [-1, 8, 2**40], ids=["minus one", "E", "beyond 32 bits"])
def test_slots_without_work_and_a_token_without_any(
    make_layer: MakeLayer, assert_close: AssertClose, outside: int, tokens: int
) -> None:
    layer = make_layer(tokens, 64, 32, 8, 2, torch.bfloat16)
    layer.ids[::3, 1], layer.weights[::3, 1] = outside, float("nan")
    layer.ids[4], layer.weights[4] = outside, float("nan")
    found = cpu_experts(*layer.parts())
    assert_close(found, oracle(*layer.parts()))
    assert torch.equal(found[4], torch.zeros(64, dtype=torch.bfloat16))


def test_not_a_number_in_a_token_stays_in_that_token(make_layer: MakeLayer) -> None:
    layer = make_layer(LOOPS, 64, 32, 8, 2, torch.bfloat16)
    layer.x[3, 5] = float("nan")
    found = cpu_experts(*layer.parts())
    assert bool(torch.isnan(found[3]).all())
    assert bool(torch.isfinite(found[torch.arange(LOOPS) != 3]).all())


@pytest.mark.parametrize("tokens", [1, LOOPS])
def test_int8_is_within_its_stated_error_of_the_true_weights(
    make_layer: MakeLayer, assert_close: AssertClose, tokens: int
) -> None:
    layer = make_layer(tokens, 256, 128, 8, 2, torch.bfloat16)
    ready = prepare(layer.w1, layer.w2, int8=True)
    found, truth = cpu_experts(*layer.parts(), prepared=ready), oracle(*layer.parts())
    assert_close(found, truth, weights=torch.int8)
    with pytest.raises(AssertionError, match="error ratio"):  # so it was int8 that answered
        assert_close(found, truth)


def test_int8_is_exact_up_to_rounding_against_its_own_weights(make_layer: MakeLayer, assert_close: AssertClose) -> None:
    layer = make_layer(LOOPS, 64, 32, 8, 2, torch.float32)
    ready = prepare(layer.w1, layer.w2, int8=True)
    assert ready.int8 is not None
    w1, w2 = (half.rows.double() * half.scale.double()[..., None] for half in ready.int8)
    wanted = oracle(layer.x, w1, w2, layer.ids, layer.weights)
    assert_close(cpu_experts(*layer.parts(), prepared=ready), wanted)


def test_quantising_keeps_each_weight_within_half_a_step(make_layer: MakeLayer) -> None:
    w = make_layer(1, 64, 32, 4, 1, torch.float32).w1
    w[0, 0] = 0.0
    found = quantise_rows(w)
    step = w.abs().amax(-1, keepdim=True) / 127
    assert bool(((found.rows * found.scale[..., None] - w).abs() <= step / 2 * 1.0001).all())
    assert int(found.rows[0, 0].abs().sum()) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")], ids=str)
def test_weights_that_are_not_finite_have_no_int8_form(make_layer: MakeLayer, bad: float) -> None:
    w = make_layer(1, 64, 32, 4, 1, torch.float32).w1
    w[2, 3, 4] = bad
    with pytest.raises(ValueError, match="expert 2 hold NaN or infinity"):
        quantise_rows(w)


def test_weights_changed_after_preparing_are_used_as_they_are_now(
    make_layer: MakeLayer, assert_close: AssertClose
) -> None:
    layer = make_layer(LOOPS, 64, 32, 8, 2, torch.float32)
    ready = prepare(layer.w1, layer.w2, int8=True, packed=True)
    layer.w2.mul_(-3)
    assert not ready.fits(layer.w1, layer.w2)
    assert_close(cpu_experts(*layer.parts(), prepared=ready), oracle(*layer.parts()))


@pytest.mark.parametrize("tokens", [LOOPS, PRODUCTS])
def test_packed_weights_compute_the_oracle(make_layer: MakeLayer, assert_close: AssertClose, tokens: int) -> None:
    layer = make_layer(tokens, 64, 32, 8, 2, torch.float32)
    ready = prepare(layer.w1, layer.w2, packed=True)
    assert (ready.packed is not None) == packs(torch.float32)
    assert_close(cpu_experts(*layer.parts(), prepared=ready), oracle(*layer.parts()))


def test_the_number_of_threads_does_not_change_a_bit(make_layer: MakeLayer) -> None:
    layer = make_layer(LOOPS, 96, 80, 8, 2, torch.bfloat16)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = cpu_experts(*layer.parts())
        torch.set_num_threads(2)
        assert torch.equal(cpu_experts(*layer.parts()), one)
    finally:
        torch.set_num_threads(before)


def test_calls_from_several_threads_do_not_mix(make_layer: MakeLayer) -> None:
    layers = [make_layer(3, 64, 32, 8, 2, torch.bfloat16, seed=seed) for seed in range(4)]
    wanted = [cpu_experts(*layer.parts()) for layer in layers]
    found: list[Any] = [None] * 4

    def work(i: int) -> None:
        for _ in range(5):
            found[i] = cpu_experts(*layers[i].parts())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_weights_in_another_order_in_memory_are_computed_too(make_layer: MakeLayer, assert_close: AssertClose) -> None:
    layer = make_layer(LOOPS, 64, 32, 8, 2, torch.bfloat16)
    w1 = layer.w1.transpose(1, 2).contiguous().transpose(1, 2)
    parts = (layer.x, w1, layer.w2, layer.ids.int(), layer.weights)
    assert_close(cpu_experts(*parts), oracle(*layer.parts()))


def test_the_choice_is_by_rows_an_expert() -> None:
    assert loop_weights(torch.bfloat16, 1, act="silu", int8=False) == "bfloat16"
    assert loop_weights(torch.bfloat16, 1, act="silu", int8=True) == "int8"
    assert loop_weights(torch.bfloat16, LOOP_ROWS + 1, act="silu", int8=True) is None
    assert loop_weights(torch.float32, LOOP_ROWS, act="silu", int8=False) is None
    assert loop_weights(torch.float16, 1, act="silu", int8=False) is None
    assert loop_weights(torch.bfloat16, 1, act="gelu", int8=True) is None


def test_where_gradients_are_wanted_the_reference_serves(make_layer: MakeLayer) -> None:
    layer = make_layer(3, 32, 16, 4, 2, torch.float32)
    wanted = (layer.x.requires_grad_(), layer.w1, layer.w2, layer.weights)
    assert choose(*wanted) == "reference"
    with torch.no_grad():
        assert choose(*wanted) == "cpu"
