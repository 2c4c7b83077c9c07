"""A table made from scores and a budget, in a running gateway: what it answers, records and replays, and re-solving."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Gateway, Process, ask, launch, until

CODE = "Write a Python function that reverses a singly linked list, with a unit test."
SCORES = {
    "code": {"cheap": 0.5, "coder": 0.9, "best": 0.95},
    "math": {"cheap": 0.6, "coder": 0.6, "best": 0.9},
}
USD = {"cheap": 0.1, "coder": 1.0, "best": 9.0}  # per million tokens, and 1,000 tokens a call


def settings(upstream: Process, experts: list[str], **routing: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{upstream.port}/v1"
    table = {c: {name: {"score": score, "error": 0.01} for name, score in row.items()} for c, row in SCORES.items()}
    prices = {name: {"input": USD[name], "output": USD[name]} for name in experts}
    return {
        "server": {"policy_refresh_s": 0.1},
        "policy": {
            "experts": {name: {"base_url": url, "model": name, "price": prices[name]} for name in experts},
            "routing": {"scores": table, "weights": {"any": 0}, **routing},
        },
    }


@pytest.fixture
def gateway(upstream: Process, tmp_path: Path) -> Iterator[Gateway]:
    process = launch(tmp_path, settings(upstream, ["cheap", "coder"], budget={"usd_per_call": 0.002}))
    yield process
    process.stop()


def write(gateway: Gateway, said: dict[str, Any]) -> None:
    other = gateway.folder / ".conclave.yaml.new"
    other.write_text(json.dumps(said))
    other.replace(gateway.folder / "conclave.yaml")


def answer(gateway: Gateway) -> dict[str, Any]:
    status, _, body = gateway.post(ask("auto", CODE))
    assert status == 200, body
    explained: dict[str, Any] = json.loads(body)["conclave"]
    return explained


def test_an_expert_that_comes_or_goes_re_solves_the_table_while_the_gateway_runs(
    gateway: Gateway, upstream: Process
) -> None:
    """Nothing is retrained and nothing restarted; each answer says what its expert was expected to score."""
    first = answer(gateway)
    assert (first["expert"], first["reason"], first["expected"]) == ("coder", "category", 0.9)
    everybody = ["cheap", "coder", "best"]
    write(gateway, settings(upstream, everybody, budget={"usd_per_call": 0.02}))
    until(lambda: answer(gateway)["expert"] == "best", "the new expert is in the table")
    write(gateway, settings(upstream, everybody, budget={"usd_per_call": 0.0001}))
    until(lambda: answer(gateway)["expert"] == "cheap", "with next to no budget the cheap one serves")
    write(gateway, settings(upstream, ["best", "cheap"], pins={"code": "best"}, budget={"usd_per_call": 0.01}))
    until(lambda: answer(gateway)["reason"] == "pin", "a pin wins")
    numbers = gateway.cli("policy", "list", "--json").stdout.splitlines()
    assert len(numbers) == 4


def test_a_budget_that_nothing_keeps_changes_nothing_and_is_said_with_its_line(
    gateway: Gateway, upstream: Process
) -> None:
    write(gateway, settings(upstream, ["cheap", "coder"], budget={"usd_per_call": 1e-9}))
    until(lambda: "policy.rejected" in gateway.output(), "the file is refused")
    assert "no table fits: the cheapest takes 0.0001 USD a call" in gateway.output()
    assert answer(gateway)["expert"] == "coder"


def test_a_decision_made_from_scores_is_recorded_whole_and_replayed_bit_for_bit(
    gateway: Gateway, upstream: Process
) -> None:
    explained = answer(gateway)
    row = gateway.row(explained["request_id"])
    decision = row["decision"]
    assert decision["expected"] == {"coder": 0.9, "cheap": 0.5}
    assert [step["expert"] for step in decision["steps"]] == ["coder", "cheap"]
    assert {"category", "confidence", "probabilities", "runner_up"} <= decision.keys()
    write(gateway, settings(upstream, ["cheap"]))  # a later policy is not what decides again
    until(lambda: answer(gateway)["expert"] == "cheap", "the policy changed")
    replayed = gateway.cli("router", "replay", explained["request_id"])
    assert (replayed.returncode, replayed.stdout.strip()) == (0, "same"), replayed.stderr


def test_the_command_that_solves_says_what_the_gateway_does(gateway: Gateway) -> None:
    done = gateway.cli("router", "solve", "--config", "conclave.yaml", "--json")
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)["table"]
    assert table["code"] == answer(gateway)["expert"]
