"""Snapshots: swapped whole, kept by who reads them, refused if damaged."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from conclave.retrieval.index import CURRENT, SNAPSHOTS, VECTORS, SnapshotError, Snapshots, build


def write(snapshots: Snapshots, count: int, version: int = 1) -> None:
    vectors = np.eye(8, dtype=np.float16)[np.arange(count) % 8]
    rows = [(100 + number, number % 3) for number in range(count)]
    snapshots.write(build(vectors, rows, version=version, probes=vectors[:0].astype(np.float32)))


def test_a_reader_keeps_its_snapshot_while_another_is_written(tmp_path: Path) -> None:
    reader = Snapshots(tmp_path)
    assert reader.current() is None
    write(Snapshots(tmp_path), 8, version=1)
    old = reader.current()
    assert old is not None
    write(Snapshots(tmp_path), 16, version=2)
    question = np.eye(8, dtype=np.float32)[0]
    assert [one.row for one in old.nearest(question, audiences=None, limit=1)] == [100]
    new = reader.current()
    assert new is not None
    assert (old.about.version, new.about.version, len(new.rows)) == (1, 2, 16)
    assert len([one for one in (tmp_path / SNAPSHOTS).iterdir() if one.is_dir()]) == 1, "the old one is removed"
    assert reader.current() is new, "opened once"


def test_only_the_audiences_that_are_asked_for_are_found(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    write(snapshots, 24)
    snapshot = snapshots.current()
    assert snapshot is not None
    question = np.eye(8, dtype=np.float32)[0]
    assert {one.row for one in snapshot.nearest(question, audiences=None, limit=3)} == {100, 108, 116}
    found = snapshot.nearest(question, audiences=frozenset({2}), limit=3)
    assert found[0].row == 108
    assert found[0].similarity == 1.0
    assert all((one.row - 100) % 3 == 2 for one in found)
    assert snapshot.nearest(question, audiences=frozenset(), limit=3) == []
    assert snapshot.nearest(question, audiences=frozenset({99}), limit=3) == []


def test_an_empty_library_has_a_snapshot_that_finds_nothing(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    write(snapshots, 0)
    snapshot = snapshots.current()
    assert snapshot is not None
    assert snapshot.nearest(np.ones(8, dtype=np.float32), audiences=None, limit=3) == []


def test_what_a_killed_writer_left_is_removed_and_never_read(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    write(snapshots, 8)
    half = tmp_path / SNAPSHOTS / "7-half"
    half.mkdir()
    (half / VECTORS).write_bytes(b"half")
    assert Snapshots(tmp_path).current() is not None
    write(snapshots, 8, version=2)
    assert not half.exists()


@pytest.mark.parametrize("damage", ["cut", "zeros", "about", "gone", "pointer"])
def test_a_damaged_snapshot_is_an_error_that_says_what_to_do(tmp_path: Path, damage: str) -> None:
    write(Snapshots(tmp_path), 64)
    name = (tmp_path / SNAPSHOTS / CURRENT).read_text()
    folder = tmp_path / SNAPSHOTS / name
    if damage == "cut":
        (folder / VECTORS).write_bytes((folder / VECTORS).read_bytes()[:100])
    elif damage == "zeros":
        (folder / "rows.npy").write_bytes(b"")
    elif damage == "about":
        (folder / "about.json").write_text("{")
    elif damage == "gone":
        shutil.rmtree(folder)
    else:
        (tmp_path / SNAPSHOTS / CURRENT).write_text("../../etc")
    with pytest.raises(SnapshotError, match="--rebuild"):
        Snapshots(tmp_path).current()
    assert Snapshots(tmp_path).damage()


def test_a_changed_byte_is_found_by_its_hash(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    write(snapshots, 64)
    assert snapshots.damage() == []
    file = tmp_path / SNAPSHOTS / (tmp_path / SNAPSHOTS / CURRENT).read_text() / VECTORS
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert Snapshots(tmp_path).damage() == [f"{VECTORS} of the snapshot was changed"]
