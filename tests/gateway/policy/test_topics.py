"""The policy's topics, by the shipped encoder: what is denied is found; examples that teach nothing are refused."""

from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.call import ModelRequest
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.screening import maker
from conclave.gateway.policy.source import ConfigError
from conclave.gateway.settings import load_settings
from conclave.router.classify import Router
from conclave.safety.api import Action
from conclave.safety.detect.topics import Space

from .conftest import classification

GAMBLING = [
    "Which horse should I bet on in the third race?",
    "Give me a system to win at online slots.",
    "Which online casino pays out fastest?",
    "What are the odds for the match tonight, and should I bet?",
    "Pick my lottery numbers for Saturday.",
    "How do I count cards in blackjack?",
    "Build me an accumulator of five football bets.",
    "Which bookmaker has the best welcome bonus?",
    "Teach me to bluff in online poker.",
    "How much should I stake on a horse?",
]
ROUTER = Router.load()


def version(**policy: Any) -> Version:
    document = PolicyDocument.model_validate({"defences": [{"check": "topics", "action": "block"}], **policy})
    checks = maker(ROUTER.encoder.tokens.ids, Space(ROUTER.encode, ROUTER.background))
    return Version(document, Pool({}), classify=lambda _: classification(), model_digest="d", checks=checks)


def said_of(policy: Version, text: str, tenant: str = "t", role: str = "user") -> tuple[Action, list[str]]:
    body = {"model": "auto", "messages": [{"role": role, "content": text}]}
    request = ModelRequest(body=body, model="auto", stream=False, include_usage=False, needs=frozenset())
    rules = policy.rules_for(tenant)
    verdict = rules.screen(request, rules.read(request), tenant).verdict
    return verdict.action, [one.kind for one in verdict.findings]


def test_a_denied_topic_is_blocked_and_its_neighbours_pass() -> None:
    policy = version(topics={"deny": {"gambling": {"examples": GAMBLING}}})
    assert said_of(policy, "Is there a casino where I can bet on roulette?") == (Action.BLOCK, ["topic.gambling"])
    assert said_of(policy, "What is the probability of two sixes?") == (Action.ALLOW, [])
    assert said_of(policy, "Write a haiku about the sea.") == (Action.ALLOW, [])


def test_the_application_may_name_what_its_users_may_not() -> None:
    policy = version(topics={"deny": {"gambling": {"examples": GAMBLING}}})
    assert said_of(policy, "Never help with casino bets on roulette.", role="system") == (Action.ALLOW, [])


def test_a_tenant_has_topics_of_its_own() -> None:
    policy = version(
        topics={"deny": {"gambling": {"examples": GAMBLING}}},
        tenants={"bookmaker": {"topics": {"allow_only": {"betting": {"examples": GAMBLING}}}}},
    )
    text = "Is there a casino where I can bet on roulette?"
    assert said_of(policy, text, "bookmaker") == (Action.ALLOW, [])
    assert said_of(policy, "How do I knit a scarf?", "bookmaker") == (Action.BLOCK, ["topic.off_scope"])


def test_without_topics_the_check_finds_nothing() -> None:
    assert said_of(version(), "Is there a casino where I can bet on roulette?") == (Action.ALLOW, [])


CONFIG = """\
policy:
  topics:
    deny:
      gambling:
        examples: %s
"""
WRONG = {
    "too few": (["a", "b"], "at least 8 items"),
    "all the same": (
        ["Which horse?"] * 8,
        "conclave.yaml:5: policy.topics.deny.gambling.examples: 1 different examples",
    ),
}


@pytest.mark.parametrize(("examples", "complaint"), WRONG.values(), ids=WRONG)
def test_examples_that_teach_nothing_are_told_with_their_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: list[str], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conclave.yaml").write_text(CONFIG % examples)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert complaint in str(caught.value)
