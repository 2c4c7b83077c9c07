"""Scripted traffic against the loop on a clock of its own: who is stopped, who is left alone, and what is undone."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from conclave.safety.detect.standing import Band
from conclave.safety.ooda.api import DEFAULTS, Attack, Deed, Observation, Step
from conclave.safety.ooda.loop import Loop, Mode, Orders
from conclave.safety.ooda.observe import Window
from conclave.safety.ooda.sanctions import Sanctions

EVERY_S = 10.0


@dataclass
class House:
    """A loop, its clock, and what it wrote down."""

    mode: Mode = "on"
    now_s: float = 1000.0
    steps: list[Step] = field(default_factory=list)
    orders: Orders = field(default_factory=Orders)
    count: int = 0

    def __post_init__(self) -> None:
        self.orders = replace(self.orders, mode=self.mode, every_s=EVERY_S)
        self.sanctions = Sanctions(now_s=lambda: self.now_s)
        self.loop = Loop(
            orders=lambda: self.orders, sanctions=self.sanctions, note=self.steps.append, now_s=lambda: self.now_s
        )

    def call(self, key: str, tenant: str = "acme", **about: Any) -> None:
        self.count += 1
        more: dict[str, Any] = {"text": f"t{self.count}", "attacks": int(about.get("blocked", False))} | about
        self.loop.see(Observation(self.now_s, f"key:{key}", tenant, f"req_{self.count}", **more))

    def run(self, seconds: float, each_s: float, act: Callable[[int], None]) -> None:
        """`act` every `each_s`, and the loop's thread twice a second."""
        until_s, turn, due_s = self.now_s + seconds, 0, self.now_s
        while self.now_s < until_s:
            if self.now_s >= due_s:
                act(turn)
                turn, due_s = turn + 1, due_s + each_s
            self.loop.tick()
            self.now_s += 0.5

    def barred(self, key: str) -> bool:
        return self.sanctions.barred_s(f"key:{key}") > 0

    def band(self, key: str, tenant: str = "acme") -> Band:
        return self.sanctions.band(f"key:{key}", tenant)

    def deeds(self, did: str = "imposed") -> list[Deed]:
        return [step.action.deed for step in self.steps if step.did == did]


def test_who_probes_is_held_stricter_then_blocked_while_honest_keys_never_are() -> None:
    """The attacker's key is blocked within a minute of its first try; of eight honest ones, some refused, none is."""
    house = House()
    first_s, blocked_s = house.now_s, float("inf")

    def traffic(turn: int) -> None:
        nonlocal blocked_s
        for number in range(8):
            house.call(f"honest{number}", blocked=turn % 50 == number)
        if house.barred("attacker"):
            blocked_s = min(blocked_s, house.now_s)
        else:
            house.call("attacker", blocked=True, good=turn < 2)
        assert not any(house.barred(f"honest{number}") or house.band(f"honest{number}") for number in range(8))

    house.run(300, 2, traffic)
    assert blocked_s - first_s <= 60
    assert house.band("attacker") is Band.RESTRICTED
    assert house.deeds() == [Deed.TIGHTEN, Deed.BLOCK_KEY]


def test_a_block_ends_by_itself() -> None:
    house = House()
    house.run(40, 2, lambda _: house.call("attacker", blocked=True, good=False))
    assert house.barred("attacker")
    house.run(DEFAULTS.block_s, 1000, lambda _: None)
    assert not house.barred("attacker")
    house.run(DEFAULTS.band_s, 1000, lambda _: None)
    assert house.band("attacker") is Band.OPEN
    assert house.deeds("expired").count(Deed.BLOCK_KEY) == 1
    assert house.loop.active == ()


def test_an_action_that_has_ended_counts_no_more_although_the_loop_has_stopped() -> None:
    house = House()
    house.run(40, 2, lambda _: house.call("attacker", blocked=True, good=False))
    house.now_s += DEFAULTS.band_s + 1
    assert not house.barred("attacker")
    assert house.band("attacker") is Band.OPEN


