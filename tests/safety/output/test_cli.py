"""`conclave safety scan-output`: rows for programs, an underlined text for a person."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from conclave.safety.output.cli import scan_output

CANARY = "xyzzy-canary-4711"


def run(*arguments: str, text: str = "", color: bool = False) -> tuple[int, str, str]:
    done = CliRunner().invoke(scan_output, [*arguments, "--canary", CANARY], input=text, color=color)
    return done.exit_code, done.stdout, done.stderr


def test_each_row_gets_a_line_and_bad_ones_are_named() -> None:
    rows = [{"id": "a", "answer": f"so {CANARY}"}, {"answer": "fine"}]
    status, out, err = run("--jsonl", "-", "--field", "answer", text="\n".join(map(json.dumps, rows)) + "\nno\n{}\n")
    first, second = map(json.loads, out.splitlines())
    assert (first["id"], first["action"]) == ("a", "block")
    [found] = first["findings"]
    assert (found["kind"], found["start"], found["end"]) == ("exfiltration.canary", 3, 3 + len(CANARY))
    assert found["remedy"]
    assert second == {"id": 2, "action": "allow", "findings": []}
    assert status == 1
    assert "line 3" in err
    assert "line 4: no 'answer'" in err


def test_a_person_sees_the_span_underlined_and_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "answer.md"
    file.write_text(f"one\ntwo {CANARY}\x1b[2J\n")
    status, out, _ = run(str(file), color=True)
    assert status == 1
    assert f"\x1b[4m{CANARY}" in out
    assert "\x1b[2J" not in out
    assert "line 2: exfiltration.canary (high): " in out


def test_a_clean_file_is_a_success_and_bytes_that_are_no_text_are_read(tmp_path: Path) -> None:
    file = tmp_path / "answer.md"
    file.write_bytes(b"fine \xff\xfe\n")
    assert run(str(file))[0] == 0


@pytest.mark.parametrize("arguments", [(), ("nowhere.md",), ("--jsonl", "nowhere.jsonl")])
def test_a_file_that_is_not_there_is_said(arguments: tuple[str, ...]) -> None:
    status, _, err = run(*arguments)
    assert status != 0
    assert err
