"""Whoever changes the record without the key is found, and where: any byte, row, file, place."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conclave.safety.audit.chain import NO_HASH, line_of
from conclave.safety.audit.keys import SigningKey
from conclave.safety.audit.read import parse
from conclave.safety.audit.verify import verify

Changed = dict[str, bytes]


@contextmanager
def changed(written: Any, files: Changed) -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as to:
        folder = type(written)(Path(to), written.key)
        folder.journal.mkdir()
        for name, content in files.items():
            (folder.journal / name).write_bytes(content)
        yield folder.verify()


def where(report: Any) -> set[str]:
    return {fault.file for fault in report.faults}


def test_an_untouched_journal_is_intact(written: Any) -> None:
    with changed(written, written.files()) as report:
        assert report.faults == []
        assert report.rows == 8 + 5  # genesis rows and the closing row included
        assert report.chains == 2
        assert [note.split(": ")[1] for note in report.notes] == ["its process was killed; all its rows are signed"]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found_in_its_file_and_row(written: Any, data: st.DataObject) -> None:
    files = written.files()
    name = data.draw(st.sampled_from(sorted(files)))
    at = data.draw(st.integers(0, len(files[name]) - 1))
    content = bytearray(files[name])
    content[at] ^= data.draw(st.integers(1, 255))
    files[name] = bytes(content)
    with changed(written, files) as report:
        assert not report.intact
        assert name in where(report)
        if name != "heads.jsonl":
            first = int(name.split(".")[1])
            row = first + written.files()[name][:at].count(b"\n")
            assert min(fault.row for fault in report.faults if fault.file == name) == row


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_file_cut_off_at_any_byte_is_found(written: Any, data: st.DataObject) -> None:
    files = written.files()
    name = data.draw(st.sampled_from(sorted(files)))
    newest_signature = name == "heads.jsonl" and files[name].splitlines(keepends=True)[-1]
    limit = len(files[name]) - len(newest_signature or b"")  # no later row names it: see the test below
    files[name] = files[name][: data.draw(st.integers(0, limit - 1))]
    with changed(written, files) as report:
        assert not report.intact
        chain = name.split(".")[0]
        assert any(file.startswith(chain) for file in where(report))


def delete(lines: list[bytes], a: int, _b: int) -> list[bytes]:
    return lines[:a] + lines[a + 1 :]


def double(lines: list[bytes], a: int, b: int) -> list[bytes]:
    return [*lines[:b], lines[a], *lines[b:]]


def swap(lines: list[bytes], a: int, b: int) -> list[bytes]:
    lines[a], lines[b] = lines[b], lines[a]
    return lines


@pytest.mark.parametrize("change", [delete, double, swap], ids=["deleted", "repeated", "swapped"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_that_are_moved_are_found(
    written: Any, change: Callable[[list[bytes], int, int], list[bytes]], data: st.DataObject
) -> None:
    files = written.files()
    name = data.draw(st.sampled_from(sorted(name for name in files if files[name].count(b"\n") > 1)))
    lines = files[name].splitlines(keepends=True)
    a = data.draw(st.integers(0, len(lines) - 2))
    b = data.draw(st.integers(a + 1, len(lines) - 1))
    files[name] = b"".join(change(list(lines), a, b))
    with changed(written, files) as report:
        assert not report.intact
        assert any(file.startswith(name.split(".")[0]) for file in where(report))


@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["first day", "second day", "newest chain", "heads"])
def test_a_deleted_file_is_found(written: Any, which: int) -> None:
    files = written.files()
    name = sorted(files)[which]
    del files[name]
    with changed(written, files) as report:
        assert any(file.startswith(name.split(".")[0]) for file in where(report))


def test_a_whole_earlier_chain_is_missed(written: Any) -> None:
    files = written.files()
    chain = min(files).split(".")[0]
    with changed(written, {name: text for name, text in files.items() if not name.startswith(chain)}) as report:
        assert [(fault.file, fault.row) for fault in report.faults] == [(chain, None)]
        assert "rows 0 to 7 were here" in report.faults[0].what


def test_a_chain_that_is_missing_with_all_its_signatures_is_missed(written: Any) -> None:
    """The later chain's genesis row names it, and so do the links of heads.jsonl."""
    files = written.files()
    chain = min(files).split(".")[0].encode()
    heads = [line for line in files["heads.jsonl"].splitlines(keepends=True) if chain not in line]
    left = {name: text for name, text in files.items() if not name.startswith(chain.decode())}
    with changed(written, left | {"heads.jsonl": b"".join(heads)}) as report:
        assert {chain.decode(), "heads.jsonl"} <= where(report)


