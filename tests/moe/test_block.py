"""The block: chains, shared and fine-grained experts, latent experts, each against hands and its trap."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import linear, silu

from conclave.moe.block import BlockSpec, MoEBlock, fine_grained
from conclave.moe.convert import factor, latent_experts
from conclave.moe.experts import LatentExperts
from conclave.moe.routing import Step

WIDTH = 16
HIDDEN = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(7))


def block(seed: int = 0, **spec: Any) -> MoEBlock:
    torch.manual_seed(seed)
    made = MoEBlock(BlockSpec(**{"experts": 8, "inner": 12, "policy": {"name": "topk", "k": 2}} | spec), width=WIDTH)
    for weights in made.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    return made.eval()


def by_hand(made: MoEBlock, hidden: torch.Tensor, gate: torch.Tensor, k: int = 2) -> torch.Tensor:
    """The sum over each token's k best experts, one token at a time."""
    out = torch.zeros_like(hidden)
    for token, x in enumerate(hidden):
        scores = linear(x, gate).softmax(-1)
        for expert in scores.topk(k).indices:
            a, b = linear(x, made.experts.gate_up_proj[expert]).chunk(2)
            out[token] += scores[expert] * linear(silu(a) * b, made.experts.down_proj[expert])
    return out


@torch.no_grad()
def test_one_round_is_the_plain_mixture() -> None:
    made = block()
    expected = by_hand(made, HIDDEN.view(-1, WIDTH), made.gates[0].weight).view_as(HIDDEN)
    torch.testing.assert_close(made(HIDDEN), expected)


@torch.no_grad()
def test_a_chain_of_one_round_without_inner_residual_is_the_plain_block_bit_for_bit() -> None:
    plain, chain = block(), block(rounds=1, residual="outer", own_gates=True)
    assert torch.equal(plain(HIDDEN), chain(HIDDEN))


