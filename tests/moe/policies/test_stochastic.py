"""Stochastic experts (THOR): uniform draws, one for a sequence, any allowed expert may answer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from conclave.moe.losses import consistency
from conclave.moe.routing import POLICIES, Limits, Step

Ask = Callable[..., Any]
P = [[0.97, 0.01, 0.01, 0.01]] * 400


def seeded(step: Step, seed: int = 0) -> Step:
    return replace(step, generator=torch.Generator().manual_seed(seed))


def test_each_expert_is_drawn_as_often_whatever_the_gate_says(ask: Ask) -> None:
    found = ask({"name": "stochastic", "level": "token"}, P, step=seeded(Step.whole(1, 400)))
    counts = torch.bincount(found.index.reshape(-1), minlength=4)
    assert counts.min() > 60
    assert (found.weight == 1).all()


def test_a_sequence_keeps_its_expert_and_sequences_differ(ask: Ask) -> None:
    found = ask({"name": "stochastic", "level": "sequence"}, P, step=seeded(Step.whole(40, 10)))
    rows = found.index.view(40, 10)
    assert (rows == rows[:, :1]).all()
    assert len(rows[:, 0].unique()) == 4


def test_a_sequence_keeps_its_expert_while_it_is_decoded(ask: Ask) -> None:
    memory: dict[int, torch.Tensor] = {}
    first = ask("stochastic", P[:8], step=replace(seeded(Step.whole(4, 2)), memory=memory))
    later = ask("stochastic", P[:4], step=replace(seeded(Step.whole(4, 1), 9), memory=memory))
    assert torch.equal(first.index.view(4, 2)[:, 0], later.index[:, 0])


def test_in_training_one_draw_serves_the_whole_batch(ask: Ask) -> None:
    step = replace(seeded(Step.whole(4, 100)), training=True)
    assert len(ask("stochastic", P, step=step).index.unique()) == 1


def test_only_allowed_experts_are_drawn(ask: Ask) -> None:
    """The use of it: a process that holds experts 1 and 3 only still answers."""
    allowed = torch.tensor([[False, True, False, True]])
    step = replace(seeded(Step.whole(1, 400)), limits=Limits(allowed=allowed))
    found = ask({"name": "stochastic", "level": "token"}, P, step=step)
    assert sorted(found.index.unique().tolist()) == [1, 3]


def test_the_same_generator_draws_the_same_experts_and_another_does_not(ask: Ask) -> None:
    settings = {"name": "stochastic", "level": "token"}
    one, same, other = (ask(settings, P, step=seeded(Step.whole(1, 400), seed)).index for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_consistency_is_the_halved_symmetric_divergence() -> None:
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    by_hand = 0.5 * ((p - q) * (p.log() - q.log())).sum()
    found = consistency(p.log(), q.log(), torch.ones(1, dtype=torch.bool))
    torch.testing.assert_close(found, by_hand)
    assert float(consistency(p.log(), p.log(), torch.ones(1, dtype=torch.bool))) == 0.0


def test_the_trap_padding_does_not_count_for_consistency() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    real = torch.tensor([False, True])
    assert float(consistency(p.log(), q.log(), real)) == 0.0


@pytest.mark.parametrize("wrong", [{"level": "batch"}, {"level": 1}, {"k": 2}], ids=str)
def test_unknown_levels_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Invalid enum|Expected `str`|no setting"):
        POLICIES.make({"name": "stochastic"} | wrong)
