"""`conclave safety authorise`: by the rules that hold without a policy, or by those of a configuration."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from conclave.gateway.cli import main

TOOL = {"type": "function", "function": {"name": "pay", "description": "Pays.", "parameters": {"type": "object"}}}
ROW = {
    "id": "r1",
    "messages": [{"role": "user", "content": "Pay 5 to Bob."}],
    "tools": [TOOL],
    "call": {"name": "pay", "arguments": {"amount": 5}},
}
RULES: dict[str, Any] = {"rules": {"pay": {"action": "block"}}}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "calls.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    return file


def run(rows: Path, policy: dict[str, Any] | None = None, *args: str) -> Result:
    command = ["safety", "authorise", "--jsonl", str(rows)]
    if policy is not None:
        config = rows.with_name("conclave.yaml")
        config.write_text(json.dumps({"policy": policy}))
        command += ["--config", str(config)]
    return CliRunner().invoke(main, [*command, *args])


def decided(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = msgspec.json.decode(result.stdout)
    return {name: found[name] for name in ("decision", "would", "reasons") if name in found}


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (None, {"decision": "allow", "reasons": []}),
        ({}, {"decision": "allow", "reasons": []}),
        ({"tools": RULES}, {"decision": "block", "reasons": ["toolcall.forbidden_tool"]}),
        (
            {"tools": RULES, "stages": {"guard": "observe"}},
            {"decision": "allow", "would": "block", "reasons": ["toolcall.forbidden_tool"]},
        ),
        ({"tools": RULES, "stages": {"guard": "off"}}, {"decision": "allow", "reasons": []}),
        (
            {"tools": {"pins": {"pay": "0" * 64}}},
            {"decision": "block", "reasons": ["toolcall.changed_description"]},
        ),
        (
            {"tools": {"pins": {"pay": "0" * 64}}, "stages": {"guard": "observe"}},
            {"decision": "allow", "would": "block", "reasons": ["toolcall.changed_description"]},
        ),
    ],
    ids=["no policy", "nothing said", "a rule", "observed", "off", "a pin", "a pin, observed"],
)
def test_a_policy_decides_as_the_gateway_would(rows: Path, policy: dict[str, Any] | None, said: dict[str, Any]) -> None:
    assert decided(run(rows, policy)) == said


def test_a_tenants_own_rules_are_taken_for_it_alone(rows: Path) -> None:
    policy = {"tools": RULES, "tenants": {"shop": {"tools": {}}, "desk": {"stages": {"guard": "off"}}}}
    assert decided(run(rows, policy))["decision"] == "block"
    assert decided(run(rows, policy, "--tenant", "shop"))["decision"] == "allow"
    assert decided(run(rows, policy, "--tenant", "desk"))["decision"] == "allow"


@pytest.mark.parametrize(
    ("policy", "args", "status", "said"),
    [
        ({"tools": {"ruless": {}}}, (), 1, "ruless"),
        ({"tenants": {"shop": {}}}, ("--tenant", "shopp"), 2, "it has for: shop"),
        (None, ("--tenant", "shop"), 2, "--config FILE"),
        (None, ("--config", "/nowhere/conclave.yaml"), 1, "nowhere"),
    ],
    ids=["misspelt", "no such tenant", "a tenant of no policy", "no file"],
)
def test_what_cannot_be_meant_says_why(
    rows: Path, policy: dict[str, Any] | None, args: tuple[str, ...], status: int, said: str
) -> None:
    failed = run(rows, policy, *args)
    assert failed.exit_code == status
    assert said in failed.stderr
    assert failed.stdout == ""
