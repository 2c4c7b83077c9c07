"""Each Triton kernel against its reference, the whole layer against the oracle; interpreted, or on a GPU if there.

Every buffer that a kernel is given is filled with NaN first, so reading what was never written shows.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch, from the extra `moe`")
pytest.importorskip("triton", reason="needs triton, from the extra `moe`")

from conclave.kernels.align_slots.api import ONE_PASS_SLOTS, align_slots  # noqa: E402  an extra may be missing
from conclave.kernels.align_slots.plan import Plan  # noqa: E402
from conclave.kernels.align_slots.reference import align_slots_reference  # noqa: E402
from conclave.kernels.combine.api import combine  # noqa: E402
from conclave.kernels.combine.reference import combine_reference  # noqa: E402
from conclave.kernels.cpu.prepared import quantise_rows  # noqa: E402
from conclave.kernels.down_decode.api import down_decode, down_token  # noqa: E402
from conclave.kernels.down_decode.reference import down_decode_reference  # noqa: E402
from conclave.kernels.down_prefill.api import down_prefill  # noqa: E402
from conclave.kernels.down_prefill.reference import down_reference  # noqa: E402
from conclave.kernels.experts.launch import Path, choose_path, choose_split, sized, triton_experts  # noqa: E402
from conclave.kernels.experts.reference import oracle  # noqa: E402
from conclave.kernels.gate_up_decode.api import gate_up_decode  # noqa: E402
from conclave.kernels.gate_up_decode.reference import gate_up_decode_reference  # noqa: E402
from conclave.kernels.gate_up_prefill.api import gate_up_prefill  # noqa: E402
from conclave.kernels.gate_up_prefill.reference import gate_up_reference  # noqa: E402
from conclave.kernels.route_topk.api import route_topk  # noqa: E402
from conclave.kernels.route_topk.reference import route_topk_reference  # noqa: E402
from conclave.kernels.tiles.api import Tile  # noqa: E402

MakeLayer = Callable[..., Any]
AssertClose = Callable[..., None]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16]  # bf16 products are wrong in the interpreter (Triton 3.5 to 3.9)
SIZES = [(64, 32), (123, 65)]  # H, I: with descriptors, and with rows that no descriptor takes
GELUS = [(torch.float32, "gelu"), (torch.float32, "gelu_tanh")]
SMALL = Tile(16, 32, 32, 4, 3, group=2)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """`torch.empty` gives NaN (and the largest integer) while deterministic algorithms are on."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def with_gaps(layer: Any) -> Any:
    """A slot, and a token, without work; expert 0 chosen by nobody."""
    layer.ids[layer.ids == 0] = -1
    layer.ids[-1, :] = len(layer.w1)
    layer.weights[(layer.ids < 0) | (layer.ids >= len(layer.w1))] = float("nan")
    return layer


def written(tensor: Any) -> Any:
    """Rows without NaN, the others as zeros: padding and slots without work are never written."""
    return torch.where(tensor.isnan().any(-1, keepdim=True), 0.0, tensor.double().cpu())


def on_host(plan: Plan) -> Plan:
    return Plan(plan.slots.cpu(), plan.block_expert.cpu(), plan.num_blocks.cpu(), plan.counts.cpu(), plan.block_m)


@pytest.mark.parametrize("tokens", [1, 17])
@pytest.mark.parametrize(
    "told",
    [
        {},
        {"renorm": True},
        {"softmax": False, "renorm": True, "bias": True},
        {"top_p": 0.4},
        {"nulls": 3, "renorm": True},
        {"remap": True, "scale": True, "renorm": True},
    ],
    ids=["softmax", "renormalised", "sigmoid with a bias", "top-p", "null experts", "remapped and scaled"],
)
def test_route_topk_computes_its_reference(tokens: int, told: dict[str, Any]) -> None:
    rng = torch.Generator().manual_seed(tokens)
    columns = 13
    experts = columns - told.get("nulls", 0)
    tables = {"bias": torch.randn(columns, generator=rng), "scale": torch.rand(experts, generator=rng)}
    tables["remap"] = torch.tensor([1, -1, 2, 3, *range(4, experts)], dtype=torch.int32)
    told = {name: tables.get(name, value) for name, value in told.items()}
    logits = torch.randn(tokens, columns, generator=rng) * 2
    placed = {name: value.to(DEVICE) if name in tables else value for name, value in told.items()}
    ids, weights = route_topk(logits.to(DEVICE), top_k=5, **placed)
    wanted_ids, wanted = route_topk_reference(logits, top_k=5, **told)
    assert torch.equal(ids.cpu(), wanted_ids)
    torch.testing.assert_close(weights.cpu(), wanted)


