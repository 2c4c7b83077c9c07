"""Outcome files: what is read, and that every bad row is named by file and number and nothing is used of its file."""

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from conclave.router.cli import router
from conclave.router.outcomes import NAMED_ROWS, ROW_BYTES, BadRows, Graded, experts_of, read_outcomes

GOOD = '{"id": "a", "prompt": "2 + 2?", "scores": {"small": 1, "large": 0.5}}'


def written(folder: Path, *lines: str | bytes, name: str = "rows.jsonl") -> Path:
    file = folder / name
    data = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines)
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return file


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_row_is_read_with_all_that_it_says(tmp_path: Path, name: str) -> None:
    line = json.dumps(
        {
            "id": 7,
            "prompt": "why?",
            "category": "math",
            "dataset": "d",
            "subset": "s",
            "scores": {"a": 0, "b": 0.25, "c": None},
            "cost": {"a": 0.001, "b": 0},
            "source": "ignored",
        }
    )
    (row,) = read_outcomes([written(tmp_path, line, "", name=name)])
    assert row == Graded("why?", {"a": 0.0, "b": 0.25}, "7", "math", "d", "s", {"a": 0.001, "b": 0.0})


def test_one_cost_is_every_experts(tmp_path: Path) -> None:
    line = '{"prompt": "x", "scores": {"a": 1, "b": 0}, "cost": 0.5}'
    assert read_outcomes([written(tmp_path, line)])[0].cost == {"a": 0.5, "b": 0.5}


def test_an_expert_that_a_row_does_not_name_is_missing_there_only(tmp_path: Path) -> None:
    rows = read_outcomes([written(tmp_path, GOOD, '{"prompt": "x", "scores": {"third": 1}}')])
    assert [sorted(row.scores) for row in rows] == [["large", "small"], ["third"]]
    assert experts_of(rows) == ("large", "small", "third")


BAD = {
    "no object": ("[1]", "not a JSON object"),
    "no JSON": ("{prompt", "not JSON"),
    "no UTF-8": (b'{"prompt": "\xff", "scores": {"a": 1}}', "not JSON"),
    "nested": ("[" * 100_000, "nested too deeply"),
    "no prompt": ('{"scores": {"a": 1}}', "there is none"),
    "empty prompt": ('{"prompt": " \\n", "scores": {"a": 1}}', "not empty"),
    "prompt of a wrong type": ('{"prompt": 5, "scores": {"a": 1}}', "must be a text"),
    "no scores": ('{"prompt": "x"}', "'scores' must be an object"),
    "scores of a list": ('{"prompt": "x", "scores": [1]}', "'scores' must be an object"),
    "nobody asked": ('{"prompt": "x", "scores": {"a": null}}', "no expert"),
    "NaN": ('{"prompt": "x", "scores": {"a": NaN}}', "the score of 'a' is nan"),
    "infinite": ('{"prompt": "x", "scores": {"a": Infinity}}', "the score of 'a' is inf"),
    "above 1": ('{"prompt": "x", "scores": {"a": 1.01}}', "from 0 to 1"),
    "below 0": ('{"prompt": "x", "scores": {"a": -0.1}}', "from 0 to 1"),
    "a word": ('{"prompt": "x", "scores": {"a": "good"}}', "from 0 to 1"),
    "a flag": ('{"prompt": "x", "scores": {"a": true}}', "from 0 to 1"),
    "negative cost": ('{"prompt": "x", "scores": {"a": 1}, "cost": -1}', "the cost of 'a'"),
    "infinite cost": ('{"prompt": "x", "scores": {"a": 1}, "cost": {"a": Infinity}}', "the cost of 'a'"),
    "id of a wrong type": ('{"id": [], "prompt": "x", "scores": {"a": 1}}', "'id'"),
    "category of a wrong type": ('{"category": 3, "prompt": "x", "scores": {"a": 1}}', "'category'"),
    "taken id": (GOOD, "the id 'a' is taken by"),
}


