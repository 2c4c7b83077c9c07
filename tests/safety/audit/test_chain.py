"""The format: what docs/audit.md promises to whoever writes a verifier of their own."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.safety.audit.chain import canonical, is_torn, line_of, segments
from conclave.safety.audit.keys import is_signed

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), values))
def test_a_row_reads_back_as_it_was_with_sorted_keys(row: dict[str, Any]) -> None:
    line, digest = line_of(row, chain="c", seq=7, prev="0" * 64)
    read = json.loads(line)
    assert list(read) == ["hash", "row"]
    keys = list(read["row"])
    assert keys == sorted(keys)
    assert read["row"] == {**row, "chain": "c", "seq": 7, "prev": "0" * 64}
    assert read["hash"] == digest


def test_other_software_can_follow_the_chain(written: Any) -> None:
    """A verifier in ten lines, without ours: hash the bytes between `"row":` and the last brace."""
    for parts in segments(written.journal).values():
        seq, prev = 0, "0" * 64
        for part in parts:
            for line in part.path.read_bytes().splitlines():
                body = line[line.index(b'"row":') + 6 : -1]
                row = json.loads(body)
                assert (row["seq"], row["prev"]) == (seq, prev)
                prev = hashlib.sha256(body).hexdigest()
                assert json.loads(line)["hash"] == prev
                seq += 1


def test_other_software_can_check_the_signatures(written: Any) -> None:
    prev = "0" * 64
    for line in (written.journal / "heads.jsonl").read_bytes().splitlines():
        signed = line[len(b'{"entry":') : line.index(b',"sig":')]
        entry = json.loads(signed)
        assert entry["prev"] == prev
        assert is_signed(signed, json.loads(line)["sig"], by=entry["key"], trusted=[written.key.public])
        assert not is_signed(signed + b" ", json.loads(line)["sig"], by=entry["key"], trusted=[written.key.public])
        prev = hashlib.sha256(line).hexdigest()


def test_canonical_json_is_sorted_at_every_level_and_tight() -> None:
    assert canonical({"b": [{"z": 1.5, "a": None}], "a": "é"}) == '{"a":"é","b":[{"a":null,"z":1.5}]}'.encode()


@pytest.mark.parametrize("cut", [0, 5, 40, 75, 100, -1], ids=str)
def test_the_beginning_of_a_line_is_torn_and_a_whole_one_with_more_is_not(cut: int) -> None:
    line, _ = line_of({"kind": "call", "inner": {"a": {}}}, chain="c", seq=0, prev="0" * 64)
    assert is_torn(line[:cut])
    assert is_torn(line[:-1])
    assert not is_torn(line[:-1] + b"}")
    assert not is_torn(b"x" + line[:cut])


def test_files_with_other_names_are_no_segments(tmp_path: Path) -> None:
    for name in ("heads.jsonl", "20260301t000000z-00000000.jsonl", "20260301t000000z-0000000g.000000000000.jsonl"):
        (tmp_path / name).touch()
    assert segments(tmp_path) == {}