def wave(house: House) -> None:
    """Poisoned pages reach three keys of a tenant, which go on with honest calls."""
    for number in range(6):
        house.call(f"victim{number % 3}", attacks=1, in_data=1)


def test_a_wave_of_poisoned_data_has_the_tenant_looked_at_more_closely_and_blocks_nobody() -> None:
    house = House()
    wave(house)
    house.run(60, 2, lambda _: house.call("victim0"))
    assert house.band("victim9") is Band.WATCH
    assert house.band("other", tenant="elsewhere") is Band.OPEN
    assert house.deeds() == [Deed.RAISE_SCAN, Deed.PROPOSE_RULE]
    proposal = house.steps[1]
    assert (proposal.action.attack, len(proposal.requests)) == (Attack.DATA, 6)


def test_what_makes_honest_calls_fail_is_undone_and_not_done_again() -> None:
    house = House()
    house.run(60, 1, lambda turn: house.call(f"victim{turn % 3}"))
    wave(house)
    house.run(20, 1, lambda turn: house.call(f"victim{turn % 3}"))
    assert house.band("victim0") is Band.WATCH
    house.run(60, 1, lambda turn: house.call(f"victim{turn % 3}", blocked=turn % 10 == 0, attacks=0))
    assert house.deeds("rolled_back") == [Deed.RAISE_SCAN]
    assert house.band("victim0") is Band.OPEN
    wave(house)
    house.run(60, 1, lambda turn: house.call(f"victim{turn % 3}"))
    assert house.band("victim0") is Band.OPEN


def test_it_stays_where_honest_calls_fail_no_more_than_before() -> None:
    house = House()
    house.run(100, 1, lambda turn: house.call(f"victim{turn % 3}", blocked=turn % 20 == 0, attacks=0))
    wave(house)
    house.run(100, 1, lambda turn: house.call(f"victim{turn % 3}", blocked=turn % 20 == 0, attacks=0))
    assert house.deeds("rolled_back") == []
    assert house.band("victim0") is Band.WATCH


def test_in_observe_mode_nothing_is_imposed_but_all_is_written_down() -> None:
    house = House(mode="observe")
    house.run(60, 2, lambda _: house.call("attacker", blocked=True, good=False))
    assert not house.barred("attacker")
    assert house.band("attacker") is Band.OPEN
    assert house.deeds("would_impose") == [Deed.TIGHTEN, Deed.BLOCK_KEY]


def test_switched_off_it_hears_nothing_and_what_was_imposed_is_lifted() -> None:
    house = House()
    house.run(40, 2, lambda _: house.call("attacker", blocked=True, good=False))
    house.orders = replace(house.orders, mode="off")
    house.loop.tick()
    assert not house.barred("attacker")
    assert house.deeds("lifted") == [Deed.TIGHTEN, Deed.BLOCK_KEY]


def test_a_busy_application_with_a_few_refused_calls_is_no_prober() -> None:
    """40 of 600 calls refused: many people behind one key."""
    house = House()
    house.run(300, 0.5, lambda turn: house.call("app", blocked=turn % 15 == 0))
    assert house.steps == []


def test_a_key_that_is_refused_one_time_in_four_is_held_stricter_and_not_blocked() -> None:
    house = House()
    house.run(120, 2, lambda turn: house.call("mixed", blocked=turn % 4 == 0, good=False))
    assert house.deeds() == [Deed.TIGHTEN]
    assert not house.barred("mixed")


def test_callers_without_a_key_are_held_stricter_and_never_blocked() -> None:
    house = House()

    def nobody(_: int) -> None:
        house.count += 1
        house.loop.see(
            Observation(house.now_s, "tenant:anonymous", "anonymous", f"r{house.count}", blocked=True, good=False)
        )

    house.run(60, 1, nobody)
    assert house.deeds() == [Deed.TIGHTEN]


def test_attacks_in_encoded_text_have_their_key_watched_and_a_rule_proposed() -> None:
    house = House()
    house.run(30, 4, lambda _: house.call("encoder", attacks=1, encoded=1))
    assert house.band("encoder") is Band.WATCH
    assert set(house.deeds()) == {Deed.TIGHTEN, Deed.PROPOSE_RULE}


