"""The journal: one write a row, nothing lost on a full disk, its own way back."""

import errno
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.errors import Unavailable
from conclave.gateway.journal import KEPT_ROWS, SIGN_EVERY_ROWS, Journal, JournalOptions
from conclave.gateway.testing import FakeClock
from conclave.safety.audit.keys import SigningKey
from conclave.safety.audit.verify import verify


class Disk:
    """A disk that can be filled: beyond `room` bytes a write is short, then refused."""

    def __init__(self) -> None:
        self.room = 10**9
        self.writes = 0
        self.free_bytes = 10**9

    def write(self, descriptor: int, data: bytes) -> int:
        self.writes += 1
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = data[: self.room]
        self.room -= len(part)
        return os.write(descriptor, part)

    def free(self, _folder: Path) -> int:
        return self.free_bytes


class Bench:
    """A journal on a disk and a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.disk, self.clock = Disk(), FakeClock()
        self.key = SigningKey.open(path / "keys" / "k")
        self.folder = path / "journal"
        self.journal = self.open()

    def open(self, **options: Any) -> Journal:
        told = {"now": lambda: datetime(2026, 3, 1, tzinfo=UTC), "now_s": self.clock.now_s, "write": self.disk.write}
        return Journal.open(self.folder, self.key, JournalOptions(**{**told, "free": self.disk.free, **options}))

    def append(self, i: int = 0) -> int:
        return self.journal.append({"kind": "call", "time": "2026-03-01T00:00:00.000000Z", "i": i})

    def verify(self) -> Any:
        return verify(self.folder, frozenset({self.key.public}))

    def rows(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob(f"{self.journal.chain}.*")))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_row_is_one_write_and_its_number_is_returned(bench: Bench) -> None:
    before = bench.disk.writes
    assert [bench.append(i) for i in range(3)] == [1, 2, 3]
    assert bench.disk.writes - before == 3


@pytest.mark.parametrize("room", [0, 1, 50, 150], ids=["none", "one byte", "in the hash", "in the row"])
def test_a_full_disk_fails_the_call_and_keeps_its_row(bench: Bench, room: int) -> None:
    bench.append()
    bench.disk.room = room
    with pytest.raises(Unavailable):
        bench.append(1)
    with pytest.raises(Unavailable):
        bench.journal.ready()
    assert bench.verify().faults == []  # no part of the row stays in the file
    bench.disk.room = 10**9
    with pytest.raises(Unavailable):
        bench.append(2)  # it looks again only after a second
    bench.clock.advance(1)
    bench.journal.ready()
    assert bench.append(3) == 4
    bench.journal.close()
    assert bench.rows().count(b'"late":true') == 2
    assert (bench.verify().faults, bench.verify().rows) == ([], 6)


def test_rows_beyond_what_can_wait_are_counted(bench: Bench) -> None:
    bench.disk.room = 0
    for i in range(KEPT_ROWS + 5):
        with pytest.raises(Unavailable):
            bench.append(i)
    bench.disk.room = 10**9
    bench.clock.advance(1)
    bench.journal.ready()
    last = bench.rows().splitlines()[-1]
    assert b'"kind":"lost"' in last
    assert b'"count":5' in last
    bench.journal.close()
    assert (bench.verify().faults, bench.verify().rows) == ([], KEPT_ROWS + 3)


def test_too_little_room_refuses_new_calls_and_still_records(bench: Bench) -> None:
    bench.journal.ready()
    bench.disk.free_bytes = 1024
    bench.clock.advance(1)
    with pytest.raises(Unavailable, match="full or gone"):
        bench.journal.ready()
    assert bench.append() == 1
    bench.disk.free_bytes = 10**9
    bench.clock.advance(1)
    bench.journal.ready()


def test_a_journal_whose_folder_is_gone_takes_no_more_calls(bench: Bench) -> None:
    bench.journal.ready()
    shutil.rmtree(bench.folder)
    bench.clock.advance(1)
    with pytest.raises(Unavailable, match="gone"):
        bench.journal.ready()


def test_a_disk_that_cannot_be_looked_at_takes_no_more_calls(bench: Bench) -> None:
    def broken(_: Path) -> int:
        raise OSError(errno.EIO, "Input/output error")

    journal = bench.open(free=broken)
    bench.clock.advance(1)
    with pytest.raises(Unavailable):
        journal.ready()


def test_a_head_is_due_after_a_minute_or_a_thousand_rows(bench: Bench) -> None:
    bench.clock.advance(3600)
    assert not bench.journal.sign_due  # nothing new
    bench.append()
    assert bench.journal.sign_due
    bench.journal.sign_head()
    assert not bench.journal.sign_due
    for i in range(SIGN_EVERY_ROWS):
        assert not bench.journal.sign_due
        bench.append(i)
    assert bench.journal.sign_due


def test_the_next_row_names_the_last_signature(bench: Bench) -> None:
    bench.append(1)
    bench.journal.sign_head()
    bench.append(2)
    bench.append(3)
    named = [b'"signed":{' in line for line in bench.rows().splitlines()]
    assert named == [False, True, True, False]  # genesis was signed, too


def test_a_closed_journal_takes_no_rows_and_closes_once(bench: Bench) -> None:
    bench.journal.close()
    bench.journal.close()
    with pytest.raises(Unavailable):
        bench.append()
    with pytest.raises(Unavailable):
        bench.journal.ready()
    bench.journal.sign_head()
    assert (bench.verify().faults, bench.verify().notes) == ([], [])


def test_a_full_segment_is_followed_by_another(bench: Bench) -> None:
    bench.journal.close()
    bench.journal = bench.open(segment_bytes=300)
    for i in range(4):
        bench.append(i)
    bench.journal.close()
    assert len(list(bench.folder.glob(f"{bench.journal.chain}.*"))) > 2
    assert (bench.verify().faults, bench.verify().notes) == ([], [])


def test_a_next_segment_that_cannot_be_made_leaves_this_one_in_use(bench: Bench) -> None:
    """As when the disk has no room for another file: here something stands in its place."""
    bench.journal.append({"kind": "call", "time": "2026-03-01T00:00:00.000000Z"})
    blocked = bench.folder / f"{bench.journal.chain}.{2:012d}.jsonl"
    blocked.mkdir()
    with pytest.raises(Unavailable):
        bench.journal.append({"kind": "call", "time": "2026-03-02T00:00:00.000000Z"})
    bench.journal.sign_head()
    blocked.rmdir()
    bench.clock.advance(1)
    bench.journal.ready()
    bench.journal.close()
    assert (bench.verify().faults, bench.verify().notes, bench.verify().rows) == ([], [], 4)


def test_a_lone_surrogate_does_not_stop_the_record(bench: Bench) -> None:
    row = {"kind": "call", "time": "2026-03-01T00:00:00.000000Z", "model": "\ud800", "more": [{"x": "\udfff"}]}
    assert bench.journal.append(row) == 1
    assert b'"model":"?"' in bench.rows()


def test_a_journal_that_cannot_be_opened_says_so(bench: Bench) -> None:
    bench.disk.room = 0
    with pytest.raises(Unavailable):
        bench.open()
    assert bench.verify().faults == []
