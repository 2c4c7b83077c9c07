"""What was used once is used up, within a bounded memory, and what cannot be known is not guessed."""

import random

from conclave.gateway.state.nonces import LocalNonces


class Clock:
    s = 1000.0

    def __call__(self) -> float:
        return self.s


async def test_a_number_is_used_once_as_long_as_it_could_be_used() -> None:
    clock = Clock()
    nonces = LocalNonces(now=clock)
    assert await nonces.use("a", by="k", from_s=1000, until_s=1060) == "first"
    for clock.s in (1000.0, 1030.0, 1060.0):
        assert await nonces.use("a", by="k", from_s=1000, until_s=1060) == "again"
    assert await nonces.use("b", by="k", from_s=1000, until_s=1060) == "first"


async def test_what_is_over_is_forgotten_so_that_memory_is_bounded_by_time() -> None:
    clock = Clock()
    nonces = LocalNonces(now=clock)
    for number in range(1000):
        clock.s = 1000.0 + number
        assert await nonces.use(str(number), by="k", from_s=clock.s, until_s=clock.s + 60) == "first"
    assert len(nonces) <= 62


async def test_when_it_is_full_nothing_new_is_taken_and_nothing_is_forgotten() -> None:
    clock = Clock()
    nonces = LocalNonces(now=clock, most=2)
    assert [await nonces.use(name, by="k", from_s=1000, until_s=1060) for name in "aab"] == ["first", "again", "first"]
    assert await nonces.use("c", by="k", from_s=1000, until_s=1060) == "full"
    assert await nonces.use("a", by="k", from_s=1000, until_s=1060) == "again"
    clock.s = 1061
    assert await nonces.use("c", by="k", from_s=1061, until_s=1121) == "first"


async def test_a_number_from_before_the_start_may_have_been_used_and_is_not_taken() -> None:
    nonces = LocalNonces(now=Clock())
    assert await nonces.use("a", by="k", from_s=999, until_s=1059) == "unsure"


async def test_a_clock_that_is_set_back_brings_no_number_back() -> None:
    clock = Clock()
    nonces = LocalNonces(now=clock)
    assert await nonces.use("a", by="k", from_s=1000, until_s=1060) == "first"
    clock.s = 1100
    assert await nonces.use("b", by="k", from_s=1100, until_s=1160) == "first"
    clock.s = 1010
    assert await nonces.use("a", by="k", from_s=1000, until_s=1060) == "unsure"


async def test_of_any_sequence_of_uses_each_number_is_first_at_most_once() -> None:
    dice = random.Random(7)
    clock = Clock()
    nonces = LocalNonces(now=clock, most=50)
    firsts: list[str] = []
    for _ in range(20_000):
        clock.s += dice.choice([0, 0, 0.2, 1, 30, -20])
        born_s = max(1000, int(clock.s + dice.uniform(-60, 60)))
        name = f"{born_s}-{dice.randrange(5)}"
        if await nonces.use(name, by="k", from_s=born_s, until_s=born_s + 60) == "first":
            firsts.append(name)
    assert len(firsts) == len(set(firsts)) > 1000


async def test_names_that_live_longer_from_now_on_do_not_bring_back_one_that_was_forgotten() -> None:
    """A window of 60 s becomes one of an hour: what was used and forgotten before is not good again."""
    clock = Clock()
    nonces = LocalNonces(now=clock)
    assert await nonces.use("a", by="k", from_s=1000, until_s=1060) == "first"
    clock.s = 1070
    assert await nonces.use("b", by="k", from_s=1070, until_s=1070 + 3600) == "first"
    assert await nonces.use("a", by="k", from_s=1000, until_s=1000 + 3600) == "unsure"
    assert await nonces.use("c", by="other", from_s=1000, until_s=1000 + 3600) == "first"
