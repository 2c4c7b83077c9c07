"""The auxiliary losses on cases small enough for hands."""

import math

import pytest
import torch

from conclave.moe.losses import balance, device_balance, entropy, z_loss

REAL = torch.ones(4, dtype=torch.bool)
EVEN = torch.full((4, 4), 0.25)


def test_balance_is_one_when_all_is_even_whatever_k() -> None:
    for picked in (torch.tensor([[0], [1], [2], [3]]), torch.tensor([[0, 1], [2, 3], [0, 1], [2, 3]])):
        assert float(balance(EVEN, picked, REAL)) == pytest.approx(1.0)


def test_balance_by_hand() -> None:
    scores = torch.tensor([[0.7, 0.3], [0.6, 0.4]])
    assert float(balance(scores, torch.tensor([[0], [0]]), REAL[:2])) == pytest.approx(2 * 0.65)


def test_slots_without_an_expert_and_padding_are_left_out() -> None:
    scores = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.0, 1.0]])
    picked = torch.tensor([[0, 2], [0, 2], [1, 1]])
    found = balance(scores, picked, torch.tensor([True, True, False]))
    assert float(found) == pytest.approx(2 * 0.65)


def test_entropy_is_zero_for_a_sure_gate_and_log_n_for_an_even_one() -> None:
    sure = torch.eye(4)
    assert float(entropy(sure, REAL)) == pytest.approx(0.0, abs=1e-5)
    assert float(entropy(EVEN, REAL)) == pytest.approx(math.log(4))


def test_the_z_loss_is_the_squared_log_sum() -> None:
    assert float(z_loss(torch.zeros(4, 4), REAL)) == pytest.approx(math.log(4) ** 2)


def test_device_balance_sees_devices_and_not_the_experts_on_them() -> None:
    """All load on two experts: balanced if they stand on two devices, twice as bad if on one."""
    picked = torch.tensor([[0], [0], [2], [2]])
    assert float(device_balance(EVEN, picked, REAL, devices=2)) == pytest.approx(1.0)
    heaped = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).expand(4, 4)
    assert float(device_balance(heaped, torch.tensor([[0], [1], [0], [1]]), REAL, devices=2)) == pytest.approx(2.0)


@pytest.mark.parametrize("devices", [0, 3, -1])
def test_devices_that_cannot_share_evenly_are_refused(devices: int) -> None:
    with pytest.raises(ValueError, match="equal numbers"):
        device_balance(EVEN, torch.tensor([[0]] * 4), REAL, devices=devices)


def test_a_batch_of_padding_only_gives_no_nan() -> None:
    nothing = torch.zeros(4, dtype=torch.bool)
    for loss in (balance(EVEN, torch.tensor([[0]] * 4), nothing), entropy(EVEN, nothing), z_loss(EVEN, nothing)):
        assert torch.isfinite(loss)
