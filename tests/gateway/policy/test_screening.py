"""The defences of a policy, compiled: what goes on to the experts, for all tenants and for one."""

from typing import Any

import pytest

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
