"""The breaker's three states, and what each call may say about them."""

import pytest

from conclave.gateway.experts.breaker import Breaker, State


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker(failures_to_open=2, open_s=10.0)
    for _ in range(2):
        breaker.failed(breaker.admit(now_s), now_s)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(failures_to_open=3, open_s=10.0)
    for _ in range(2):
        breaker.failed(breaker.admit(0.0), 0.0)
    assert breaker.state(0.0) is State.CLOSED
    breaker.failed(breaker.admit(0.0), 0.0)
    assert breaker.state(0.0) is State.OPEN
    assert breaker.wait_s(4.0) == 6.0


def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = Breaker(failures_to_open=2, open_s=10.0)
    for _ in range(5):
        breaker.failed(breaker.admit(0.0), 0.0)
        breaker.succeeded(breaker.admit(0.0))
    assert breaker.state(0.0) is State.CLOSED


def test_an_open_breaker_admits_nobody() -> None:
    with pytest.raises(ValueError, match="open"):
        opened().admit(9.9)


def test_half_open_admits_exactly_one_probe() -> None:
    breaker = opened()
    assert breaker.state(10.0) is State.HALF_OPEN
    assert breaker.wait_s(10.0) == 0
    breaker.admit(10.0)
    assert breaker.wait_s(10.0) > 0
    with pytest.raises(ValueError, match="open"):
        breaker.admit(10.0)


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = opened()
    breaker.succeeded(breaker.admit(10.0))
    assert breaker.state(10.0) is State.CLOSED


def test_a_probe_that_fails_opens_it_for_the_whole_time_again() -> None:
    breaker = opened()
    breaker.failed(breaker.admit(10.0), 11.0)
    assert breaker.state(11.0) is State.OPEN
    assert breaker.wait_s(11.0) == 10.0


def test_a_probe_that_is_abandoned_makes_way_for_another() -> None:
    breaker = opened()
    breaker.abandoned(breaker.admit(10.0))
    assert breaker.wait_s(10.0) == 0
    breaker.succeeded(breaker.admit(10.0))
    assert breaker.state(10.0) is State.CLOSED


def test_a_call_from_before_it_opened_says_nothing_about_the_probe() -> None:
    breaker = Breaker(failures_to_open=1, open_s=10.0)
    early, other = breaker.admit(0.0), breaker.admit(0.0)
    breaker.failed(breaker.admit(0.0), 0.0)
    probe = breaker.admit(10.0)
    breaker.succeeded(early)
    breaker.failed(other, 10.0)
    breaker.abandoned(early)
    assert breaker.wait_s(10.0) > 0, "the probe is still under way"
    breaker.succeeded(probe)
    assert breaker.state(10.0) is State.CLOSED


def test_an_abandoned_call_neither_helps_nor_harms_a_closed_breaker() -> None:
    breaker = Breaker(failures_to_open=2, open_s=10.0)
    breaker.failed(breaker.admit(0.0), 0.0)
    breaker.abandoned(breaker.admit(0.0))
    breaker.failed(breaker.admit(0.0), 0.0)
    assert breaker.state(0.0) is State.OPEN


@pytest.mark.parametrize("settings", [{"failures_to_open": 0}, {"open_s": 0.0}])
def test_settings_that_make_no_breaker_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="breaker"):
        Breaker(**settings)  # type: ignore[arg-type]
