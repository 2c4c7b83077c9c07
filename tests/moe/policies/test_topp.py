"""Top-p (Dynamic MoE): the crossing expert stays, at least one runs, sharp gates use fewer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from conclave.moe.routing import POLICIES, GateStyle, Step

Ask = Callable[..., Any]


@pytest.mark.parametrize(
    ("p", "used"),
    [(0.3, 1), (0.45, 1), (0.55, 2), (0.79, 2), (0.85, 3), (1.0, 4)],
    ids=str,
)
def test_as_many_experts_as_it_takes_to_hold_p_with_the_crossing_one(ask: Ask, p: float, used: int) -> None:
    found = ask({"name": "topp", "p": p}, [[0.5, 0.1, 0.3, 0.1]])
    assert int(found.used) == used
    order = torch.tensor([0.5, 0.3, 0.1, 0.1])[:used]
    torch.testing.assert_close(found.weight[0, :used], order)
    assert (found.weight[0, used:] == 0).all()
    assert (found.index[0, used:] == 4).all()


def test_a_sure_token_uses_one_expert_and_an_unsure_one_several(ask: Ask) -> None:
    found = ask({"name": "topp", "p": 0.6}, [[0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]])
    assert found.used.tolist() == [1, 3]


def test_the_trap_rounding_that_never_reaches_p_keeps_all_experts_not_expert_zero(ask: Ask) -> None:
    """The published code takes argmax of an all-false mask there, which is 0: one expert for the least sure token."""
    found = ask({"name": "topp", "p": 1.0}, [[1 / 3] * 3])
    assert found.used.tolist() == [3]


def test_weights_are_renormalised_only_where_the_gate_was_trained_so(ask: Ask) -> None:
    p = [[0.5, 0.1, 0.3, 0.1]]
    assert float(ask({"name": "topp", "p": 0.6}, p).weight.sum()) == pytest.approx(0.8)
    trained = ask({"name": "topp", "p": 0.6}, p, style=GateStyle(renormalise=True))
    assert float(trained.weight.sum()) == pytest.approx(1.0)


def test_scores_that_do_not_sum_to_one_are_taken_relative_to_their_sum(ask: Ask) -> None:
    found = ask({"name": "topp", "p": 0.45}, [[0.5, 0.5, 0.5, 0.5]], style=GateStyle(scoring="sigmoid"))
    assert int(found.used) == 2


def test_experts_max_bounds_an_unsure_token(ask: Ask) -> None:
    assert ask({"name": "topp", "p": 0.9, "experts_max": 2}, [[0.25] * 4]).used.tolist() == [2]


def test_the_loss_rises_with_the_gates_entropy(ask: Ask) -> None:
    policy = POLICIES.make({"name": "topp", "balance": 0.0, "sharpness": 1.0})
    step = Step.whole(1, 1)
    sharp, flat = (policy.loss(ask(policy, p), step) for p in ([[0.97, 0.01, 0.01, 0.01]], [[0.25] * 4]))
    assert float(flat) == pytest.approx(float(torch.tensor(4.0).log()), abs=1e-5)
    assert float(sharp) < 0.2


@pytest.mark.parametrize("p", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        POLICIES.make({"name": "topp", "p": p})


def test_more_experts_than_the_layer_has_are_refused() -> None:
    with pytest.raises(ValueError, match="experts_max is 9"):
        POLICIES.make({"name": "topp", "experts_max": 9}).check(8)