def test_signatures_cut_off_the_end_are_missed(written: Any) -> None:
    files = written.files()
    lines = files["heads.jsonl"].splitlines(keepends=True)
    for keep in range(len(lines)):
        with changed(written, files | {"heads.jsonl": b"".join(lines[:keep])}) as report:
            if keep == len(lines) - 1:  # no later row names the last signature: the tail is as after a kill
                assert any("row" in note and "after its last signature" in note for note in report.notes)
            else:
                assert not report.intact


def test_a_forged_chain_with_right_hashes_has_no_signature(written: Any) -> None:
    chain, prev, lines = "20990101t000000z-00000000", NO_HASH, b""
    for seq in range(3):
        line, prev = line_of({"kind": "call", "time": "2099"}, chain=chain, seq=seq, prev=prev)
        lines += line
    with changed(written, written.files() | {f"{chain}.{0:012d}.jsonl": lines}) as report:
        assert [fault.file for fault in report.faults] == [chain]
        assert "no signature" in report.faults[0].what


def test_a_rewritten_chain_with_right_hashes_does_not_fit_its_signature(written: Any) -> None:
    files = written.files()
    name = max(name for name in files if name != "heads.jsonl")
    prev, lines = NO_HASH, b""
    for seq, line in enumerate(files[name].splitlines()):
        stored = parse(line)
        assert stored is not None
        forged, prev = line_of({**stored.data, "status": 201}, chain=stored.data["chain"], seq=seq, prev=prev)
        lines += forged
    with changed(written, files | {name: lines}) as report:
        assert {(fault.file, fault.row) for fault in report.faults} == {(name, 0), (name, 4)}


def test_a_signature_of_another_key_is_not_trusted(written: Any, tmp_path: Path) -> None:
    stranger = SigningKey.open(tmp_path / "key")
    report = verify(written.journal, frozenset({stranger.public}))
    assert {fault.what for fault in report.faults} == {"signed with a key that is not trusted"}


def test_something_added_to_the_last_line_of_a_killed_process_is_found(written: Any) -> None:
    files = written.files()
    name = max(name for name in files if name != "heads.jsonl")
    for garbage in (b"x", b"{}", b'{"hash":"zz'):
        with changed(written, files | {name: files[name] + garbage}) as report:
            assert where(report) == {name}


@pytest.mark.parametrize("keep", [1, 9, 40, 73, 81, 120, -3, -2, -1], ids=str)
@pytest.mark.parametrize("zeros", [b"", b"\0" * 30], ids=["cut", "zeros after power loss"])
def test_a_torn_last_line_of_a_killed_process_is_noted(written: Any, keep: int, zeros: bytes) -> None:
    files = written.files()
    name = max(name for name in files if name != "heads.jsonl")
    last = parse(files[name].splitlines()[-1])
    assert last is not None
    line, _ = line_of({"kind": "call", "time": "x"}, chain=last.data["chain"], seq=5, prev=last.hash)
    with changed(written, files | {name: files[name] + line[:keep] + zeros}) as report:
        assert report.faults == []
        assert any("torn tail: row 5" in note for note in report.notes)
