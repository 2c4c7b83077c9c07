"""The defences of a policy, compiled: what goes on to the experts, for all tenants and for one."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.call import ModelRequest
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.screening import OPEN, Screened, maker
from conclave.router.api import Classification
from conclave.safety.api import Action

SURE = Classification("math", 0.9, False, {"math": 0.9, "law": 0.1})


def unseen(text: str) -> str:
    return "".join(chr(0xE0000 + ord(character)) for character in text)


def version(**policy: Any) -> Version:
    document = PolicyDocument.model_validate(policy)
    return Version(document, Pool({}), classify=lambda _: SURE, model_digest="d", checks=maker(lambda _: [1, 2, 3]))


def screened(policy: Version, *texts: str, tenant: str = "t") -> Screened:
    messages = [{"role": "user", "content": text} for text in texts]
    body = {"model": "auto", "messages": messages}
    request = ModelRequest(body=body, model="auto", stream=False, include_usage=False, needs=frozenset())
    rules = policy.rules_for(tenant)
    return rules.screen(request, rules.read(request), tenant)


def contents(found: Screened) -> list[str]:
    return [message["content"] for message in found.request.body["messages"]]


def test_what_is_redacted_is_not_in_what_an_expert_is_sent() -> None:
    policy = version(defences=[{"check": "hidden", "action": "redact"}])
    found = screened(policy, "plain", f"look{unseen('steal')} here")
    assert contents(found) == ["plain", "look[hidden removed] here"]
    assert [segment.text for segment in found.segments] == contents(found)
    assert found.verdict.action is Action.REDACT


@pytest.mark.parametrize("action", ["observe", "annotate", "block"])
def test_no_other_action_changes_the_request(action: str) -> None:
    text = f"look{unseen('steal')} here"
    found = screened(version(defences=[{"check": "hidden", "action": action}]), text)
    assert contents(found) == [text]
    assert len(found.verdict.findings) == 1


def test_a_clean_request_goes_on_as_the_same_object() -> None:
    found = screened(version(defences=[{"check": "hidden", "action": "redact"}]), "plain")
    assert (found.verdict.action, found.verdict.findings) == (Action.ALLOW, ())
    assert found.request.body["messages"][0]["content"] == "plain"


def test_without_a_check_nothing_looks() -> None:
    assert version(defences=[]).rules_for("t").screen is OPEN
    assert version(defences=[{"check": "hidden", "action": "off"}]).rules_for("t").screen is OPEN
    assert version(stages={"detect": "off"}).rules_for("t").screen is OPEN


def test_a_tenant_may_have_checks_of_its_own() -> None:
    policy = version(
        defences=[{"check": "hidden", "action": "block"}],
        tenants={
            "lab": {"defences": [{"check": "hidden", "action": "annotate"}]},
            "shop": {"stages": {"detect": "observe"}},
        },
    )
    text = unseen("steal")
    assert screened(policy, text).verdict.action is Action.BLOCK
    assert screened(policy, text, tenant="lab").verdict.action is Action.ANNOTATE
    assert screened(policy, text, tenant="shop").verdict.action is Action.ALLOW
    assert len(screened(policy, text, tenant="shop").verdict.findings) == 1


MAIL = "anna.berg@nordwind.org"
KEEPS = {"check": "pii", "action": "redact", "reversible": True}


def test_what_is_reversible_is_a_placeholder_that_the_callers_vault_turns_back() -> None:
    found = screened(version(defences=[KEEPS]), f"Write to {MAIL}!")
    [sent] = contents(found)
    assert re.fullmatch(r"Write to \[EMAIL_[A-Z2-7]{8}\]!", sent)
    assert found.segments[0].text == sent
    assert found.vault is not None
    assert found.vault.restore(sent) == f"Write to {MAIL}!"


def test_a_placeholder_is_the_same_in_every_turn_of_a_conversation_and_in_no_other() -> None:
    policy = version(defences=[KEEPS])
    first = contents(screened(policy, f"Write to {MAIL}!"))[0]
    second = contents(screened(policy, f"Write to {MAIL}!", f"Now in French, to {MAIL}."))
    assert second == [first, f"Now in French, to {first[9:-1]}."]
    assert contents(screened(policy, f"Call {MAIL}!"))[0] != f"Call {first[9:-1]}!"
    assert contents(screened(policy, f"Write to {MAIL}!", tenant="other"))[0] != first


def test_without_reversible_nothing_is_kept() -> None:
    found = screened(version(defences=[{"check": "pii", "action": "redact"}]), f"Write to {MAIL}!")
    assert contents(found) == ["Write to [pii removed]!"]
    assert found.vault is None


def test_what_must_not_come_back_takes_along_what_it_overlaps() -> None:
    text = f"look{unseen(MAIL)} here"
    found = screened(version(defences=[KEEPS, {"check": "hidden", "action": "redact"}]), text)
    assert contents(found) == ["look[hidden removed] here"]
    assert found.vault is None


def test_a_value_in_the_arguments_of_a_call_is_kept_as_its_json_means_it() -> None:
    value = "".join(("-----BEGIN RSA PRIVATE ", "KEY-----\nMIIEpAIBAAKCAQEAx3\n-----END RSA PRIVATE KEY-----"))
    arguments = json.dumps({"key": value})
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [{"role": "user", "content": value}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    body = {"model": "auto", "messages": messages}
    request = ModelRequest(body=body, model="auto", stream=False, include_usage=False, needs=frozenset())
    rules = version(defences=[{"check": "secrets", "action": "redact", "reversible": True}]).rules_for("t")
    found = rules.screen(request, rules.read(request), "t")
    sent = found.request.body["messages"]
    inner = sent[1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(inner) == {"key": sent[0]["content"]}
    assert found.vault is not None
    assert json.loads(found.vault.restore(inner, in_json=True)) == {"key": value}


@pytest.mark.parametrize(
    ("action", "kind", "follows"),
    [
        ("block", "card", Action.BLOCK),
        ("block", "email", Action.ANNOTATE),
        ("redact", "email", Action.ANNOTATE),
        ("annotate", "email", Action.ANNOTATE),
        ("observe", "email", Action.ALLOW),
        ("observe", "card", Action.ALLOW),
    ],
)
def test_what_is_milder_than_from_severity_is_annotated_at_most(action: str, kind: str, follows: Action) -> None:
    text = {"card": "card 4539 1488 0343 6467", "email": MAIL}[kind]
    found = screened(version(defences=[{"check": "pii", "action": action, "from_severity": "high"}]), text)
    assert found.verdict.action is follows
    assert contents(found) == [text]
    assert [one.kind for one in found.verdict.findings] == [f"pii.{kind}"]


@pytest.mark.parametrize(
    "check",
    [{"check": "pii", "action": "block"}, {"check": "hidden", "action": "redact"}],
    ids=["another action", "another check"],
)
def test_only_redacted_secrets_and_personal_data_are_reversible(check: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="reversible belongs to the action redact of pii and secrets"):
        version(defences=[{**check, "reversible": True}])