@pytest.mark.parametrize(("line", "said"), BAD.values(), ids=BAD.keys())
def test_a_bad_row_is_named_by_file_and_number(tmp_path: Path, line: str | bytes, said: str) -> None:
    file = written(tmp_path, GOOD, "", line)
    with pytest.raises(BadRows) as told:
        read_outcomes([file])
    assert told.value.total == 1
    assert told.value.named[0].startswith(f"{file}: row 3: ")
    assert said in told.value.named[0]


def test_an_id_is_unique_over_all_files_read_together(tmp_path: Path) -> None:
    first, second = written(tmp_path, GOOD), written(tmp_path, GOOD, name="more.jsonl")
    with pytest.raises(BadRows, match=r"taken by .*rows.jsonl: row 1"):
        read_outcomes([first, second])


def test_all_bad_rows_are_named_up_to_a_bound_and_all_are_counted(tmp_path: Path) -> None:
    with pytest.raises(BadRows) as told:
        read_outcomes([written(tmp_path, GOOD, *["{}"] * (NAMED_ROWS + 20))])
    assert len(told.value.named) == NAMED_ROWS
    assert told.value.total == NAMED_ROWS + 20
    assert str(told.value).endswith("... and 20 more")


def test_a_file_without_rows_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="no row"):
        read_outcomes([written(tmp_path, "")])


def test_a_file_cut_short_is_told_at_the_row_where_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(GOOD.encode() + b"\n")[:-9])
    with pytest.raises(BadRows, match="cannot be read on"):
        read_outcomes([file])


def test_a_row_without_an_end_is_refused_and_not_kept_in_memory_whole(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="longer than 8 MiB"):
        read_outcomes([written(tmp_path, b"x" * (ROW_BYTES + 5))])


def test_what_a_terminal_would_obey_is_not_repeated(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "x", "scores": {"\x1b[2J" + "y" * 300: 2}})
    with pytest.raises(BadRows) as told:
        read_outcomes([written(tmp_path, line)])
    assert "\x1b" not in str(told.value)
    assert len(told.value.named[0]) < len(str(tmp_path)) + 250


def test_fit_refuses_a_file_with_bad_rows_and_writes_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD, '{"prompt": "x", "scores": {"a": 7}}')
    done = CliRunner().invoke(router, ["fit", "--outcomes", str(file), "--out", str(tmp_path / "head")])
    assert done.exit_code == 1
    assert f"{file}: row 2: the score of 'a' is 7" in done.stderr
    assert "1 bad row: nothing was made" in done.stderr
    assert not (tmp_path / "head").exists()


def test_without_a_head_a_row_that_names_its_category_needs_no_prompt(tmp_path: Path) -> None:
    """As `conclave router outcomes` writes the rated calls of a gateway that keeps no text."""
    live = [
        json.dumps({"id": str(at), "category": "code", "scores": {"large" if at % 2 else "small": at % 2 or 0.2}})
        for at in range(60)
    ]
    prompted = '{"prompt": "Write a Python function that sorts a list.", "scores": {"small": 0.5}}'
    file = written(tmp_path, *live, prompted)
    with pytest.raises(BadRows, match="'prompt' must be a text"):
        read_outcomes([file])
    done = CliRunner().invoke(router, ["fit", "--scores-only", "--outcomes", str(file), "--out", str(tmp_path / "x")])
    assert done.exit_code == 0, done.output
    table = json.loads((tmp_path / "x" / "scores.json").read_text())
    assert table == json.loads(done.stdout)
    assert table["code"]["large"]["score"] > 0.9
    assert table["code"]["small"]["score"] < 0.4
    assert (table["code"]["large"]["rows"], table["any"]["small"]["rows"]) == (30, 31)


@pytest.mark.parametrize(
    "row", ['{"scores": {"a": 1}}', '{"prompt": "", "category": "code", "scores": {"a": 1}}'], ids=["bare", "empty"]
)
def test_a_row_without_prompt_and_category_is_refused_there_too(tmp_path: Path, row: str) -> None:
    with pytest.raises(BadRows, match="'prompt' must be a text"):
        read_outcomes([written(tmp_path, row)], bare=True)
