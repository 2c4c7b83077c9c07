"""The policy's `tools`: its shape, what it compiles to, and what becomes of requests and answers under it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.call import ModelRequest
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.tools import ToolGate, ToolsSettings, compiled
from conclave.safety.api import Action, Origin, Segment
from conclave.safety.output.api import Ruling, ToolCall
from conclave.safety.toolcalls.api import Tool, ToolRule, ToolRules
from conclave.safety.toolcalls.pins import Pins, digest_of

GRANT = Grant("acme", "k1", Scope(), 0.0)
TOOL = {"type": "function", "function": {"name": "pay", "description": "Pays.", "parameters": {"type": "object"}}}
DATA = Segment(Origin.TOOL, "x", "x", "messages[1].content")


def request(*tools: Any) -> ModelRequest:
    return ModelRequest({"tools": list(tools), "messages": []}, "auto", False, False, frozenset())


def gate(mode: Any = "on", **settings: Any) -> ToolGate:
    return compiled(ToolsSettings.model_validate(settings), mode)


def ruled(rule: Mapping[str, Any], arguments: Any) -> list[str]:
    authorise = gate(rules={"pay": rule}).authorise(request(TOOL), [], None)
    assert authorise is not None
    return [one.kind for one in authorise(ToolCall("pay", json.dumps(arguments))).findings]


SCHEMA = {
    "type": "object",
    "properties": {
        "to": {"type": "string", "pattern": "^(a+)+$"},
        "items": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["to"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [({"to": "aaa"}, True), ({"to": "aab"}, False), ({}, False), ({"to": "a", "x": 1}, False), ({"to": 3}, False),
     ({"to": "a", "items": [1, "b"]}, False), ([], False), (None, False), ({"to": "a" * 200_000 + "b"}, False)],
)  # fmt: skip
def test_arguments_must_fit_the_rules_schema(arguments: Any, fits: bool) -> None:
    assert ruled({"arguments": SCHEMA}, arguments) == ([] if fits else ["toolcall.schema"])


@pytest.mark.parametrize(
    "rule",
    [{"arguments": {"type": "objekt"}}, {"arguments": {"$ref": "http://127.0.0.1:9/x"}},
     {"arguments": {"pattern": "("}},
     {"side_effect": "boom"}, {"egress": ["https://a.example"]}, {"action": "maybe"}, {"most_calls": -1}, {"x": 1}],
    ids=["type", "remote", "pattern", "effect", "domain", "action", "calls", "unknown"],
)  # fmt: skip
def test_what_is_no_rule_is_refused_when_the_policy_is_read(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PolicyDocument.model_validate({"tools": {"rules": {"pay": rule}}})


def test_a_judge_that_breaks_while_it_only_observes_refuses_no_call() -> None:
    """Where it acts, the guard takes the same for a call that nobody could judge."""

    def broken(_: object) -> str | None:
        raise RuntimeError("a schema library's bug")

    def authorised(*, observe: bool) -> Ruling:
        rules = ToolRules({"pay": ToolRule(fits=broken)}, observe=observe)
        authorise = ToolGate(rules).authorise(request(TOOL), [], None)
        assert authorise is not None
        return authorise(ToolCall("pay", "{}"))

    seen = authorised(observe=True)
    assert (seen.action, seen.acted, seen.would) == (Action.ALLOW, (), Action.BLOCK)
    assert [one.kind for one in seen.findings] == ["check_failed"]
    with pytest.raises(RuntimeError):
        authorised(observe=False)


def test_addresses_outside_the_rules_domains_wait() -> None:
    rule = {"egress": ["corp.example"]}
    assert ruled(rule, {"url": "https://api.corp.example/x", "cc": "a@corp.example"}) == []
    assert ruled(rule, {"url": "https://corp.example.evil.example/x"}) == ["toolcall.egress"]
    assert ruled(rule, {"url": "https://corp.example@evil.example/x"}) == ["toolcall.egress"] * 2
    assert ruled(rule, {"text": ["write to b@evil.example"]}) == ["toolcall.egress"]


def test_without_rules_only_answers_beside_data_are_judged() -> None:
    assert gate().authorise(request(TOOL), [], None) is None
    assert gate().authorise(request(TOOL), [DATA], None) is not None
    assert gate().authorise(request(), [DATA], None) is None
    assert gate("off").authorise(request(TOOL), [DATA], None) is None
    assert gate(rules={"x": {}}).authorise(request(TOOL), [], None) is not None


def test_a_tool_that_is_not_what_was_pinned_is_refused() -> None:
    digest = digest_of(Tool("pay", "Pays.", {"type": "object"}))
    pinned = gate(pins={"pay": digest})
    assert pinned.look(request(TOOL), GRANT, Pins()).action is Action.ALLOW
    other = {**TOOL, "function": {**TOOL["function"], "description": "Pays twice."}}  # type: ignore[dict-item]
    assert pinned.look(request(other), GRANT, Pins()).action is Action.BLOCK
    assert gate("observe", pins={"pay": digest}).look(request(other), GRANT, Pins()).action is Action.ALLOW


@pytest.mark.parametrize(
    ("changed", "action", "acted"),
    [("observe", Action.ALLOW, 0), ("annotate", Action.ANNOTATE, 1), ("block", Action.BLOCK, 1)],
)
def test_a_tool_that_is_not_what_this_caller_first_sent(changed: str, action: Action, acted: int) -> None:
    seen, watching = Pins(), gate(changed=changed)
    other = {**TOOL, "function": {**TOOL["function"], "description": "Pays twice."}}  # type: ignore[dict-item]
    assert not watching.look(request(TOOL), GRANT, seen).findings
    verdict = watching.look(request(other), GRANT, seen)
    assert (verdict.action, len(verdict.findings), len(verdict.acted)) == (action, 1, acted)
    assert not watching.look(request(other), replace(GRANT, tenant="other"), seen).findings