@pytest.mark.parametrize(
    ("about", "attack"),
    [({}, Attack.SCRAPING), ({"text": "same", "tokens": 4096, "cut_off": True}, Attack.ENERGY)],
    ids=["no two alike", "as long as can be"],
)
def test_scraping_and_long_answers_are_watched_and_not_blocked(about: dict[str, Any], attack: Attack) -> None:
    house = House()

    def twice(_: int) -> None:
        house.call("robot", **about)
        house.call("robot", **about)

    house.run(400, 0.5, twice)
    assert house.band("robot") is Band.WATCH
    assert {step.action.attack for step in house.steps} == {attack}
    assert not house.barred("robot")


def test_so_many_actions_at_once_and_no_more() -> None:
    house = House()
    house.orders = replace(house.orders, limits=replace(DEFAULTS, most_actions=5))
    for number in range(50):
        for _ in range(6):
            house.call(f"k{number}", blocked=True, good=False)
    house.run(30, 100, lambda _: None)
    assert len(house.loop.active) == 5


def test_a_flood_of_keys_does_not_make_it_grow_and_the_newest_count() -> None:
    window = Window(most_calls=1_000)
    for number in range(20_000):
        window.see(Observation(float(number), f"key:{number % 700}", "acme", f"r{number}", blocked=True))
    assert len(window) == 1_000
    assert sum(counts.calls for _, _, counts in window.subjects()) == 1_000
    window.forget(1e9)
    assert (len(window), list(window.subjects())) == (0, [])


def test_sums_are_what_counting_anew_would_give() -> None:
    """Against a plain count over the same random calls, settled and forgotten at random."""
    draw = random.Random(7)
    window, kept = Window(), list[Observation]()
    for number in range(3_000):
        one = Observation(
            float(number), f"key:{draw.randrange(9)}", "acme", f"r{number}", f"t{draw.randrange(30)}",
            blocked=draw.random() < 0.2, encoded=draw.randrange(3), tokens=draw.randrange(50),
        )  # fmt: skip
        window.see(one)
        kept.append(one)
        if draw.random() < 0.01:
            window.settle(one.subject)
            kept = [other for other in kept if other.subject != one.subject]
        window.forget(number - 500)
        kept = [other for other in kept if other.at_s >= number - 500]
    found = {subject: counts for subject, _, counts in window.subjects()}
    for subject, counts in found.items():
        mine = [one for one in kept if one.subject == subject]
        assert (counts.calls, counts.blocked, counts.encoded, counts.tokens, counts.texts) == (
            len(mine), sum(one.blocked for one in mine), sum(one.encoded for one in mine),
            sum(one.tokens for one in mine), len({one.text for one in mine}),
        )  # fmt: skip
    assert found.keys() == {one.subject for one in kept}


def test_a_shorter_pause_between_rounds_counts_at_once() -> None:
    """An operator who looks once an hour, and is attacked, does not wait an hour for the new setting."""
    house = House()
    house.orders = replace(house.orders, every_s=3600)
    house.loop.tick()
    house.orders = replace(house.orders, every_s=1)
    house.run(10, 1, lambda _: house.call("attacker", blocked=True, good=False))
    assert house.deeds() == [Deed.TIGHTEN, Deed.BLOCK_KEY]


def test_who_had_one_action_undone_is_not_free_to_try_everything_else() -> None:
    """A key that copies, and has calls fail on purpose until that is undone, is blocked all the same if it probes."""
    house = House(orders=replace(Orders(), limits=replace(DEFAULTS, scrape_calls=30)))
    house.run(40, 1, lambda _: house.call("k"))
    assert house.band("k") is Band.WATCH
    house.run(60, 1, lambda _: house.call("k", confined=True, text="same"))
    assert house.deeds("rolled_back") == [Deed.TIGHTEN]
    house.run(60, 1, lambda _: house.call("k", blocked=True, good=False))
    assert house.barred("k")
