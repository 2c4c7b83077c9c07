"""The followers' thread: every row to everyone, in order, whatever happens to one of them."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.followers.api import Row
from conclave.gateway.followers.runner import FollowerThread
from conclave.gateway.journal import Journal, JournalOptions
from conclave.gateway.testing import FakeClock
from conclave.safety.audit.keys import SigningKey
from conclave.safety.audit.verify import verify


class Keeper:
    """Keeps rows in memory. `broken` makes it fail after it has kept a part, as a database may."""

    def __init__(self, name: str = "keeper", *, past: bool = True) -> None:
        self.name = name
        self.past = past
        self.broken = False
        self.rows: dict[tuple[str, int], Row] = {}
        self.batches: list[int] = []
        self.tries = 0

    def position(self) -> Mapping[str, int]:
        kept: dict[str, int] = {}
        for chain, seq in self.rows:
            kept[chain] = max(seq, kept.get(chain, -1))
        return kept

    def follow(self, rows: Sequence[Row]) -> None:
        self.tries += 1
        assert len({row.chain for row in rows}) == 1
        if self.broken:
            raise RuntimeError("the database is locked")
        for row in rows:
            assert (row.chain, row.seq) not in self.rows
            self.rows[row.chain, row.seq] = row
        self.batches.append(len(rows))

    def seqs(self, chain: str) -> list[int]:
        return [seq for of, seq in self.rows if of == chain]


class House:
    """A folder with a key; opens journals and threads, and ends them."""

    def __init__(self, path: Path) -> None:
        self.folder = path / "journal"
        self.key = SigningKey.open(path / "keys" / "k")
        self.clock = FakeClock()
        self.threads: list[FollowerThread] = []

    def open(self, **options: Any) -> Journal:
        day = datetime(2026, 3, 1, tzinfo=UTC)
        return Journal.open(self.folder, self.key, JournalOptions(now=lambda: day, now_s=self.clock.now_s, **options))

    def follow(self, journal: Journal, *followers: Keeper, **options: Any) -> FollowerThread:
        thread = FollowerThread(journal, followers, poll_s=0.01, **options)
        thread.start()
        self.threads.append(thread)
        return thread


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    for thread in house.threads:
        thread.stop(limit_s=1)


def append(journal: Journal, count: int) -> None:
    for i in range(count):
        journal.append({"kind": "call", "time": f"2026-03-0{1 + i % 2}T00:00:00.000000Z", "i": i})


def soon(condition: Callable[[], bool]) -> None:
    """Wait for what another thread will do."""
    ends_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends_s
        threading.Event().wait(0.01)


def test_every_row_comes_once_in_order_across_segments(house: House) -> None:
    journal, one, two = house.open(segment_bytes=1500), Keeper("one"), Keeper("two", past=False)
    thread = house.follow(journal, one, two)
    append(journal, 30)
    soon(lambda: len(one.rows) == 31)
    append(journal, 1200)
    journal.close()
    assert thread.stop(limit_s=5)
    assert one.seqs(journal.chain) == two.seqs(journal.chain) == list(range(1232))
    assert max(one.batches) <= 500
    assert one.rows[journal.chain, 1231].data["kind"] == "closed"
    assert one.rows[journal.chain, 5].hash == json.loads(one.rows[journal.chain, 6].raw)["prev"]


def test_a_follower_that_fails_is_alone_with_it(house: House) -> None:
    journal, good, bad = house.open(), Keeper("good"), Keeper("bad")
    bad.broken = True
    thread = house.follow(journal, bad, good)
    append(journal, 10)
    soon(lambda: len(good.rows) == 11)
    assert (bad.tries, bad.rows) == (1, {})  # it waits before it is tried again
    bad.broken = False
    soon(lambda: len(bad.rows) == 11)
    journal.close()
    assert thread.stop(limit_s=5)
    assert good.tries == len(good.batches)


def test_a_follower_that_never_recovers_does_not_hold_up_the_stop(house: House) -> None:
    journal, good, bad = house.open(), Keeper("good"), Keeper("bad")
    bad.broken = True
    thread = house.follow(journal, bad, good)
    append(journal, 600)
    journal.close()
    assert not thread.stop(limit_s=5)
    assert len(good.rows) == 602


def test_rows_of_a_process_that_was_killed_are_caught_up(house: House, tmp_path: Path) -> None:
    dead = house.open()
    append(dead, 20)
    for path in list(house.folder.glob(f"{dead.chain}.*")):  # a copy is not held by a process, as after kill -9
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    journal, keeper, counter = house.open(), Keeper(), Keeper("counter", past=False)
    keeper.rows.update({(dead.chain, seq): Row(dead.chain, seq, "", {}, b"{}") for seq in range(8)})
    thread = house.follow(journal, keeper, counter)
    journal.close()
    assert thread.stop(limit_s=5)
    assert keeper.seqs(dead.chain) == list(range(21))
    assert keeper.seqs(journal.chain) == [0, 1]
    assert counter.seqs(dead.chain) == []


def test_the_chain_of_a_living_neighbour_is_left_to_it(house: House) -> None:
    neighbour, journal, keeper = house.open(), house.open(), Keeper()
    append(neighbour, 3)
    thread = house.follow(journal, keeper)
    soon(lambda: len(keeper.rows) == 1)
    assert keeper.seqs(neighbour.chain) == []
    journal.close()
    assert thread.stop(limit_s=5)
    neighbour.close()


def test_the_thread_signs_when_it_is_due_and_ticks(house: House) -> None:
    journal, ticks = house.open(), []

    def tick() -> None:
        ticks.append(1)
        raise RuntimeError("of no consequence")

    house.follow(journal, ticks=[tick])
    append(journal, 3)
    house.clock.advance(61)
    soon(lambda: verify(house.folder, frozenset({house.key.public})).entries == 2)
    soon(lambda: len(ticks) > 3)
    journal.close()


def test_a_half_written_line_waits_until_it_is_whole(house: House) -> None:
    journal, keeper = house.open(), Keeper()
    append(journal, 1)
    path = max(house.folder.glob(f"{journal.chain}.*"))
    whole = path.read_bytes()
    append(journal, 1)
    following = max(house.folder.glob(f"{journal.chain}.*")).read_bytes()[len(whole) :]
    path.write_bytes(whole + following[:60])
    house.follow(journal, keeper)
    soon(lambda: len(keeper.rows) == 2)
    path.write_bytes(whole + following)
    soon(lambda: len(keeper.rows) == 3)
