"""`conclave router solve`: the table for a person, for a program, as YAML, and what another budget would buy."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from conclave.gateway.policy.life_cli import router
from conclave.gateway.settings import load_settings

CONFIG = """\
policy:
  experts:
    small: {base_url: http://127.0.0.1:1/v1, model: s, size_b: 8, price: {input: 0.1, output: 0.1}}
    coder: {base_url: http://127.0.0.1:1/v1, model: c, size_b: 32, price: {input: 0.5, output: 0.5}}
    big: {base_url: http://127.0.0.1:1/v1, model: b, size_b: 72, price: {input: 1.5, output: 1.5}}
  routing:
    weights: {any: 0}
"""
SCORES = {
    "code": {"small": {"score": 0.5}, "coder": {"score": 0.9, "error": 0.02, "rows": 90}, "big": {"score": 0.7}},
    "math": {"small": {"score": 0.5}, "coder": {"score": 0.6}, "big": {"score": 0.8, "error": 0.02, "rows": 90}},
}
BUDGET = "    budget: {hosted_b: 104, usd_per_call: 0.001}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "c.yaml"
    file.write_text(f"{CONFIG}{BUDGET}    scores: {json.dumps(SCORES)}\n")
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(router, ["solve", *map(str, arguments)])


def told(*arguments: object) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_person_sees_the_table_its_worth_its_bound_and_its_cost(config: Path) -> None:
    done = run("--config", config)
    assert done.exit_code == 0, done.output
    assert re.search(r"^code .* coder +0\.900 +0\.020$", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^unsure, others .* (small|coder|big) ", done.stdout, flags=re.MULTILINE)
    for words in (r"^expected score +0\.\d{4}, standard error", r"no table is above 0\.\d+, gap 0\.0", r"^hosted +\w"):
        assert re.search(words, done.stdout, flags=re.MULTILINE), words
    assert re.search(r"^usd_per_call +\S+ of 0\.001", done.stdout, flags=re.MULTILINE)
    assert "one for all      coder, " in done.stdout


def test_a_program_gets_the_same(config: Path) -> None:
    found = told("--config", config, "--frontier")
    assert (found["table"]["code"], found["hosted"], found["limits"]["hosted_b"]) == ("coder", ["coder", "big"], 104)
    assert found["rows"]["code"] == ["coder", "big"]
    assert found["optimum"] == found["bound"] == found["expected"]
    assert found["uses"]["usd_per_call"] <= 0.001
    assert found["single"]["gain"] == pytest.approx(found["optimum"] - found["single"]["expected"])
    assert found["measure"] == "hosted_b"
    assert [one["hosted_b"] for one in found["frontier"]] == sorted({one["hosted_b"] for one in found["frontier"]})[
        ::-1
    ]


def test_what_it_prints_as_yaml_is_a_policy_with_the_same_rows(config: Path, tmp_path: Path) -> None:
    said = yaml.safe_load(run("--config", config, "--yaml").stdout)
    assert said["categories"] == {"code": ["coder", "big"], "math": ["big", "coder"]}
    half = yaml.safe_load(CONFIG)["policy"]
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump({"policy": {"experts": half["experts"], **said}}))
    assert load_settings(tmp_path / "plain.yaml").policy.default == tuple(said["default"])


def test_budget_worth_and_scores_can_be_tried_without_touching_the_file(config: Path, tmp_path: Path) -> None:
    before = config.read_bytes()
    assert told("--config", config, "--budget", "hosted_b=40")["hosted"] == ["coder"]
    assert told("--config", config, "--budget", "hosted_b=none", "--budget", "usd_per_call=none")["limits"] == {}
    assert told("--config", config, "--worth", "0.000001")["hosted"] == ["small"]
    other = {"code": {"small": {"score": 1.0}}, "math": {"small": {"score": 1.0}}}
    (tmp_path / "scores.json").write_text(json.dumps(other))
    assert told("--config", config, "--scores", tmp_path / "scores.json")["hosted"] == ["small"]
    assert config.read_bytes() == before


def test_scores_from_a_file_make_the_default_row_too(tmp_path: Path) -> None:
    """A default row that nobody wrote is no wish."""
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "scores.json").write_text(json.dumps(SCORES))
    found = told("--config", tmp_path / "c.yaml", "--scores", tmp_path / "scores.json")
    assert found["rows"]["default"] == ["coder", "big", "small"]


@pytest.mark.parametrize(
    ("options", "words", "status"),
    [
        (["--budget", "hosted_b=5"], "no table fits: the cheapest takes 8 billion parameters, and hosted_b is 5", 1),
        (["--budget", "hosted=5"], "'hosted' is no measure; known: hosted_b, hosted_gb", 2),
        (["--budget", "hosted_b=much"], "write a positive number after the =, or none", 2),
        (["--budget", "hosted_b=-1"], "write a positive number", 2),
        (["--budget", "hosted_b=nan"], "write a positive number", 2),
        (["--budget", "latency_ms=9"], "latency_ms of the expert 'small' is not known", 1),
        (["--frontier", "latency_ms"], "latency_ms of the expert 'small' is not known", 1),
        (["--worth", "0"], "--worth", 2),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(config: Path, options: list[str], words: str, status: int) -> None:
    done = run("--config", config, *options)
    assert (done.exit_code, words in done.output) == (status, True), done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "valid dictionary"),
        ('{"code": {"small": {"score": 1.5}}}', "code.small.score: Input should be less than or equal to 1"),
        ('{"code": {"small": {"score": 0.5, "rows": -1}}}', "code.small.rows: Input should be greater"),
        ('{"code": {"small": 0.5}}', "code.small: "),
        ('{"code": {"auto": {"score": 0.5}}}', "virtual model"),
        ("{}", "no routing.scores"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_bad_file_of_scores_is_said_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "scores.json").write_text(text)
    done = run("--config", tmp_path / "c.yaml", "--scores", tmp_path / "scores.json")
    assert (done.exit_code, words in done.output) == (1, True), done.output


def outcomes(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_outcome_data_propose_a_threshold(config: Path, tmp_path: Path) -> None:
    """Questions whose category's expert is always wrong, and the default row's right: nothing is worth following."""
    default = told("--config", config)["rows"]["default"][0]
    prompt = "Write a Python function that reverses a linked list"
    rows = [{"prompt": f"{prompt}, {n}", "scores": {"coder": 1.0, "big": 0.0, "small": 0.0}} for n in range(20)]
    rows.append({"prompt": "why?", "scores": {"somebody": 1.0}})
    found = told("--config", config, "--outcomes", outcomes(tmp_path / "o.jsonl", rows))["unsure"]
    assert (found["questions"], found["left_out"], found["below"]) == (20, 1, 0.0)
    done = run("--config", config, "--outcomes", tmp_path / "o.jsonl")
    assert re.search(r"^unsure below +0\.0000: 0\.0% of 20 questions.*1 left out", done.stdout, flags=re.MULTILINE)
    assert default in {"coder", "big", "small"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "why?", "scores": {"coder": 2}}], "row 1: the score of 'coder' is 2"),
        ([{"prompt": "why?", "scores": {"nobody": 1}}], "two questions at least"),
    ],
)
def test_outcome_data_that_say_nothing_are_refused(
    config: Path, tmp_path: Path, rows: list[dict[str, Any]], words: str
) -> None:
    done = run("--config", config, "--outcomes", outcomes(tmp_path / "o.jsonl", rows))
    assert (done.exit_code, words in done.output) == (1, True), done.output
