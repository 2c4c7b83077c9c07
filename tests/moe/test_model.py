"""Our own model around the block: generate, router logits, save and load, the loss in training, conversions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from conclave.moe.convert import from_olmoe, second_moments, to_latent
from conclave.moe.model import ConclaveMoeConfig, ConclaveMoeForCausalLM, register
from conclave.moe.routing import Limits

TOKENS = torch.arange(3, 27).view(2, 12)
BLOCKS: dict[str, dict[str, Any]] = {
    "topk": {},
    "group_topk": {"policy": {"name": "group_topk"}},
    "topp": {"policy": {"name": "topp", "p": 0.5}},
    "null": {"policy": {"name": "null", "k": 3, "nulls": 4}},
    "stochastic": {"policy": {"name": "stochastic"}},
    "union": {"policy": {"name": "patch_causal", "k": 4, "patch": 4}},
    "chain": {"rounds": 2, "residual": "inner"},
    "shared": {"shared": 1},
    "latent": {"latent": 16, "group": 4},
}


def model(*, seed: int = 0, **block: Any) -> ConclaveMoeForCausalLM:
    torch.manual_seed(seed)
    config = ConclaveMoeConfig(
        vocab_size=48,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        block={"experts": 8, "inner": 16} | block,
    )
    return ConclaveMoeForCausalLM(config).eval()


@pytest.fixture(params=sorted(BLOCKS))
def block(request: pytest.FixtureRequest) -> dict[str, Any]:
    return BLOCKS[request.param]


@torch.no_grad()
def test_a_saved_model_comes_back_with_its_block_and_its_answers(block: dict[str, Any], tmp_path: Path) -> None:
    register()
    made = model(**block)
    made.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert again.config.spec == made.config.spec
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in again.state_dict().items())
    torch.testing.assert_close(again(TOKENS).logits, made(TOKENS).logits, rtol=1e-5, atol=1e-5)


def test_generate_with_a_cache_gives_the_tokens_of_generate_without_one(block: dict[str, Any]) -> None:
    made = model(seed=1, **block)
    kept = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    assert torch.equal(made.generate(TOKENS, **kept), made.generate(TOKENS, use_cache=False, **kept))


def test_router_logits_are_recorded_once_a_round(block: dict[str, Any]) -> None:
    out = model(**block)(TOKENS, output_router_logits=True)
    rounds = block.get("rounds", 1)
    assert [tuple(each.shape) for each in out.router_logits] == [(24, 8)] * 2 * rounds


def test_in_training_the_policys_loss_is_added_and_every_gate_learns(block: dict[str, Any]) -> None:
    made = model(**block).train()
    out = made(TOKENS, labels=TOKENS)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    name = made.config.spec.policy["name"]
    for each in made.blocks:
        grads = [gate.weight.grad for gate in each.gates]
        assert all((g is None or not g.any()) == (name == "stochastic") for g in grads)
    if name != "stochastic":  # which draws other experts in training
        own = made.eval()(TOKENS, labels=TOKENS).loss.detach()
        torch.testing.assert_close((out.loss - out.aux_loss).detach(), own, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", ["eager", "grouped_mm", "batched_mm"])
def test_every_experts_implementation_of_transformers_gives_the_same(name: str) -> None:
    made = model(policy={"name": "null", "k": 3, "nulls": 4})
    made.set_experts_implementation("eager")
    expected = made(TOKENS).logits
    made.set_experts_implementation(name)
    torch.testing.assert_close(made(TOKENS).logits, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_limits_hold_for_their_sequence_only() -> None:
    made = model()
    free = made(TOKENS).logits
    with made.limited(Limits(experts_max=torch.tensor([1, 2]))):
        bound = made(TOKENS).logits
        assert made.meter.rows().experts == (24, 48)
    assert not torch.allclose(bound[0], free[0])
    torch.testing.assert_close(bound[1], free[1])


@torch.no_grad()
def test_an_olmoe_checkpoint_becomes_our_model_with_the_same_answers(build: Callable[..., Any]) -> None:
    old = build("olmoe")
    torch.testing.assert_close(from_olmoe(old)(TOKENS).logits, old(TOKENS).logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="takes an OLMoE model"):
        from_olmoe(build("mixtral"))


@torch.no_grad()
def test_a_latent_model_of_full_width_answers_alike_and_a_narrow_one_saves_and_loads(tmp_path: Path) -> None:
    register()
    made = model()
    moments = second_moments(made, made, [TOKENS])
    whole = to_latent(made, latent=32, group=4, moments=moments)
    torch.testing.assert_close(whole(TOKENS).logits, made(TOKENS).logits, rtol=1e-3, atol=1e-3)
    narrow = to_latent(made, latent=8, group=4, moments=moments)
    narrow.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(TOKENS).logits, narrow(TOKENS).logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="at least one batch"):
        second_moments(made, made, [])


def test_a_block_that_cannot_be_is_refused_when_the_model_is_built() -> None:
    with pytest.raises(ValueError, match="wants 9 experts"):
        model(policy={"name": "topk", "k": 9})
