"""Null experts (AdaMoE): renormalised over true ones, and the corrected loss beside the published no-op."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from conclave.moe.losses import balance, null_balance
from conclave.moe.routing import POLICIES, Step

Ask = Callable[..., Any]
SETTINGS = {"name": "null", "k": 2, "nulls": 2, "balance": 1.0}


def test_true_weights_sum_to_one_and_nulls_run_nothing(ask: Ask) -> None:
    """Columns 0 and 1 are experts, 2 and 3 are null."""
    found = ask(SETTINGS, [[0.4, 0.3, 0.2, 0.1], [0.4, 0.1, 0.3, 0.2], [0.1, 0.2, 0.4, 0.3]])
    assert found.used.tolist() == [2, 1, 0]
    torch.testing.assert_close(found.weight, torch.tensor([[4 / 7, 3 / 7], [1.0, 0.0], [0.0, 0.0]]))
    assert found.index.tolist() == [[0, 1], [0, 2], [2, 2]]


def test_a_token_with_nulls_only_gets_exactly_nothing_and_no_nan(ask: Ask) -> None:
    found = ask(SETTINGS, [[1e-30, 1e-30, 0.5, 0.5]])
    assert torch.equal(found.weight, torch.zeros(1, 2))


def test_the_loss_does_not_care_how_load_is_spread_among_the_nulls() -> None:
    scores = torch.tensor([[0.1, 0.2, 0.4, 0.3], [0.1, 0.1, 0.6, 0.2], [0.3, 0.2, 0.25, 0.25]])
    real = torch.ones(3, dtype=torch.bool)
    spread, heaped = torch.tensor([[2], [3], [0]]), torch.tensor([[2], [2], [0]])
    assert float(null_balance(scores, spread, real, experts=2)) == float(null_balance(scores, heaped, real, experts=2))
    assert float(balance(scores, spread, real)) != float(balance(scores, heaped, real))


def test_the_trap_each_null_gets_the_same_gradient_where_the_published_slice_gives_none() -> None:
    """exp_2 averages over `mask[4:]` of a [top_k, ...] tensor, which is empty: f stays unaveraged, as in `balance`."""
    logits = torch.tensor([[0.3, 0.1, 0.9, 0.2], [0.5, 0.2, 0.8, 0.1]])
    picked, real = torch.tensor([[2], [2]]), torch.ones(2, dtype=torch.bool)
    gradients = []
    for loss in (lambda s: null_balance(s, picked, real, experts=2), lambda s: balance(s, picked, real)):
        scores = logits.softmax(-1).requires_grad_()
        loss(scores).backward()
        gradients.append(scores.grad[:, 2:])
    corrected, published = gradients
    torch.testing.assert_close(corrected[:, 0], corrected[:, 1])
    assert not torch.allclose(published[:, 0], published[:, 1])


def test_an_even_load_has_loss_one(ask: Ask) -> None:
    policy = POLICIES.make({**SETTINGS, "k": 4})
    found = ask(policy, [[0.25] * 4] * 3)
    assert float(policy.loss(found, Step.whole(1, 3))) == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", [{"k": 0}, {"nulls": 0}, {"nulls": -1}, {"k": 2.5}], ids=str)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|Expected `int`"):
        POLICIES.make(SETTINGS | wrong)


def test_more_choices_than_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be chosen"):
        POLICIES.make({"name": "null", "k": 11, "nulls": 2}).check(8)
