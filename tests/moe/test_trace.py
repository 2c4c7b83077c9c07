"""The meter: shares that sum to one, null share and experts by hand, padding left out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from conclave.moe.routing import Step
from conclave.moe.trace import Meter

P = [[0.4, 0.3, 0.2, 0.1], [0.4, 0.1, 0.3, 0.2], [0.1, 0.2, 0.4, 0.3], [0.97, 0.01, 0.01, 0.01]]


def test_counts_by_hand(ask: Callable[..., Any]) -> None:
    """Tokens use 2, 1, 0 experts; the fourth is padding."""
    real = torch.tensor([[True, True], [True, False]])
    step = replace(Step.whole(2, 2), real=real)
    meter = Meter()
    meter.begin(step)
    meter.add(3, ask({"name": "null", "k": 2, "nulls": 2}, P, step=step), step)
    (use,) = meter.layers()
    assert (use.layer, use.tokens, use.load) == (3, 3, pytest.approx((2 / 3, 1 / 3)))
    assert use.null_share == pytest.approx(0.5)
    assert use.experts_per_token == pytest.approx(1.0)
    assert meter.rows().experts == (3, 0)
    assert meter.rows().tokens == (2, 1)


def test_passes_add_up_rows_are_of_the_last_one_and_reset_forgets(ask: Callable[..., Any]) -> None:
    step, meter = Step.whole(2, 2), Meter()
    for _ in range(2):
        meter.begin(step)
        meter.add(0, ask("topk", P, step=step), step)
    assert meter.layers()[0].tokens == 8
    assert meter.rows().experts == (4, 4)
    meter.reset()
    assert (meter.layers(), meter.rows().experts, meter.experts_per_token) == ((), (), 0.0)
