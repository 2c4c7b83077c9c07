"""Top-k and group top-k against hands and against their own traps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from conclave.moe.routing import POLICIES, GateStyle, Step

Ask = Callable[..., Any]
P = [[0.5, 0.1, 0.3, 0.1]]


def test_the_k_best_run_with_their_own_weights(ask: Ask) -> None:
    found = ask({"name": "topk", "k": 2}, P)
    assert found.index.tolist() == [[0, 2]]
    torch.testing.assert_close(found.weight, torch.tensor([[0.5, 0.3]]))


def test_a_gate_that_was_trained_so_gets_weights_that_sum_to_its_scale(ask: Ask) -> None:
    found = ask({"name": "topk", "k": 2}, P, style=GateStyle(renormalise=True, scale=2.5))
    torch.testing.assert_close(found.weight, torch.tensor([[0.5, 0.3]]) / 0.8 * 2.5)


def test_the_setting_wins_over_what_the_gate_was_trained_with(ask: Ask) -> None:
    found = ask({"name": "topk", "k": 2, "renormalise": False}, P, style=GateStyle(renormalise=True))
    torch.testing.assert_close(found.weight, torch.tensor([[0.5, 0.3]]))


def test_only_the_best_groups_are_chosen_from(ask: Ask) -> None:
    """Experts 0 and 2 are best; but 2 stands in a group that is not kept."""
    settings = {"name": "group_topk", "k": 2, "groups": 2, "groups_kept": 1, "by": "max"}
    assert ask(settings, P).index.tolist() == [[0, 1]]


def test_groups_by_max_and_by_their_two_best_differ_where_they_should(ask: Ask) -> None:
    p = [[0.40, 0.05, 0.30, 0.25]]
    kept = {by: ask({"name": "group_topk", "k": 2, "by": by}, p).index.tolist() for by in ("max", "top2")}
    assert kept == {"max": [[0, 1]], "top2": [[2, 3]]}


def test_the_trap_a_balanced_batch_has_loss_one_and_a_collapsed_one_as_many_as_experts(ask: Ask) -> None:
    """A balance loss that does not tell these apart does nothing."""
    policy = POLICIES.make({"name": "topk", "k": 1, "balance": 1.0})
    even = ask(
        policy, [[0.97, 0.01, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01], [0.01, 0.01, 0.97, 0.01], [0.01, 0.01, 0.01, 0.97]]
    )
    collapsed = ask(policy, [[0.97, 0.01, 0.01, 0.01]] * 4)
    step = Step.whole(1, 4)
    assert float(policy.loss(even, step)) == pytest.approx(1.0, abs=1e-5)
    assert float(policy.loss(collapsed, step)) == pytest.approx(4 * 0.97, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "topk", "k": 0}, "less than 1"),
        ({"name": "topk", "k": True}, "Expected `int`"),
        ({"name": "topk", "k": "2"}, "Expected `int`"),
        ({"name": "topk", "kk": 2}, "did you mean 'k'"),
        ({"name": "group_topk", "groups_kept": 3, "groups": 2}, "groups_kept"),
        ({"name": "group_topk", "by": "mean"}, "Invalid enum value"),
        ({"name": "topq"}, "did you mean 'topp'"),
        ({"k": 2}, "there is no routing policy None"),
    ],
    ids=["no expert", "a truth value", "text", "typo", "more kept than there are", "unknown by", "unknown", "no name"],
)
def test_wrong_settings_are_refused_and_the_message_says_what_was_meant(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        POLICIES.make(settings)


@pytest.mark.parametrize(
    ("settings", "experts"),
    [
        ({"name": "topk", "k": 9}, 8),
        ({"name": "group_topk", "groups": 3}, 8),
        ({"name": "group_topk", "k": 5, "groups": 2, "groups_kept": 1}, 8),
        ({"name": "group_topk", "groups": 4, "by": "top2", "k": 1}, 4),
    ],
    ids=["more than there are", "unequal groups", "groups too small", "groups of one"],
)
def test_a_layer_that_cannot_serve_the_settings_is_refused(settings: Any, experts: int) -> None:
    with pytest.raises(ValueError, match=r"experts|hold one"):
        POLICIES.make(settings).check(experts)


def test_settings_survive_a_round_trip_for_every_policy() -> None:
    for name in POLICIES.names():
        policy = POLICIES.make(name)
        assert POLICIES.make(POLICIES.settings(policy)) == policy
