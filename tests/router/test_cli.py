"""`conclave router`: a line in, a line out; bad rows are named and lose nothing else."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conclave.router.classify import Router
from conclave.router.cli import router

TEXTS = ["how do I reverse a list in Python?", "what is 12 times 12", "remind me to buy milk"]


def classify(*arguments: str, stdin: bytes | str | None = None) -> Result:
    return CliRunner().invoke(router, ["classify", "--jsonl", *arguments], input=stdin)


def lines(texts: list[str], field: str = "text") -> bytes:
    return b"".join(json.dumps({"id": f"row-{n}", field: text}).encode() + b"\n" for n, text in enumerate(texts))


def test_each_row_gives_one_line_with_its_id(shipped: Router) -> None:
    done = classify("-", stdin=lines(TEXTS))
    assert done.exit_code == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["row-0", "row-1", "row-2"]
    for row, expected in zip(rows, shipped.classify_batch(TEXTS), strict=True):
        assert list(row) == ["id", "category", "confidence", "unsure", "credible", "probabilities"]
        assert row["category"] == expected.category
        assert row["confidence"] == expected.confidence
        assert row["unsure"] is expected.unsure
        assert row["credible"] == list(shipped.credible(expected))
        assert row["probabilities"] == dict(expected.probabilities)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_file_gives_what_the_same_lines_on_stdin_give(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(gzip.compress(lines(TEXTS)) if name.endswith(".gz") else lines(TEXTS))
    assert classify(str(file)).stdout == classify("-", stdin=lines(TEXTS)).stdout


def test_another_field_can_hold_the_text() -> None:
    done = classify("-", "--field", "prompt", stdin=lines(TEXTS, "prompt"))
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == len(TEXTS)


def test_a_row_without_an_id_is_named_by_its_line_number() -> None:
    done = classify("-", stdin='{"text": "a"}\n\n{"text": "b", "id": 0}\n{"text": "c"}\n')
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 0, 4]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{not json", "line 2: not JSON: "),
        (b'{"id": 5}', "no 'text'"),
        (b'{"text": 7}', "'text' is no string"),
        (b'{"text": null}', "'text' is no string"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"text": "\xff\xfe"}', "line 2"),
        (b'{"text": "a", "id": "\\ud800"}', "'id' cannot be written"),
        (b'{"text": "a", "id": {"\\udfff": 1}}', "'id' cannot be written"),
        (b'{"text": "a", "id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"text": "\\ud800", "id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
    ids=[
        *("malformed", "missing field", "number", "null", "array", "no UTF-8"),
        *("surrogate id", "surrogate in the id", "deep", "deep with a surrogate"),
    ],
)
def test_a_bad_row_is_reported_and_the_others_are_classified(bad: bytes, said: str) -> None:
    done = classify("-", stdin=b'{"text": "first"}\n' + bad + b'\n{"text": "third"}\n')
    assert done.exit_code == 1
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 3]
    assert "line 2" in done.stderr
    assert said in done.stderr


def test_a_lone_surrogate_in_a_row_is_text_like_any_other() -> None:
    done = classify("-", stdin=b'{"text": "\\ud800 hello"}\n')
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 1


def test_an_empty_file_gives_nothing_and_is_no_error() -> None:
    done = classify("-", stdin=b"")
    assert (done.exit_code, done.stdout) == (0, "")


def test_a_missing_file_is_named() -> None:
    done = classify("no-such-file.jsonl")
    assert done.exit_code == 1
    assert "no-such-file.jsonl" in done.stderr


def test_a_cut_gzip_file_is_an_error_after_its_whole_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(lines(TEXTS))[:-9])
    done = classify(str(file))
    assert done.exit_code == 1
    assert "rows.jsonl.gz" in done.stderr


def test_the_progress_bar_stays_away_from_a_pipe() -> None:
    assert classify("-", stdin=lines(TEXTS)).stderr == ""


def test_training_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['numba'] = None\n"  # as if it were not installed
        "from conclave.router.cli import router; router(['train', '--data', sys.argv[1]])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert "make install EXTRAS=train" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_evaluate_prints_a_table_and_the_same_as_json(tmp_path: Path) -> None:
    rows = [{"text": text, "category": "code", "source": "mine"} for text in TEXTS]
    file = tmp_path / "category_dev.jsonl.gz"
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    table = CliRunner().invoke(router, ["evaluate", "--data", str(tmp_path)])
    assert table.exit_code == 0
    assert "by source" in table.stdout
    report = json.loads(CliRunner().invoke(router, ["evaluate", "--data", str(tmp_path), "--json"]).stdout)
    assert report["rows"] == len(TEXTS)
    assert report["accuracy_by_source"]["mine"]["rows"] == len(TEXTS)
