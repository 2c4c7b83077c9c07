"""The policy's `answers`: what is compiled for whom."""

from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.guard import UNGUARDED, Guard
from conclave.gateway.policy.answers import ANSWERS, AnswerCheckSettings, compiled
from conclave.gateway.policy.document import PolicyDocument
from conclave.safety.api import Action, Severity
from conclave.safety.output.checks import NAMES, make


def settings(**more: Any) -> AnswerCheckSettings:
    return AnswerCheckSettings.model_validate({"check": "exfiltration", **more})


def test_every_check_has_a_name_in_the_policy_and_every_name_a_check() -> None:
    names = AnswerCheckSettings.model_json_schema()["properties"]["check"]
    assert set(names["enum"]) == {*NAMES, "signatures"}  # these are made of the policy's own rules


def test_by_default_answers_are_looked_at_and_only_what_installs_packages_waits() -> None:
    guarding = compiled(ANSWERS, make, canaries=[], observe=False)
    assert [rule.check.name for rule in guarding.plan.rules] == [one.check for one in ANSWERS]
    assert [rule.check.name for rule in guarding.plan.rules if rule.holds] == ["packages"]
    assert isinstance(guarding.guard([], incident="i", stream=True), Guard)


def test_a_check_that_is_off_costs_nothing() -> None:
    guarding = compiled([settings(action="off")], make, canaries=[], observe=False)
    assert guarding.guard(["x"], incident="i", stream=True) is UNGUARDED


def test_what_is_said_of_a_check_is_what_it_does() -> None:
    one = settings(action="block", from_severity="high", on_error="allow", timeout_s=2)
    [rule] = compiled([one], make, canaries=[], observe=False).plan.rules
    assert (rule.action, rule.from_severity, rule.on_error, rule.timeout_s) == (Action.BLOCK, Severity.HIGH, "allow", 2)
    assert rule.holds


@pytest.mark.parametrize(("action", "observe"), [("observe", False), ("block", True)], ids=["check", "stage"])
def test_what_only_observes_holds_nothing(action: str, observe: bool) -> None:
    [rule] = compiled([settings(action=action)], make, canaries=[], observe=observe).plan.rules
    assert (rule.observe, rule.holds) == (True, False)


@pytest.mark.parametrize(
    "policy",
    [
        {"answers": [{"check": "exfiltration"}, {"check": "exfiltration"}]},
        {"answers": [{"check": "exfil"}]},
        {"answers": [{"check": "exfiltration", "action": "confirm"}]},
        {"canaries": ["short"]},
        {"stages": {"guard": "maybe"}},
    ],
    ids=["twice", "unknown", "no action", "too short", "no mode"],
)
def test_a_policy_that_cannot_be_meant_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PolicyDocument.model_validate(policy)
