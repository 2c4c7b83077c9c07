"""What verify says of journals that nobody changed: living, killed, shared, pruned, witnessed."""

import io
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conclave.safety.audit.chain import NO_HASH, segments
from conclave.safety.audit.findings import Report
from conclave.safety.audit.keys import SigningKey, read_public
from conclave.safety.audit.read import rows_of
from conclave.safety.audit.rows import ChainCheck
from conclave.safety.audit.verify import verify
from conclave.safety.audit.witness import NOTHING, Witness, Witnessed

NewRow = Callable[[Any, int], dict[str, Any]]

WRITER = """
    import sys
    from pathlib import Path
    from conclave.gateway.journal import Journal
    from conclave.safety.audit.keys import SigningKey

    state = Path(sys.argv[1])
    journal = Journal.open(state / "journal", SigningKey.open(state / "keys" / "audit_ed25519"))
    print("open", flush=True)
    i = 0
    while i < int(sys.argv[2]):
        journal.append({"kind": "call", "time": "2026-03-01T00:00:00.000000Z", "text": "x" * 3000})
        i += 1
        if i % 50 == 0:
            journal.sign_head()
    journal.close()
"""


def writer(state: Path, rows: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(state), str(rows)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_kill_9_in_the_middle_of_writing_leaves_a_journal_that_verifies(new_folder: Any) -> None:
    process = writer(new_folder.path, 10**9)
    assert process.stdout is not None
    process.stdout.readline()
    while sum(path.stat().st_size for path in new_folder.journal.iterdir()) < 400_000:
        assert process.poll() is None
        assert new_folder.verify().faults == []  # while it is being written, too
    process.kill()
    process.wait()
    process.stdout.close()
    report = new_folder.verify()
    assert report.faults == []
    assert report.rows > 100
    assert any("its process was killed" in note for note in report.notes)


class Growing(io.RawIOBase):
    """A file that is being written: its reader meets the end in the middle of a row, and the rest a moment later."""

    def __init__(self, *reads: bytes) -> None:
        self._reads = list(reads)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._reads.pop(0) if self._reads else b""
        buffer[: len(read)] = read
        return len(read)


def test_a_row_that_was_half_written_when_it_was_read_is_no_fault(new_folder: Any, wall: Any, new_row: NewRow) -> None:
    journal = new_folder.open(wall)
    for i in range(2):
        journal.append(new_row(wall, i))
    part = segments(new_folder.journal)[journal.chain][0]
    whole = part.path.read_bytes()
    half = len(whole) - 40
    report = Report()
    reads = io.BufferedReader(Growing(whole[:half], b"", whole[half:]))
    growing = SimpleNamespace(name=part.path.name, open=lambda _: reads)
    check = ChainCheck(journal.chain, (0, NO_HASH), {}, Witness(NOTHING), report)
    check.read(replace(part, path=growing), torn_ok=True)
    journal.close()
    assert report.faults == []
    assert (report.rows, len(report.notes)) == (2, 1)  # the genesis row and one; the next was begun


def test_processes_that_share_a_folder_keep_a_chain_each(new_folder: Any) -> None:
    processes = [writer(new_folder.path, 120) for _ in range(3)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    report = new_folder.verify()
    assert (report.faults, report.notes) == ([], [])
    assert (report.chains, report.rows) == (3, 3 * 122)


def test_a_journal_that_is_being_signed_and_closed_gives_no_false_alarm(
    new_folder: Any, wall: Any, new_row: NewRow
) -> None:
    opened, done = threading.Event(), threading.Event()

    def run() -> None:
        for _ in range(6):
            journal = new_folder.open(wall)
            opened.set()
            for i in range(60):
                journal.append(new_row(wall, i))
                if i % 5 == 0:
                    journal.sign_head()
            journal.close()
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    opened.wait(10)
    while not done.is_set():
        assert new_folder.verify().faults == []
    thread.join()
    report = new_folder.verify()
    assert (report.faults, report.notes, report.rows) == ([], [], 6 * 62)


def test_rows_after_the_last_signature_of_a_killed_process_are_named(
    new_folder: Any, wall: Any, new_row: NewRow, tmp_path: Path
) -> None:
    journal = new_folder.open(wall)
    for i in range(3):
        journal.append(new_row(wall, i))
    report = new_folder.copy(tmp_path / "killed").verify()
    assert report.notes == [f"{journal.chain}: its process was killed; rows 1 to 3 came after its last signature"]
    journal.close()


def table(folder: Any) -> list[Witnessed]:
    return [
        Witnessed(chain, row.data["seq"], row.hash)
        for chain, parts in segments(folder.journal).items()
        for part in parts
        for row in rows_of(part.path)
    ]


def test_a_witness_that_agrees_changes_nothing(written: Any, tmp_path: Path) -> None:
    copy = written.copy(tmp_path / "copy")
    report = copy.verify(witness=table(copy))
    assert (report.faults, report.witnessed_rows) == ([], 13)
    assert copy.verify(witness=table(copy)[5:9]).faults == []  # it may remember less


def test_a_witness_of_a_living_gateway_gives_no_false_alarm(new_folder: Any, wall: Any, new_row: NewRow) -> None:
    """A chain that begins just before the table is read is in the table, and in the journal's list too."""
    journal = new_folder.open(wall)

    def remembered() -> Iterator[Witnessed]:
        wall.now += timedelta(minutes=1)
        new_folder.open(wall).append(new_row(wall, 0))
        journal.append(new_row(wall, 0))
        yield from table(new_folder)

    report = new_folder.verify(witness=remembered())
    assert (report.faults, report.witnessed_rows) == ([], 4)
    journal.close()


def test_a_witness_misses_rows_that_no_signature_covers(
    new_folder: Any, wall: Any, new_row: NewRow, tmp_path: Path
) -> None:
    wall.now += timedelta(hours=1)  # one day, one file
    journal = new_folder.open(wall)
    for i in range(5):
        journal.append(new_row(wall, i))
    remembered = table(new_folder)
    cut = new_folder.copy(tmp_path / "cut")
    journal.close()
    path = next(cut.journal.glob(f"{journal.chain}.*"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert cut.verify().faults == []
    (fault,) = cut.verify(witness=remembered).faults
    assert (fault.file, fault.row) == (path.name, 3)
    assert "rows 3 to 5 stand in the table" in fault.what


def test_a_witness_locates_another_row_and_another_chain(written: Any) -> None:
    rows = table(written)
    rows[2] = Witnessed(rows[2].chain, rows[2].seq, "0" * 64)
    rows.append(Witnessed("29990101t000000z-00000000", 0, "1" * 64))
    faults = written.verify(witness=rows).faults
    assert [(fault.row, fault.what.split(":")[0]) for fault in faults] == [
        (2, "the table remembers this row with another hash"),
        (None, "the chain is missing; row 0 stand in the table"),
    ]


def test_a_witness_out_of_order_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match="ordered by chain"):
        written.verify(witness=list(reversed(table(written))))


def test_pinned_keys_are_read_from_pem(new_folder: Any, tmp_path: Path) -> None:
    other = SigningKey.open(tmp_path / "other")
    assert read_public(new_folder.key.public_pem() + other.public_pem()) == {new_folder.key.public, other.public}
    with pytest.raises(ValueError, match="no public key"):
        read_public("nothing")


def test_a_new_key_is_trusted_only_beside_the_old_one(new_folder: Any, wall: Any, tmp_path: Path) -> None:
    new_folder.open(wall).close()
    old, new_folder.key = new_folder.key, SigningKey.open(tmp_path / "new")
    new_folder.open(wall).close()
    assert not new_folder.verify().intact
    assert verify(new_folder.journal, frozenset({old.public, new_folder.key.public})).faults == []


def test_the_signing_key_is_for_its_owner_only(new_folder: Any) -> None:
    path = new_folder.path / "keys" / "audit_ed25519"
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.open(path).public == new_folder.key.public
    assert [file.name for file in path.parent.iterdir()] == ["audit_ed25519"]


def test_a_torn_last_signature_is_noted_and_the_next_process_removes_it(new_folder: Any, wall: Any) -> None:
    new_folder.open(wall).close()
    heads = new_folder.journal / "heads.jsonl"
    heads.write_bytes(heads.read_bytes() + heads.read_bytes()[:100])
    assert new_folder.verify().faults == []
    assert any("torn tail" in note for note in new_folder.verify().notes)
    wall.now += timedelta(seconds=1)
    new_folder.open(wall).close()
    assert (new_folder.verify().faults, new_folder.verify().notes) == ([], [])
