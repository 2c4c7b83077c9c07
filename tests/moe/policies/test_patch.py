"""Patch-causal routing is leak-free; the published form, which flattens a patch, leaks and is kept to show it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import linear

from conclave.moe.block import BlockSpec, MoEBlock
from conclave.moe.convert import split_dense
from conclave.moe.routing import POLICIES, Choice, Scored, Step

WIDTH, LENGTH, PATCH = 16, 24, 4


def block(policy: dict[str, Any], *, experts: int = 8, seed: int = 0) -> MoEBlock:
    torch.manual_seed(seed)
    made = MoEBlock(BlockSpec(experts=experts, inner=8, policy=policy), width=WIDTH)
    for weights in made.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    return made.eval()


PATCHED = {"name": "patch_causal", "k": 2, "patch": PATCH}


class Flattened:
    """Expert selection as published: the patch's tokens, all of them, choose its experts."""

    null_experts, renormalise, looks_back, k = 0, None, True, 2

    def check(self, experts: int) -> None: ...

    def select(self, scored: Scored, step: Step, layer: int) -> Choice:
        patches = scored.hidden.view(-1, PATCH, WIDTH).mean(dim=1)  # the whole patch, later tokens too
        scores = scored.of(patches).repeat_interleave(PATCH, dim=0)
        index = scores.topk(self.k, dim=-1).indices
        return Choice(index, scores.gather(1, index))


def leaks(made: MoEBlock) -> list[int]:
    """Positions t up to which an output changes when later tokens do, by more than rounding."""
    torch.manual_seed(1)
    hidden = torch.randn(1, LENGTH, WIDTH)
    found = []
    with torch.no_grad():
        before = made(hidden)
        for t in range(LENGTH - 1):
            changed = hidden.clone()
            changed[0, t + 1 :] = torch.randn(LENGTH - t - 1, WIDTH) * 3
            if not torch.allclose(made(changed)[0, : t + 1], before[0, : t + 1], rtol=1e-4, atol=1e-4):
                found.append(t)
    return found


def test_no_token_sees_a_later_one() -> None:
    assert leaks(block(PATCHED)) == []


def test_the_trap_routing_by_the_whole_patch_leaks_the_future() -> None:
    made = block(PATCHED)
    made.policy = Flattened()
    assert len(leaks(made)) > LENGTH // 4


def test_a_patch_uses_the_experts_of_its_predecessors_mean() -> None:
    made = block(PATCHED).train()
    hidden = torch.randn(1, LENGTH, WIDTH, generator=torch.Generator().manual_seed(2))
    made(hidden)
    chosen = made.routings[0].index.view(-1, PATCH, 2)
    means = hidden.view(-1, PATCH, WIDTH).mean(dim=1)  # [patches, d]
    by_hand = linear(means[:-1], made.gates[0].weight).topk(2, dim=-1).indices
    for patch, experts in enumerate(by_hand, start=1):
        assert (chosen[patch].sort().values == experts.sort().values).all()
    own = linear(hidden[0, :PATCH], made.gates[0].weight).topk(2, dim=-1).indices
    assert torch.equal(chosen[0].sort().values, own.sort().values)


def test_all_slices_together_are_the_dense_layer() -> None:
    torch.manual_seed(0)
    gate, up, down = torch.randn(32, WIDTH), torch.randn(32, WIDTH), torch.randn(WIDTH, 32)
    made = block({**PATCHED, "k": 4}, experts=4)
    with torch.no_grad():
        made.experts.gate_up_proj, made.experts.down_proj = (
            torch.nn.Parameter(part) for part in split_dense(gate, up, down, experts=4)
        )
        made.experts.intermediate_dim = 8
        hidden = torch.randn(2, LENGTH, WIDTH)
        dense = linear(torch.nn.functional.silu(linear(hidden, gate)) * linear(hidden, up), down)
        torch.testing.assert_close(made(hidden), dense, rtol=1e-5, atol=1e-4)


def test_the_gate_learns_although_each_weight_is_one() -> None:
    made = block(PATCHED).train()
    made(torch.randn(1, LENGTH, WIDTH)).square().sum().backward()
    assert made.gates[0].weight.grad.abs().sum() > 0
    assert (made.routings[0].weight == 1).all()


@pytest.mark.parametrize("cuts", [(3, 9, 24), (8, 16, 24), (1, 2, 24), (24,)], ids=str)
def test_pieces_of_a_sequence_route_as_the_whole_does(cuts: tuple[int, ...]) -> None:
    made = block(PATCHED)
    hidden = torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(3))
    memory: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        whole, pieces, start = made(hidden), [], 0
        for end in cuts:
            step = replace(Step.whole(2, end - start), start=torch.full((2,), start), memory=memory)
            made.step = step
            pieces.append(made(hidden[:, start:end]))
            start = end
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-4)


def test_padding_before_a_sequence_changes_nothing() -> None:
    made = block(PATCHED)
    hidden = torch.randn(1, 10, WIDTH, generator=torch.Generator().manual_seed(4))
    padded = torch.cat([torch.randn(1, 5, WIDTH), hidden], dim=1)
    real = torch.ones(1, 15, dtype=torch.bool)
    real[:, :5] = False
    with torch.no_grad():
        alone = made(hidden)
        made.step = replace(Step.whole(1, 15), real=real)
        torch.testing.assert_close(made(padded)[:, 5:], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrong", [{"k": 0}, {"patch": 0}, {"patch": "8"}, {"patches": 8}], ids=str)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|Expected `int`|did you mean 'patch'"):
        POLICIES.make(PATCHED | wrong)


def test_more_experts_than_there_are_and_unequal_slices_are_refused() -> None:
    with pytest.raises(ValueError, match="wants 9 experts"):
        POLICIES.make({**PATCHED, "k": 9}).check(8)
    with pytest.raises(ValueError, match="5 equal experts"):
        split_dense(torch.zeros(32, 4), torch.zeros(32, 4), torch.zeros(4, 32), experts=5)