def test_a_token_may_be_routed_to_nulls_alone() -> None:
    logits = torch.tensor([[0.0, 1.0, 9.0, 8.0], [5.0, 1.0, 0.0, 0.5]], device=DEVICE)
    ids, weights = route_topk(logits, top_k=2, nulls=2, renorm=True)
    assert ids.tolist() == [[-1, -1], [0, 1]]
    assert weights[0].tolist() == [0.0, 0.0]
    assert float(weights[1].sum()) == pytest.approx(1)


@pytest.mark.parametrize("block_m", [16, 64])
@pytest.mark.parametrize(("tokens", "top_k"), [(1, 1), (17, 3), (63, 8), (ONE_PASS_SLOTS // 8 + 1, 8)])
def test_align_slots_computes_its_reference(tokens: int, top_k: int, block_m: int) -> None:
    """The last size needs two launches; ids are any 64-bit numbers."""
    ids = torch.randint(-2, 15, (tokens, top_k), generator=torch.Generator().manual_seed(tokens))
    ids[0, 0] = 2**40
    ids[ids == 5] = 7  # nobody chose 5
    found = on_host(align_slots(ids.to(DEVICE), experts=13, block_m=block_m))
    wanted = align_slots_reference(ids, experts=13, block_m=block_m)
    blocks = int(wanted.num_blocks)
    assert int(found.num_blocks) == blocks
    assert torch.equal(found.slots[: blocks * block_m], wanted.slots[: blocks * block_m])
    assert torch.equal(found.block_expert[:blocks], wanted.block_expert[:blocks])
    assert torch.equal(found.counts, wanted.counts)


def test_a_routing_without_any_work_has_no_block() -> None:
    plan = align_slots(torch.full((9, 2), -1, device=DEVICE), experts=4, block_m=16)
    assert int(plan.num_blocks) == 0


@pytest.mark.parametrize(("dtype", "act"), [*((dtype, "silu") for dtype in DTYPES), *GELUS], ids=str)
@pytest.mark.parametrize(("hidden", "inter"), SIZES)
def test_gate_up_prefill_computes_its_reference(
    make_layer: MakeLayer, assert_close: AssertClose, hidden: int, inter: int, dtype: Any, act: str
) -> None:
    layer = with_gaps(make_layer(17, hidden, inter, 5, 2, dtype))
    plan = align_slots(layer.ids, experts=5, block_m=16)
    found = gate_up_prefill(layer.x, layer.w1, plan, top_k=2, act=act, tile=SMALL)
    wanted = gate_up_reference(layer.x.cpu(), layer.w1.cpu(), on_host(plan), top_k=2, act=act)
    assert_close(written(found), written(wanted), weights=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("hidden", "inter"), SIZES)
def test_down_prefill_computes_its_reference(
    make_layer: MakeLayer, assert_close: AssertClose, hidden: int, inter: int, dtype: Any
) -> None:
    layer = with_gaps(make_layer(17, hidden, inter, 5, 2, dtype))
    plan = align_slots(layer.ids, experts=5, block_m=16)
    h = torch.randn(len(plan.slots), inter, device=DEVICE).to(dtype)
    found = down_prefill(h, layer.w2, layer.weights, plan, tile=SMALL)
    wanted = down_reference(h.cpu(), layer.w2.cpu(), layer.weights.cpu(), on_host(plan))
    assert_close(written(found), written(wanted), weights=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("hidden", "inter"), SIZES)
@pytest.mark.parametrize("split_k", [1, 2, 3])
@pytest.mark.parametrize("direct", [True, False], ids=["a slot a block", "planned"])
def test_gate_up_decode_computes_its_reference(
    make_layer: MakeLayer, assert_close: AssertClose, hidden: int, inter: int, dtype: Any, split_k: int, direct: bool
) -> None:
    layer = with_gaps(make_layer(5, hidden, inter, 5, 2, dtype))
    plan = None if direct else align_slots(layer.ids, experts=5, block_m=16)
    found = gate_up_decode(layer.x, layer.w1, layer.ids, plan, act="silu", tile=SMALL, split_k=split_k)
    wanted = gate_up_decode_reference(layer.x.cpu(), layer.w1.cpu(), layer.ids.cpu(), act="silu")
    assert_close(written(found), written(wanted), weights=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("hidden", "inter"), SIZES)
@pytest.mark.parametrize("direct", [True, False], ids=["a slot a block", "planned"])
def test_down_decode_computes_its_reference(
    make_layer: MakeLayer, assert_close: AssertClose, hidden: int, inter: int, dtype: Any, direct: bool
) -> None:
    layer = with_gaps(make_layer(5, hidden, inter, 5, 2, dtype))
    plan = None if direct else align_slots(layer.ids, experts=5, block_m=16)
    h = torch.randn(10, inter, device=DEVICE).to(dtype)
    found = down_decode(h, layer.w2, layer.weights, layer.ids, plan, tile=SMALL)
    wanted = down_decode_reference(h.cpu(), layer.w2.cpu(), layer.weights.cpu(), layer.ids.cpu())
    assert_close(written(found), written(wanted), weights=dtype)
    known = torch.where((layer.ids >= 0) & (layer.ids < 5), layer.ids, -1).cpu()
    added = combine_reference(wanted, known, experts=5)
    assert_close(combine(found, layer.ids, experts=5, dtype=dtype), added)
    assert_close(down_token(h, layer.w2, layer.weights, layer.ids), added)


@pytest.mark.parametrize(("hidden", "inter"), SIZES)
def test_int8_weights_are_exact_up_to_rounding_against_their_own_values(
    make_layer: MakeLayer, assert_close: AssertClose, hidden: int, inter: int
) -> None:
    layer = with_gaps(make_layer(3, hidden, inter, 5, 2, torch.float16))
    q1, q2 = quantise_rows(layer.w1.cpu()), quantise_rows(layer.w2.cpu())
    rows1, scale1, rows2, scale2 = (part.to(DEVICE) for part in (q1.rows, q1.scale, q2.rows, q2.scale))
    h = gate_up_decode(layer.x, rows1, layer.ids, None, act="silu", tile=SMALL, scale=scale1, split_k=2)
    w1, w2 = q1.rows.double() * q1.scale[..., None], q2.rows.double() * q2.scale[..., None]
    wanted = gate_up_decode_reference(layer.x.cpu(), w1, layer.ids.cpu(), act="silu")
    assert_close(written(h), written(wanted), weights=torch.float16)
    y = down_decode(h, rows2, layer.weights, layer.ids, None, tile=SMALL, scale=scale2)
    wanted = down_decode_reference(h.cpu(), w2, layer.weights.cpu(), layer.ids.cpu())
    assert_close(written(y), written(wanted), weights=torch.float16)
    token = down_token(h, rows2, layer.weights, layer.ids, scale=scale2)
    assert_close(token, combine_reference(wanted, layer.ids.cpu(), experts=5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("path", ["direct", "decode", "prefill"])
@pytest.mark.parametrize(("tokens", "hidden", "inter"), [(1, 123, 65), (3, 64, 48), (17, 63, 33)])
def test_the_whole_layer_computes_the_oracle_on_every_path(
    make_layer: MakeLayer, assert_close: AssertClose, tokens: int, hidden: int, inter: int, path: Path, dtype: Any
) -> None:
    layer = make_layer(tokens, hidden, inter, 6, 2, dtype)
    if tokens > 1:
        layer = with_gaps(layer)
    found = triton_experts(*layer.parts(), path=path)
    assert_close(found, oracle(*(part.cpu() for part in layer.parts())))
    assert tokens == 1 or torch.equal(found[-1].cpu(), torch.zeros(hidden, dtype=dtype))


@pytest.mark.parametrize(("path", "tokens"), [("direct", 5), ("decode", 65), ("prefill", 65)])
def test_all_tokens_may_choose_one_expert_and_a_run_gives_the_same_bits_again(
    make_layer: MakeLayer, assert_close: AssertClose, path: Path, tokens: int
) -> None:
    layer = make_layer(tokens, 64, 32, 6, 1, torch.float32)
    layer.ids.fill_(5)
    found = triton_experts(*layer.parts(), path=path)
    assert_close(found, oracle(*(part.cpu() for part in layer.parts())))
    assert torch.equal(triton_experts(*layer.parts(), path=path), found)


@pytest.mark.parametrize("path", ["direct", "decode", "prefill"])
def test_not_a_number_in_a_token_stays_in_that_token(make_layer: MakeLayer, path: Path) -> None:
    """Its neighbour's row ends where its own begins, so a load past the last column would bring it over."""
    layer = make_layer(5, 63, 33, 6, 2, torch.float32)
    layer.x[3, 0] = float("nan")
    found = triton_experts(*layer.parts(), path=path).cpu()
    assert found.isnan().any(-1).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("path", ["direct", "decode", "prefill"])
def test_a_routing_without_any_work_is_exact_zeros(make_layer: MakeLayer, path: Path) -> None:
    layer = make_layer(5, 64, 32, 6, 2, torch.float32)
    layer.ids.fill_(-1)
    assert torch.equal(triton_experts(*layer.parts(), path=path).cpu(), torch.zeros(5, 64))


@pytest.mark.parametrize(
    ("tokens", "top_k", "experts", "wanted"),
    [
        pytest.param(1, 8, 64, "direct", id="one token"),
        pytest.param(8, 8, 256, "direct", id="few slots of many experts"),
        pytest.param(16, 8, 64, "decode", id="a batch of decoding"),
        pytest.param(256, 8, 64, "decode", id="32 rows an expert"),
        pytest.param(512, 8, 64, "prefill", id="64 rows an expert"),
        pytest.param(64, 2, 8, "decode", id="16 rows of few experts"),
        pytest.param(4096, 2, 8, "prefill", id="a prompt of few experts"),
    ],
)
def test_the_path_follows_from_tokens_slots_and_experts(tokens: int, top_k: int, experts: int, wanted: str) -> None:
    assert choose_path(tokens, top_k, experts=experts) == wanted


def test_float32_tiles_are_as_deep_in_bytes_as_others() -> None:
    """Twice the bytes would pass what a program may have of shared memory."""
    tile = Tile(128, 256, 64, 8, 3)
    assert sized(tile, torch.zeros(1, dtype=torch.bfloat16)) == tile
    assert sized(tile, torch.zeros(1)) == Tile(128, 256, 32, 8, 3)


def test_sums_are_split_only_where_tiles_are_too_few() -> None:
    assert choose_split(8, 768, cols=64, wanted=264) == 4
    assert choose_split(16, 1024, cols=64, wanted=264) == 2
    assert choose_split(64, 1024, cols=64, wanted=264) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        pytest.param(lambda: Tile(48, 64, 64, 4, 3), "rows of a tile must be a power of two", id="a tile of 48"),
        pytest.param(lambda: Tile(16, 64, 8, 4, 3), "depth of a tile", id="a tile of depth 8"),
        pytest.param(
            lambda: align_slots(torch.zeros(4, 2), experts=3, block_m=16), "ids must be int32 or int64", id="float ids"
        ),
        pytest.param(
            lambda: align_slots(torch.zeros(4, 4, dtype=torch.int64)[:, ::2], experts=3, block_m=16),
            "ids must be contiguous",
            id="strided ids",
        ),
        pytest.param(
            lambda: align_slots(torch.zeros(4, 2, dtype=torch.int64), experts=1024, block_m=16),
            "experts must be 1 to 1023",
            id="too many experts",
        ),
        pytest.param(lambda: route_topk(torch.zeros(8), top_k=2), r"logits must be floats \[T", id="one row of logits"),
        pytest.param(lambda: route_topk(torch.zeros(2, 8), top_k=9), "do not serve top_k=9", id="k above the columns"),
        pytest.param(
            lambda: route_topk(torch.zeros(2, 8), top_k=2, remap=torch.zeros(7, dtype=torch.int32)),
            "remap must be contiguous with 8 numbers",
            id="a short table",
        ),
        pytest.param(
            lambda: combine(torch.zeros(7, 4), torch.zeros(4, 2, dtype=torch.int64), experts=2, dtype=torch.float32),
            "y must have T \\* k = 8 rows",
            id="rows short",
        ),
        pytest.param(
            lambda: down_token(
                torch.zeros(2, 4),
                torch.zeros(3, 8, 4, dtype=torch.int8),
                torch.ones(1, 2),
                torch.zeros(1, 2, dtype=torch.int64),
            ),
            "int8 weights come with a scale",
            id="int8 without a scale",
        ),
    ],
)
def test_bad_input_is_refused_with_what_was_meant(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
