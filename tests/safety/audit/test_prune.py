"""Retention: whole old segments go, a signed tombstone stays, and verify knows the one from a theft."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conclave.safety.audit.chain import NO_HASH, line_of, row_bytes
from conclave.safety.audit.prune import prune

NewRow = Callable[[Any, int], dict[str, Any]]

NOW = datetime(2026, 4, 1, tzinfo=UTC)
DAY_2 = datetime(2026, 3, 2, tzinfo=UTC)


def pruned(folder: Any, before: datetime = DAY_2) -> Any:
    return prune(folder.journal, folder.key, frozenset({folder.key.public}), before=before, now=NOW)


def test_the_first_day_of_a_chain_goes_and_the_second_stays(written: Any, tmp_path: Path) -> None:
    folder = written.copy(tmp_path / "copy")
    chain = min(folder.files()).split(".")[0]
    result = pruned(folder)
    assert [(item.chain, item.first, item.last) for item in result.dropped] == [(chain, 0, 2)]
    assert not (folder.journal / f"{chain}.{0:012d}.jsonl").exists()
    report = folder.verify()
    assert report.faults == []
    assert (report.rows, [item.last for item in report.dropped]) == (10, [2])


def test_everything_old_goes_and_the_tombstone_adds_up(written: Any, tmp_path: Path) -> None:
    folder = written.copy(tmp_path / "copy")
    pruned(folder)
    assert pruned(folder, NOW).rows == 10
    assert sorted(folder.files()) == ["heads.jsonl"]
    report = folder.verify()
    assert (report.faults, report.rows, report.entries) == ([], 0, 2)  # both tombstones
    assert sum(item.last - item.first + 1 for item in report.dropped) == 13
    assert pruned(folder, NOW).rows == 0


def test_a_pruned_journal_goes_on(written: Any, tmp_path: Path, wall: Any, new_row: NewRow) -> None:
    folder = written.copy(tmp_path / "copy")
    pruned(folder)
    wall.now += timedelta(days=1)
    for _ in range(3):
        journal = folder.open(wall)
        journal.append(new_row(wall, 0))
        journal.close()
        assert folder.verify().faults == []
        wall.now += timedelta(days=1)
        pruned(folder, wall.now - timedelta(days=1, hours=12))
        report = folder.verify()
        assert (report.faults, report.rows) == ([], 3)  # the newest chain: genesis, one call, closed


def test_what_is_left_after_pruning_is_still_guarded(written: Any, tmp_path: Path) -> None:
    folder = written.copy(tmp_path / "copy")
    pruned(folder)
    for name, content in folder.files().items():
        (folder.journal / name).write_bytes(content[:-1][: content[:-1].rfind(b"\n") + 1])
        assert not folder.verify().intact or "after its last signature" in " ".join(folder.verify().notes), name
        (folder.journal / name).write_bytes(content)
        (folder.journal / name).unlink()
        assert not folder.verify().intact, name
        (folder.journal / name).write_bytes(content)
    assert folder.verify().intact


def test_deleting_old_rows_without_a_tombstone_is_a_theft(written: Any, tmp_path: Path) -> None:
    folder = written.copy(tmp_path / "copy")
    first = min(folder.files())
    (folder.journal / first).unlink()
    faults = folder.verify().faults
    assert any("rows 0 to 2 are not there" in fault.what for fault in faults)


def test_a_changed_record_is_not_pruned(written: Any, tmp_path: Path) -> None:
    folder = written.copy(tmp_path / "copy")
    first = folder.journal / min(folder.files())
    first.write_bytes(first.read_bytes().replace(b"req_1", b"req_9"))
    before = folder.files()
    result = pruned(folder, NOW)
    assert (result.dropped, result.before.intact) == ((), False)
    assert folder.files() == before


def test_a_living_process_keeps_its_newest_file(new_folder: Any, wall: Any, new_row: NewRow) -> None:
    journal = new_folder.open(wall)
    for i in range(5):
        journal.append(new_row(wall, i))
    assert pruned(new_folder, NOW).rows == 0  # the first file is held until it is synced and signed
    journal.sign_head()
    assert [item.last for item in pruned(new_folder, NOW).dropped] == [2]
    journal.append(new_row(wall, 6))
    journal.close()
    assert (new_folder.verify().faults, new_folder.verify().rows) == ([], 5)


def test_files_that_an_interrupted_run_left_are_noted_and_go_with_the_next(written: Any, tmp_path: Path) -> None:
    folder = written.copy(tmp_path / "copy")
    first = min(folder.files())
    content = folder.files()[first]
    pruned(folder)
    (folder.journal / first).write_bytes(content)
    report = folder.verify()
    assert report.faults == []
    assert any("prune again" in note for note in report.notes)
    pruned(folder)
    assert first not in folder.files()


def test_all_files_of_an_interrupted_run_are_still_known(written: Any, tmp_path: Path) -> None:
    """Also those that an earlier tombstone speaks of, and the torn tail of a process that was killed."""
    folder = written.copy(tmp_path / "copy")
    last = max(name for name in folder.files() if name != "heads.jsonl")
    (folder.journal / last).write_bytes(folder.files()[last] + b'{"hash":"00')
    before = folder.files()
    pruned(folder)
    pruned(folder, NOW)
    for name in sorted(before.keys() - {"heads.jsonl"}, reverse=True):  # oldest first is how they go
        (folder.journal / name).write_bytes(before[name])
        assert folder.verify().faults == [], name
    assert folder.verify().rows == 0
    assert pruned(folder, NOW).rows == 0
    assert sorted(folder.files()) == ["heads.jsonl"]


def forged(content: bytes) -> bytes:
    """The same rows, one with another status, linked anew as only the hashes ask."""
    lines, prev = [], NO_HASH
    for line in content.splitlines():
        row = msgspec.json.decode(row_bytes(line) or b"")
        made, prev = line_of({**row, "status": 418}, chain=row["chain"], seq=row["seq"], prev=prev)
        lines.append(made)
    return b"".join(lines)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(forged, id="forged"),
        pytest.param(lambda content: content + forged(content).splitlines(keepends=True)[-1], id="more"),
        pytest.param(lambda content: b"".join(content.splitlines(keepends=True)[:-1]), id="fewer"),
        pytest.param(lambda content: content.replace(b"req_1", b"req_9"), id="edited"),
        pytest.param(lambda _: b"", id="empty"),
    ],
)
def test_a_file_put_back_for_pruned_rows_is_a_fault(
    written: Any, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    folder = written.copy(tmp_path / "copy")
    first = min(folder.files())
    content = folder.files()[first]
    pruned(folder)
    (folder.journal / first).write_bytes(change(content))
    report = folder.verify()
    assert report.faults
    assert all(fault.file == first and "was pruned, and put back" in fault.what for fault in report.faults)
    assert report.rows == 10
    assert pruned(folder, NOW).dropped == ()
