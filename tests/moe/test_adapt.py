"""The adapter: every family found, native routing reproduced, the model given back bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from conclave.moe.adapt import FAMILIES, adapt
from conclave.moe.routing import POLICIES, Limits

Build = Callable[..., Any]
TOKENS = torch.arange(3, 27).view(2, 12)
IMPLEMENTATIONS = ["eager", "grouped_mm", "batched_mm"]


def logits(model: Any, tokens: torch.Tensor = TOKENS, **given: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens, **given).logits


def test_each_layer_with_experts_is_found_and_no_dense_one(family: str, build: Build) -> None:
    adapted = adapt(build(family))
    assert [layer.width for layer in adapted.layers] == [8, 8]
    assert adapted.native_experts == 4


def test_the_native_policy_reproduces_the_models_own_routing(family: str, build: Build) -> None:
    model = build(family)
    own = logits(model)
    adapted = adapt(model)
    with adapted.installed(adapted.layers[0].native):
        torch.testing.assert_close(logits(model), own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["topk", "group_topk", "topp", "null", "stochastic", "patch_causal"])
def test_after_uninstalling_logits_and_weights_are_bit_for_bit_the_same(family: str, policy: str, build: Build) -> None:
    model = build(family)
    own, state = logits(model), {name: value.clone() for name, value in model.state_dict().items()}
    adapted = adapt(model)
    adapted.install(POLICIES.make(policy))
    changed = logits(model)
    assert torch.isfinite(changed).all()
    adapted.uninstall()
    assert torch.equal(logits(model), own)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(layer.experts._is_expert_parallel for layer in adapted.layers)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_slots_without_an_expert_are_exact_in_every_experts_implementation(
    family: str, name: str, build: Build
) -> None:
    """The trap: without the flag, grouped_mm leaves their rows unwritten (NaN) and batched_mm raises IndexError."""
    model = build(family)
    adapted = adapt(model)
    with adapted.installed(POLICIES.make({"name": "topp", "p": 0.3})):
        model.set_experts_implementation("eager")
        expected = logits(model)
        used = adapted.meter.experts_per_token
        model.set_experts_implementation(name)
        torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    assert 1.0 <= used < 7.0


def test_generate_works_under_each_policy(build: Build) -> None:
    model = build("qwen3_moe")
    adapted = adapt(model)
    for policy in ("topk", "topp", "null", "stochastic", "patch_causal"):
        with adapted.installed(POLICIES.make(policy)):
            out = model.generate(TOKENS, max_new_tokens=6, min_new_tokens=6, do_sample=False)
        assert out.shape == (2, 18), policy


@pytest.mark.parametrize("policy", ["topp", "null", "patch_causal"])
def test_decoding_with_a_cache_gives_the_tokens_of_decoding_without_one(policy: str, build: Build) -> None:
    model = build("olmoe", seed=3)
    settings = {"name": policy, "patch": 4} if policy == "patch_causal" else {"name": policy}
    with adapt(model).installed(POLICIES.make(settings)):
        cached = model.generate(TOKENS, max_new_tokens=9, min_new_tokens=9, do_sample=False)
        whole = model.generate(TOKENS, max_new_tokens=9, min_new_tokens=9, do_sample=False, use_cache=False)
    assert torch.equal(cached, whole)


@pytest.mark.parametrize("policy", ["topk", "topp", "patch_causal"])
def test_a_sequence_gets_the_same_answer_alone_and_padded_into_a_batch(policy: str, build: Build) -> None:
    model = build("olmoe", seed=4)
    short = TOKENS[:1, :7]
    padded = torch.cat([torch.cat([torch.zeros(1, 5, dtype=torch.int64), short], dim=1), TOKENS[1:]])
    mask = torch.ones_like(padded)
    mask[0, :5] = 0
    settings = {"name": policy, "patch": 3} if policy == "patch_causal" else {"name": policy}
    with adapt(model).installed(POLICIES.make(settings)):
        alone = model.generate(short, attention_mask=torch.ones_like(short), max_new_tokens=8, do_sample=False)
        both = model.generate(padded, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert torch.equal(both[0, 5 : 5 + alone.shape[1]], alone[0])


def test_output_router_logits_still_works_and_has_the_true_experts_only(family: str, build: Build) -> None:
    model = build(family)
    with adapt(model).installed(POLICIES.make("null")):
        recorded = model.model(TOKENS, output_router_logits=True).router_logits
        assert [tuple(each.shape) for each in recorded] == [(24, 8), (24, 8)]
        if not family.startswith("deepseek"):  # these have no loss of their own on them
            assert torch.isfinite(model(TOKENS, labels=TOKENS, output_router_logits=True).loss)


def test_a_saved_policy_comes_back_beside_a_model_that_transformers_can_load_alone(
    tmp_path: Path, build: Build
) -> None:
    model = build("mixtral")
    adapted = adapt(model)
    adapted.install(POLICIES.make({"name": "null", "k": 3, "nulls": 4}))
    for rows in adapted.parameters():
        rows.data.normal_(generator=torch.Generator().manual_seed(1))
    expected = logits(model)
    model.save_pretrained(tmp_path)
    adapted.save(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    other = adapt(again)
    other.load(tmp_path)
    assert other.policy == adapted.policy
    torch.testing.assert_close(logits(again.eval()), expected, rtol=1e-5, atol=1e-5)
    adapted.uninstall()
    other.uninstall()
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-5, atol=1e-5)


def test_a_policy_of_another_model_is_refused_and_nothing_stays_installed(tmp_path: Path, build: Build) -> None:
    adapted = adapt(build("mixtral"))
    adapted.install(POLICIES.make("null"))
    adapted.save(tmp_path)
    other = adapt(build("mixtral", hidden_size=16))
    with pytest.raises(ValueError, match="made for another model"):
        other.load(tmp_path)
    assert other.policy is None


def test_an_unsupported_family_is_refused_with_the_names_of_the_supported_ones() -> None:
    config = AutoConfig.for_model(
        "llama", vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match="'llama' is not supported") as refused:
        adapt(model)
    assert all(name in str(refused.value) for name in FAMILIES)


def test_a_module_that_is_no_transformers_model_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear without a transformers configuration"):
        adapt(torch.nn.Linear(2, 2))


def test_a_supported_family_with_dense_layers_only_is_refused(build: Build) -> None:
    with pytest.raises(ValueError, match="all dense"):
        adapt(build("qwen3_moe", mlp_only_layers=[0, 1]))


def test_a_policy_that_a_layer_cannot_serve_leaves_the_model_as_it_was(build: Build) -> None:
    model = build("olmoe")
    adapted, own = adapt(model), logits(model)
    with pytest.raises(ValueError, match="wants 9 experts"):
        adapted.install(POLICIES.make({"name": "topk", "k": 9}))
    assert adapted.policy is None
    assert torch.equal(logits(model), own)


def test_each_sequence_of_a_batch_keeps_to_its_own_limits(build: Build) -> None:
    """experts_max and the mask of one caller do not touch the other's answer."""
    model = build("olmoe")
    adapted = adapt(model)
    allowed = torch.ones(2, 8, dtype=torch.bool)
    allowed[0, 4:] = False
    adapted.install(adapted.layers[0].native)
    free = logits(model)
    with adapted.limited(Limits(experts_max=torch.tensor([1, 2]), allowed=allowed)):
        bound = logits(model)
        rows = adapted.meter.rows()
    assert rows.experts == (12 * 2, 12 * 2 * 2)
    assert not torch.allclose(bound[0], free[0])
    torch.testing.assert_close(bound[1], free[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(logits(model), free)


def test_experts_outside_the_mask_get_no_token(build: Build) -> None:
    model = build("deepseek_v3")
    adapted = adapt(model)
    allowed = torch.zeros(2, 8, dtype=torch.bool)
    allowed[:, [1, 6]] = True
    adapted.install(POLICIES.make({"name": "topk", "k": 3}))
    with adapted.limited(Limits(allowed=allowed)):
        logits(model)
    for use in adapted.meter.layers():
        assert [expert for expert, load in enumerate(use.load) if load] == [1, 6]
        assert use.experts_per_token == pytest.approx(2.0)


def test_limits_that_do_not_fit_the_batch_are_refused(build: Build) -> None:
    model = build("olmoe")
    adapted = adapt(model)
    adapted.install(adapted.layers[0].native)
    with adapted.limited(Limits(experts_max=torch.tensor([1]))), pytest.raises(ValueError, match="1 rows"):
        logits(model)
    with adapted.limited(Limits(allowed=torch.ones(2, 5, dtype=torch.bool))), pytest.raises(ValueError, match="mask"):
        logits(model)


@pytest.mark.parametrize(
    "limits",
    [
        lambda: Limits(experts_max=torch.tensor([0])),
        lambda: Limits(experts_max=torch.tensor(3)),
        lambda: Limits(allowed=torch.zeros(1, 4, dtype=torch.bool)),
    ],
    ids=["no expert", "not one each", "all forbidden"],
)
def test_limits_that_leave_nothing_are_refused(limits: Callable[[], Limits]) -> None:
    with pytest.raises(ValueError, match="at least"):
        limits()


def test_limits_without_a_policy_are_refused_rather_than_ignored(build: Build) -> None:
    with pytest.raises(RuntimeError, match="installed policy"), adapt(build("olmoe")).limited(Limits()):
        pass


def test_patch_routing_says_so_when_the_beginning_was_not_under_it(build: Build) -> None:
    model = build("olmoe")
    cache = model(TOKENS, use_cache=True).past_key_values
    with (
        adapt(model).installed(POLICIES.make("patch_causal")),
        pytest.raises(ValueError, match="no memory of the tokens before"),
    ):
        model(TOKENS[:, :1], past_key_values=cache)


def test_gradients_reach_the_null_rows_and_stay_finite(build: Build) -> None:
    model = build("mixtral").train()
    adapted = adapt(model)
    adapted.install(POLICIES.make("null"))
    model.set_experts_implementation("grouped_mm")
    out = model(TOKENS, labels=TOKENS)
    (out.loss + adapted.loss()).backward()
    assert all(torch.isfinite(rows.grad).all() and rows.grad.abs().sum() > 0 for rows in adapted.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
