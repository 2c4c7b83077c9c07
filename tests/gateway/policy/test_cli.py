"""`conclave check-config` and `conclave route`, as a person and as a program see them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from conclave.gateway.policy.cli import check_config, route
from conclave.gateway.policy.part import CATEGORIES

FILE = """
policy:
  name: mine
  experts:
    fast: {base_url: http://h/v1, model: tiny, price: {input: 1, output: 1}}
    strong: {model: big, deployments: [{base_url: http://i/v1}, {base_url: http://j/v1}], api_key_env: NO_SUCH_KEY}
  categories:
    code: [strong, fast]
  aliases: {gpt-4o: auto}
  tenants: {acme: {experts: [fast]}}
"""
CODE = "Write a Python function that reverses a linked list, with type hints and unit tests."


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST", "VLLM_BASE_URL", "CONCLAVE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    Path("mine.yaml").write_text(FILE)


def run(command: Any, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_a_right_file_is_shown_on_one_screen() -> None:
    done = run(check_config, "mine.yaml")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) < 25
    for line in (
        "  fast                 tiny at http://h/v1",
        "  strong               big at http://i/v1 and 1 more",
        "  quoting              quotes documents",
        "  encoder              embeds texts",
        "  code                 strong, then fast",
        "  default              fast, then strong",
        "  gpt-4o               auto",
        "tenants        acme",
    ):
        assert line in done.stdout.splitlines()
    assert "warning: mine.yaml:6: policy.experts.strong" in done.stderr


def test_a_provider_has_no_place_where_none_is_said() -> None:
    text = "policy: {experts: {claude: {kind: litellm, model: anthropic/claude-haiku-4-5}}}"
    Path("claude.yaml").write_text(text)
    done = run(check_config, "claude.yaml")
    assert "  claude               anthropic/claude-haiku-4-5" in done.stdout.splitlines()


def test_a_wrong_file_exits_with_one_and_names_each_problem() -> None:
    Path("wrong.yaml").write_text("server:\n  prot: 1\npolicy:\n  default: [nobody]\n")
    done = run(check_config, "wrong.yaml")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "wrong.yaml:2: server.prot: unknown key; did you mean 'port'?",
        "wrong.yaml:4: policy.default[0]: unknown expert 'nobody'; known: encoder, quoting",
        "2 problems",
    ]


def test_without_a_file_the_defaults_are_shown() -> None:
    done = run(check_config)
    assert done.exit_code == 0
    assert "configuration  none: the defaults" in done.stdout


def test_a_route_is_explained_for_a_person() -> None:
    done = run(route, CODE, "--config", "mine.yaml")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert re.match(r"category   code, confidence [01]\.\d\d", lines[0])
    assert "row        code: the row of the question's category" in lines
    assert "expert     strong" in lines
    assert "fallbacks  fast" in lines
    assert any(line.startswith("cues       ") for line in lines)


def test_a_route_is_one_json_object_for_a_program() -> None:
    done = run(route, CODE, "--config", "mine.yaml", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["expert"], said["fallbacks"], said["reason"], said["row"]) == ("strong", ["fast"], "category", "code")
    assert (said["category"], said["unsure"]) == ("code", False)
    assert sorted(said["probabilities"]) == sorted(CATEGORIES)
    assert sum(said["probabilities"].values()) == pytest.approx(1)
    assert said["cues"]
    assert len(said["policy"]) == len(said["model"]) == 64


@pytest.mark.parametrize(
    ("model", "expert", "reason"),
    [
        pytest.param("gpt-4o", "strong", "category", id="alias"),
        pytest.param("auto:cheap", "fast", "cheapest", id="cheap"),
        pytest.param("quoting", "quoting", "named", id="named"),
    ],
)
def test_a_route_depends_on_the_model_asked_for(model: str, expert: str, reason: str) -> None:
    said = json.loads(run(route, CODE, "--config", "mine.yaml", "--json", "--model", model).stdout)
    assert (said["expert"], said["reason"]) == (expert, reason)


def test_a_question_without_a_category_is_routed_by_default() -> None:
    said = json.loads(run(route, "", "--config", "mine.yaml", "--json").stdout)
    assert (said["expert"], said["reason"], said["category"], said["cues"]) == ("fast", "no_text", None, [])


def test_a_model_that_is_not_there_is_named() -> None:
    done = run(route, CODE, "--config", "mine.yaml", "--model", "stong")
    assert done.exit_code == 1
    assert "there is no model 'stong'; did you mean 'strong'? There are: auto, " in done.stderr
