"""`conclave safety signatures check` says whether a pack can be used, and what it hits."""

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from conclave.safety.cli import safety

PACK = """\
rules:
  - name: heron
    literals: [Project Heron]
  - name: leak
    pattern: 'INT-\\d+'
    begins: [INT-]
    directions: [answer]
"""


@pytest.fixture
def pack(tmp_path: Path) -> str:
    path = tmp_path / "pack.yaml"
    path.write_text(PACK)
    return str(path)


def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
    done = CliRunner().invoke(safety, ["signatures", "check", *words], input=stdin)
    return done.exit_code, done.stdout, done.stderr


def test_the_rules_of_a_pack_are_listed(pack: str) -> None:
    code, out, _ = run(pack)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["rule", "heron", "leak"]


def test_what_a_pack_hits_in_a_file_is_counted(pack: str, tmp_path: Path) -> None:
    texts = ["nothing", "about project heron", "see INT-12", "project heron INT-1"]
    file = tmp_path / "texts.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(json.dumps({"said": text}) for text in texts).encode()))
    code, out, _ = run(pack, "--jsonl", str(file), "--field", "said", "--json")
    found = json.loads(out)
    assert code == 0
    assert [(rule["name"], rule["rows"], rule["lines"]) for rule in found["rules"]] == [
        ("heron", 2, [2, 4]),
        ("leak", 2, [3, 4]),
    ]
    assert (found["rows"], found["rows_hit"], found["rows_bad"]) == (4, 3, 0)
    assert "3 of 4 rows hit (75.00%)" in run(pack, "--jsonl", str(file), "--field", "said")[1]


def test_a_bad_row_is_named_and_the_others_are_tried(pack: str) -> None:
    code, out, err = run(pack, "--jsonl", "-", stdin='{"text": "Project Heron"}\nnonsense\n{"text": 7}\n')
    assert code == 1
    assert "1 of 1 rows hit" in out
    assert ("-: line 2:" in err, "-: line 3: 'text' is no string" in err) == (True, True)


def test_a_pack_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pack.yaml"
    path.write_text("rules:\n  - name: a\n    pattern: '('\n  - name: b\n")
    code, out, err = run(str(path))
    assert (code, out) == (1, "")
    assert f"{path}:3: pattern: RE2 does not take it" in err
    assert f"{path}:4: pattern: is missing" in err


def test_the_shipped_pack_is_known_by_its_name() -> None:
    code, out, _ = run("shipped")
    assert code == 0
    assert "chatml_turn" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(("nowhere.yaml",), "cannot be read"), (("shipped", "--origin", "users"), "'users' is none of system")],
    ids=["no file", "no origin"],
)
def test_what_cannot_be_meant_is_said(words: tuple[str, ...], complaint: str) -> None:
    code, _, err = run(*words)
    assert code != 0
    assert complaint in err
