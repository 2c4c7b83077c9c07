import pytest

from conclave.gateway.state.counters import LocalCounters


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters(clock: Clock) -> LocalCounters:
    return LocalCounters(now_s=clock)


async def test_the_whole_limit_may_be_taken_at_once_and_no_more(counters: LocalCounters) -> None:
    taken = [await counters.take("k", limit=3, period_s=60) for _ in range(4)]
    assert [one.allowed for one in taken] == [True, True, True, False]
    assert [one.remaining for one in taken] == [2, 1, 0, 0]


async def test_waiting_as_long_as_told_is_exactly_enough(counters: LocalCounters, clock: Clock) -> None:
    """The retry time is honest: a millisecond less is refused, the time itself is not."""
    for _ in range(3):
        await counters.take("k", limit=3, period_s=60)
    refused = await counters.take("k", limit=3, period_s=60)
    assert refused.retry_after_s == pytest.approx(20)
    clock.s += refused.retry_after_s - 0.001
    assert not (await counters.take("k", limit=3, period_s=60)).allowed
    clock.s += 0.001
    assert (await counters.take("k", limit=3, period_s=60)).allowed


async def test_reset_is_when_all_of_it_is_back(counters: LocalCounters, clock: Clock) -> None:
    await counters.take("k", limit=3, period_s=60)
    taken = await counters.take("k", limit=3, period_s=60)
    assert taken.reset_s == pytest.approx(40)
    clock.s += taken.reset_s
    assert (await counters.take("k", limit=3, period_s=60)).remaining == 2


async def test_a_refused_try_costs_nothing(counters: LocalCounters, clock: Clock) -> None:
    await counters.take("k", limit=1, period_s=10)
    for _ in range(50):
        assert not (await counters.take("k", limit=1, period_s=10)).allowed
    clock.s += 10
    assert (await counters.take("k", limit=1, period_s=10)).allowed


async def test_names_do_not_share_a_limit(counters: LocalCounters) -> None:
    assert (await counters.take("a", limit=1, period_s=10)).allowed
    assert (await counters.take("b", limit=1, period_s=10)).allowed


async def test_a_burst_smaller_than_the_limit_spreads_it(counters: LocalCounters, clock: Clock) -> None:
    taken = [await counters.take("k", limit=60, period_s=60, burst=2) for _ in range(3)]
    assert [one.allowed for one in taken] == [True, True, False]
    clock.s += 1
    assert (await counters.take("k", limit=60, period_s=60, burst=2)).allowed


async def test_over_a_long_time_the_limit_holds_to_the_call(counters: LocalCounters, clock: Clock) -> None:
    """Asked ten times as often as allowed, for ten periods: the limit for each, and the burst once."""
    allowed = 0
    for _ in range(10 * 10 * 30):
        allowed += (await counters.take("k", limit=30, period_s=60)).allowed
        clock.s += 0.2
    assert allowed == 30 + 299  # the burst, and one each 2 s of the 599.8 s


async def test_names_that_are_done_with_are_forgotten(counters: LocalCounters, clock: Clock) -> None:
    for number in range(10_000):
        await counters.take(f"k{number}", limit=5, period_s=1)
        clock.s += 0.1
    assert len(counters) < 50


async def test_more_names_than_the_bound_are_never_held(clock: Clock) -> None:
    counters = LocalCounters(now_s=clock, max_names=100)
    for number in range(1000):
        await counters.take(f"k{number}", limit=1, period_s=3600)
    assert len(counters) <= 100


@pytest.mark.parametrize(("limit", "period_s"), [(0, 60), (-1, 60), (1, 0)], ids=["none", "negative", "no period"])
async def test_a_limit_that_means_nothing_is_refused(counters: LocalCounters, limit: int, period_s: float) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        await counters.take("k", limit=limit, period_s=period_s)
