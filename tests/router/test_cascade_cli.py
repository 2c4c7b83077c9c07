"""`conclave router calibrate-cascade`: the threshold for the policy, or why there is none."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from conclave.gateway.policy.document import PolicyDocument
from conclave.router.cascade_cli import calibrate_cascade


def pairs(*, informative: bool = True) -> list[dict[str, Any]]:
    """200 questions; the weak expert's confidence is the chance that it is right, or nothing at all."""
    rng = random.Random(1)
    rows = []
    for _ in range(400):
        sure = rng.random()
        right = rng.random() < (sure if informative else 0.6)
        rows.append({"confidence": sure, "weak": int(right), "strong": 1, "weak_usd": 0.001, "strong_usd": 0.01})
    return rows


def run(folder: Path, rows: list[Any], *options: str) -> Result:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CliRunner().invoke(calibrate_cascade, [str(file), *options])


def test_what_it_prints_is_a_part_of_a_policy(tmp_path: Path) -> None:
    found = run(tmp_path, pairs())
    assert found.exit_code == 0, found.output
    policy = PolicyDocument.model_validate(yaml.safe_load(found.output[found.output.index("routing:") :]))
    assert policy.routing.cascade is not None
    assert 0 < policy.routing.cascade.below < 1
    assert policy.routing.cascade.curve


def test_a_confidence_that_says_nothing_gives_no_threshold(tmp_path: Path) -> None:
    found = run(tmp_path, pairs(informative=False))
    assert found.exit_code == 0
    assert "does not pay" in found.output
    assert "routing:" not in found.output


def test_a_program_gets_the_same_as_json(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, pairs(), "--json", "--usd-per-score", "0.05").output)
    assert found["pays"] is True
    assert found["pairs"] == 400
    assert 0 < found["at"]["escalated"] < 1


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"confidence": 0.5, "weak": 1}, "no 'strong'"),
        ({"confidence": "0.5", "weak": 1, "strong": 1}, "'confidence' is no number"),
        ({"confidence": 1.5, "weak": 1, "strong": 1}, "confidence is 1.5, and must be within 0 to 1"),
        ({"confidence": 0.5, "weak": True, "strong": 1}, "'weak' is no number"),
        ({"confidence": 0.5, "weak": 1, "strong": 1, "weak_usd": -1}, "weak_usd is -1.0, and must be 0 or more"),
        ({"confidence": 10**400, "weak": 1, "strong": 1}, "'confidence' is too large"),
        ({"confidence": 0.5, "weak": 1, "strong": 1, "weak_usd": 1e308}, "weak_usd is 1e+308, and must be 0 or more"),
        ([], "not a JSON object"),
    ],
    ids=["missing", "text", "beyond", "flag", "negative-cost", "huge", "huge-cost", "list"],
)
def test_a_bad_row_is_named_with_its_line_and_nothing_is_fitted(tmp_path: Path, row: Any, words: str) -> None:
    found = run(tmp_path, [*pairs(), row])
    assert found.exit_code == 1
    assert f"line 401: {words}" in found.output
    assert "routing:" not in found.output


@pytest.mark.parametrize(
    "option", [("--recover", "nan"), ("--usd-per-score", "nan"), ("--usd-per-score", "inf")], ids=lambda one: one[1]
)
def test_an_aim_that_is_no_number_is_refused(tmp_path: Path, option: tuple[str, str]) -> None:
    found = run(tmp_path, pairs(), *option)
    assert found.exit_code == 2
    assert "no number to reckon with" in found.output


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    found = run(tmp_path, pairs()[:5])
    assert found.exit_code == 1
    assert "too few" in found.output