@torch.no_grad()
def test_a_chain_routes_again_from_what_its_first_round_made() -> None:
    made = block(rounds=2, residual="inner")
    x = HIDDEN.view(-1, WIDTH)
    first = by_hand(made, x, made.gates[0].weight) + x
    second = by_hand(made, first, made.gates[1].weight) + first
    torch.testing.assert_close(made(HIDDEN), (second - x).view_as(HIDDEN), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("change", [{"own_gates": False}, {"residual": "outer"}], ids=["shared gate", "outer residual"])
def test_the_trap_each_ablation_of_the_chain_is_another_function(change: dict[str, Any]) -> None:
    full = block(rounds=2, residual="inner")
    other = block(**{"rounds": 2, "residual": "inner"} | change)
    other.load_state_dict(full.state_dict(), strict=False)
    assert not torch.allclose(full(HIDDEN), other(HIDDEN), atol=1e-3)


def test_each_round_has_its_own_gate_and_all_share_the_experts() -> None:
    made = block(rounds=3)
    assert len(made.gates) == 3
    assert sum(p.numel() for p in made.experts.parameters()) == sum(p.numel() for p in block().experts.parameters())


@torch.no_grad()
def test_shared_experts_serve_every_token_with_weight_one() -> None:
    made = block(shared=2)
    a, b = linear(HIDDEN, made.shared.gate_up_proj.weight).chunk(2, dim=-1)
    always = linear(silu(a) * b, made.shared.down_proj.weight)
    routed = by_hand(made, HIDDEN.view(-1, WIDTH), made.gates[0].weight).view_as(HIDDEN)
    torch.testing.assert_close(made(HIDDEN), routed + always)


@pytest.mark.parametrize(
    ("split", "shared", "experts", "k"), [(1, 0, 8, 2), (4, 0, 32, 8), (4, 1, 31, 7), (2, 2, 14, 2)]
)
def test_fine_graining_keeps_total_and_active_parameters(split: int, shared: int, experts: int, k: int) -> None:
    spec = fine_grained(BlockSpec(experts=8, inner=64), split=split, shared=shared)
    assert (spec.experts, spec.policy["k"]) == (experts, k)
    assert (spec.experts + spec.shared) * spec.inner == 8 * 64
    assert (spec.policy["k"] + spec.shared) * spec.inner == 2 * 64


@pytest.mark.parametrize(
    ("split", "shared"), [(0, 0), (5, 0), (4, 8), (4, -1)], ids=["no piece", "uneven", "all shared", "negative"]
)
def test_a_split_that_changes_the_cost_is_refused(split: int, shared: int) -> None:
    with pytest.raises(ValueError, match="fine_grained splits"):
        fine_grained(BlockSpec(experts=8, inner=64), split=split, shared=shared)


@torch.no_grad()
def test_latent_experts_of_full_width_compute_what_the_experts_did() -> None:
    made = block()
    expected = made(HIDDEN)
    made.experts = latent_experts(made.experts, latent=WIDTH, group=4)
    torch.testing.assert_close(made(HIDDEN), expected, rtol=1e-5, atol=1e-5)


def test_the_error_of_a_plain_factor_is_the_tail_of_the_spectrum() -> None:
    weights = torch.randn(4, 12, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    singular = torch.linalg.svdvals(weights.reshape(-1, WIDTH))
    for latent in (4, 8, 15):
        error = (factor(weights, latent=latent).product() - weights).square().sum()
        assert float(error) == pytest.approx(float(singular[latent:].square().sum()), rel=1e-3)


def test_knowing_the_inputs_beats_the_plain_factor_and_that_beats_a_random_one() -> None:
    """The error is that of the outputs, on inputs that use few directions much, as hidden states do."""
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(4, 12, WIDTH, generator=generator)
    inputs = torch.randn(500, WIDTH, generator=generator) * torch.logspace(0, -2, WIDTH)
    inputs = inputs @ torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    seen = factor(weights, latent=6, moment=inputs.T @ inputs / 500).product()
    plain = factor(weights, latent=6).product()
    basis = torch.linalg.qr(torch.randn(WIDTH, 6, generator=generator)).Q
    chance = weights @ basis @ basis.T
    errors = [float(linear(inputs, (each - weights).view(-1, WIDTH)).square().mean()) for each in (seen, plain, chance)]
    assert errors[0] < 0.5 * errors[1] < 0.5 * errors[2]


def test_latent_experts_have_as_many_parameters_as_the_formula_says() -> None:
    made = LatentExperts(experts=8, width=16, inner=12, latent=6, group=4)
    assert sum(p.numel() for p in made.parameters()) == 2 * (2 * 6 * 16 + 8 * 12 * 6) + 8 * 16 * 12


@pytest.mark.parametrize(("latent", "group"), [(0, 1), (17, 1), (4, 3), (4, 0)])
def test_factors_that_cannot_be_are_refused(latent: int, group: int) -> None:
    with pytest.raises(ValueError, match="latent experts need"):
        LatentExperts(experts=8, width=16, inner=12, latent=latent, group=group)
    with pytest.raises(ValueError, match="between 1 and 16"):
        factor(torch.zeros(1, 4, 16), latent=17)


@torch.no_grad()
def test_slots_without_an_expert_add_nothing_in_each_kind() -> None:
    for kind in ({}, {"latent": 8, "group": 2}):
        made = block(**kind)
        index, weight = torch.full((12, 2), 8), torch.ones(12, 2)
        assert torch.equal(made.experts(HIDDEN.view(-1, WIDTH), index, weight), torch.zeros(12, WIDTH))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts": 0}, "at least one expert"),
        ({"rounds": 0}, "at least one expert"),
        ({"shared": -1}, "no negative shared"),
        ({"experts": 8, "group": 3}, "groups of 3"),
        ({"residual": "none"}, "Invalid enum"),
        ({"expert": 8}, "no setting 'expert'"),
        ({"experts": "8"}, "Expected `int`"),
        ({"experts": 1}, "wants 2 experts"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockSpec.of(settings)


def test_a_loss_before_a_pass_in_training_is_refused() -> None:
    with pytest.raises(RuntimeError, match="after a pass in training"):
        block().loss()


def test_padding_does_not_count_for_the_loss() -> None:
    made = block().train()
    real = torch.zeros(2, 6, dtype=torch.bool)
    real[:, :3] = True
    made.step = replace(Step.whole(2, 6), real=real)
    made(HIDDEN)
    padded = made.loss()
    made.step = None
    made(HIDDEN[:, :3])
    torch.testing.assert_close(padded, _whole(made))


def _whole(made: MoEBlock) -> torch.Tensor:
    made.step = Step.whole(2, 3)
    return made.loss()
