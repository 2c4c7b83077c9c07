"""A change of a file counts once it stands, however it came about."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conclave.gateway.policy.watch import WatchedFile, look_at


def watched(path: Path) -> WatchedFile:
    return WatchedFile(path, look_at(path))


def in_place(path: Path) -> None:
    path.write_text("b: 2")


def by_rename(path: Path) -> None:
    """As editors and `mv` do it."""
    other = path.with_name(".conclave.yaml.swp")
    other.write_text("b: 2")
    other.replace(path)


def by_backup(path: Path) -> None:
    """As vim may do it: the old file goes away first."""
    path.rename(path.with_name("conclave.yaml~"))
    path.write_text("b: 2")


def same_size_and_time(path: Path) -> None:
    """As `cp -p` of a file of the same length."""
    stamp = path.stat()
    by_rename(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@pytest.mark.parametrize("change", [in_place, by_rename, by_backup, same_size_and_time, Path.unlink])
def test_a_change_counts_at_the_second_look_and_once(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "conclave.yaml"
    path.write_text("a: 1")
    file = watched(path)
    assert not file.changed()
    change(path)
    assert [file.changed(), file.changed()] == [False, True]
    file.take()
    assert [file.changed(), file.changed()] == [False, False]


def test_a_configmap_whose_links_are_swapped_is_seen(tmp_path: Path) -> None:
    """Kubernetes: conclave.yaml -> ..data/conclave.yaml, ..data -> ..2026_1; only `..data` is replaced."""
    for generation in ("..2026_1", "..2026_2"):
        (tmp_path / generation).mkdir()
        (tmp_path / generation / "conclave.yaml").write_text(f"name: {generation}")
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "conclave.yaml").symlink_to("..data/conclave.yaml")
    file = watched(tmp_path / "conclave.yaml")
    (tmp_path / "..data_tmp").symlink_to("..2026_2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert [file.changed(), file.changed()] == [False, True]


def test_a_file_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "conclave.yaml"
    path.write_text("")
    file = watched(path)
    for part in range(5):
        with path.open("a") as being_written:
            being_written.write(f"key{part}: 1\n")
        assert not file.changed()
    assert file.changed()


def test_a_change_before_the_first_look_is_seen(tmp_path: Path) -> None:
    """Between reading the file at start and watching it."""
    path = tmp_path / "conclave.yaml"
    path.write_text("a: 1")
    before = look_at(path)
    path.write_text("a: 22")
    file = WatchedFile(path, before)
    assert file.changed()


def test_what_is_no_file_is_a_state_like_any_other_and_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "conclave.yaml"
    assert look_at(path) == "No such file or directory"
    path.mkdir()
    assert look_at(path) == "Is a directory"
    path.rmdir()
    os.mkfifo(path)
    assert look_at(path) == "Not a file"
