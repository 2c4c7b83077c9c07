"""`conclave` inside transformers: the same numbers as eager, `generate`, switching back, other layouts, sentinels."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch, from the extra `moe`")
transformers = pytest.importorskip("transformers", reason="needs transformers, from the extra `moe`")

from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts  # noqa: E402  transformers may be missing
from transformers.models.mixtral.modeling_mixtral import MixtralExperts  # noqa: E402
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts  # noqa: E402
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts  # noqa: E402

from conclave.kernels import dispatch  # noqa: E402

ROOT = Path(__file__).parents[2]
TOKENS, EXPERTS, TOP_K = 7, 8, 2
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
SIZES |= {"vocab_size": 64, "num_experts_per_tok": TOP_K}
FAMILIES = {
    "olmoe": (transformers.OlmoeConfig, OlmoeExperts, {"num_experts": EXPERTS, "intermediate_size": 24}),
    "mixtral": (transformers.MixtralConfig, MixtralExperts, {"num_local_experts": EXPERTS, "intermediate_size": 24}),
    "qwen3_moe": (transformers.Qwen3MoeConfig, Qwen3MoeExperts, {"num_experts": EXPERTS, "moe_intermediate_size": 24}),
    "gpt_oss": (transformers.GptOssConfig, GptOssExperts, {"num_local_experts": EXPERTS, "intermediate_size": 24}),
}


@pytest.fixture(autouse=True)
def registered() -> None:
    dispatch.register()


def experts_of(family: str, *, dtype: Any = torch.float32) -> Any:
    config_class, experts_class, sizes = FAMILIES[family]
    experts = experts_class(config_class(**SIZES, **sizes)).to(dtype)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_(0, 0.2)
    return experts


def run(experts: Any, implementation: str, x: Any, ids: Any, weights: Any) -> Any:
    experts.config._experts_implementation = implementation
    with torch.no_grad():
        return experts(x, ids, weights)


def routing() -> tuple[Any, Any, Any]:
    rng = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randperm(EXPERTS, generator=rng)[:TOP_K] for _ in range(TOKENS)])
    weights = torch.rand(TOKENS, TOP_K, generator=rng).softmax(-1)
    return torch.randn(TOKENS, 32, generator=rng), ids, weights


def tiny_model(implementation: str = "conclave") -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(**SIZES, num_experts=EXPERTS, moe_intermediate_size=24, intermediate_size=24)
    return transformers.AutoModelForCausalLM.from_config(config, experts_implementation=implementation).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_computes_what_eager_computes(family: str, assert_close: Callable[..., None]) -> None:
    experts = experts_of(family)
    x, ids, weights = routing()
    assert_close(run(experts, "conclave", x, ids, weights), run(experts, "eager", x, ids, weights))


@pytest.mark.parametrize("family", ["olmoe", "mixtral", "qwen3_moe"])
def test_the_kernels_serve_the_usual_layout(family: str) -> None:
    assert dispatch.unsupported(experts_of(family)) is None


def test_another_layout_is_named_and_served_by_transformers() -> None:
    experts = experts_of("gpt_oss")
    assert dispatch.unsupported(experts) == "has_bias is True"
    before = dispatch.PATHS["grouped_mm: has_bias is True"]
    run(experts, "conclave", *routing())
    assert dispatch.PATHS["grouped_mm: has_bias is True"] == before + 1


def test_an_unknown_activation_is_left_to_transformers(assert_close: Callable[..., None]) -> None:
    experts = experts_of("olmoe")
    experts.act_fn = torch.nn.ReLU()
    assert dispatch.unsupported(experts) == "its activation is ReLU"
    x, ids, weights = routing()
    assert_close(run(experts, "conclave", x, ids, weights), run(experts, "eager", x, ids, weights))


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"], ids=["ours", "handed to transformers"])
@pytest.mark.parametrize("outside", [-1, EXPERTS, EXPERTS + 1], ids=["minus one", "E", "E + 1"])
def test_a_slot_without_work_adds_nothing(family: str, outside: int, assert_close: Callable[..., None]) -> None:
    experts = experts_of(family)
    x, ids, weights = routing()
    ids[3, 1] = ids[5, 0] = ids[5, 1] = outside
    known = weights.clone()
    known[3, 1] = known[5, 0] = known[5, 1] = 0.0
    wanted = run(experts, "eager", x, ids.where((ids >= 0) & (ids < EXPERTS), 0), known)
    found = run(experts, "conclave", x, ids, weights)
    assert_close(found, wanted)
    assert float(found[5].abs().sum()) == 0


def test_sentinels_become_a_known_expert_with_weight_zero() -> None:
    ids, weights = torch.tensor([[0, -1], [8, 7], [9, 3]]), torch.full((3, 2), float("nan"))
    weights[0, 0] = weights[1, 1] = weights[2, 1] = 0.5
    known, kept = dispatch.without_sentinels(ids, weights, experts=EXPERTS)
    assert known.tolist() == [[0, 0], [0, 7], [0, 3]]
    assert kept.tolist() == [[0.5, 0.0], [0.0, 0.5], [0.0, 0.5]]


def test_a_model_generates_what_it_generates_with_eager_and_back() -> None:
    model = tiny_model()
    prompt = torch.tensor([[5, 9, 2, 33, 7]])
    told = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(prompt)}
    ours = model.generate(prompt, **told)
    with torch.no_grad():
        logits = model(prompt).logits
        model.set_experts_implementation("eager")
        eager = model(prompt).logits
        assert torch.equal(model.generate(prompt, **told), ours)
        model.set_experts_implementation("conclave")
        assert torch.equal(model(prompt).logits, logits)
    torch.testing.assert_close(logits, eager, rtol=1e-4, atol=1e-5)


def test_training_reaches_the_same_gradients_as_eager() -> None:
    prompt = torch.tensor([[5, 9, 2, 33, 7]])
    found = {}
    for name in ("conclave", "eager"):
        model = tiny_model(name)
        model(prompt, labels=prompt).loss.backward()
        found[name] = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found["conclave"], found["eager"], rtol=1e-4, atol=1e-6)


def test_prepared_layers_answer_in_int8_until_they_are_dropped() -> None:
    pytest.importorskip("numba", reason="needs numba, from the extra `moe`")
    model = tiny_model().to(torch.bfloat16)
    prompt = torch.tensor([[5, 9, 2, 33, 7]])
    with torch.no_grad():
        before = model(prompt).logits
        assert dispatch.prepare_model(model, int8=True) == SIZES["num_hidden_layers"]
        rounded = model(prompt).logits
        assert not torch.equal(rounded, before)
        torch.testing.assert_close(rounded, before, rtol=0, atol=0.05 * float(before.abs().max()))
        assert dispatch.prepare_model(model) == SIZES["num_hidden_layers"]
        assert torch.equal(model(prompt).logits, before)
    assert not [name for name in model.state_dict() if "conclave" in name]


def test_without_triton_numba_and_transformers_torch_alone_serves() -> None:
    """A finder that knows no such package stands in for a machine without it; the root is first on the path too."""
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("triton", "numba", "transformers"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import conclave.kernels, torch
from conclave.kernels.experts.api import fused_experts
x, ids = torch.ones(1, 8), torch.zeros(1, 1, dtype=torch.int64)
w1, w2 = torch.ones(2, 8, 8), torch.ones(2, 8, 4)
print(float(fused_experts(x, w1, w2, ids, torch.ones(1, 1))[0, 0]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(4 * 8 * 8, rel=1e-3)  # sigmoid(8) is almost 1


def test_no_folder_of_ours_is_taken_for_the_public_package_of_that_name() -> None:
    code = "from transformers.utils.import_utils import is_kernels_available; "
    code += "import transformers.models.olmoe.modeling_olmoe; print(is_kernels_available())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
