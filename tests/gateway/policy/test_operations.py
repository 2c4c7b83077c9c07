"""Who serves embeddings, moderations and text completions; what they are sent, and what of it is recorded as text."""

import json
from typing import Any

import pytest

from conclave.gateway.access.scope import Scope
from conclave.gateway.api import completions, embeddings, moderations
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import Forbidden, TooLarge, UnknownModel, Unsupported
from conclave.gateway.policy.rules import Rules
from conclave.router.api import Decision

from .conftest import URL, Publish

EXPERTS: dict[str, Any] = {
    "chatter": {"base_url": URL, "model": "own"},
    "plain": {"base_url": URL, "model": "own", "capabilities": []},
    "large": {"base_url": URL, "model": "text-embedding-3-large"},
    "small": {"base_url": URL, "model": "text-embedding-3-small"},
    "judge": {"base_url": URL, "model": "omni-moderation-latest"},
    "second": {"base_url": URL, "model": "own", "capabilities": ["moderations"]},
    "older": {"base_url": URL, "model": "gpt-3.5-turbo-instruct"},
}
PARSE = {"embeddings": embeddings.parse, "moderations": moderations.parse, "completions": completions.parse}


@pytest.fixture
def rules(publish: Publish) -> Rules:
    version = publish(experts=EXPERTS, categories={}, default=[], aliases={"ada": "large"}, tenants={})
    return version.rules_for("any")


def request(operation: str, **body: Any) -> ModelRequest:
    given = {"prompt": "hi"} if operation == "completions" else {"input": "hi"}
    return PARSE[operation](json.dumps({"model": "auto", **given, **body}).encode())


def decided(rules: Rules, asked: ModelRequest, scope: Scope | None = None) -> Decision:
    return rules.decide(asked, rules.read(asked), scope or Scope())


def experts(decision: Decision) -> list[str]:
    return [step.expert for step in decision.steps]


@pytest.mark.parametrize(
    ("asked", "expected", "reason"),
    [
        pytest.param(request("embeddings"), ["large"], "operation", id="the-first-and-no-fallback"),
        pytest.param(request("embeddings", model="auto:cheap"), ["encoder"], "cheapest", id="what-costs-nothing"),
        pytest.param(request("embeddings", model="ada"), ["large"], "named", id="an-alias"),
        pytest.param(request("embeddings", model="encoder"), ["encoder"], "named", id="the-built-in-one-by-name"),
        pytest.param(request("moderations"), ["judge", "second"], "operation", id="a-judge-and-its-fallback"),
        pytest.param(
            request("moderations", input=[{"type": "image_url"}]), ["judge"], "operation", id="a-judge-of-images"
        ),
        pytest.param(request("completions", suffix="s"), ["older"], "detour", id="what-no-chat-can-do"),
        pytest.param(request("completions", n=2), ["chatter"], "not_listed", id="what-a-chat-can-do"),
        pytest.param(request("completions", model="older"), ["older"], "named", id="natively-by-name"),
    ],
)
def test_who_can_is_asked(rules: Rules, asked: ModelRequest, expected: list[str], reason: str) -> None:
    decision = decided(rules, asked)
    assert (experts(decision), decision.reason) == (expected, reason)


def test_what_has_no_category_is_not_classified(rules: Rules, classifier: Any) -> None:
    for operation in ("embeddings", "moderations"):
        assert decided(rules, request(operation)).classification is None
    assert classifier.asked == []
    decided(rules, request("completions", prompt="why?"))
    assert classifier.asked == ["why?"]


def test_experts_that_do_not_chat_are_no_fallbacks_of_a_completion(rules: Rules) -> None:
    assert experts(decided(rules, request("completions"))) == ["chatter", "plain"]


@pytest.mark.parametrize(
    ("asked", "scope", "error", "words"),
    [
        pytest.param(request("embeddings", model="plain"), None, Unsupported, "cannot do: embeddings", id="a-chat"),
        pytest.param(request("embeddings", model="gone"), None, UnknownModel, "There are: auto", id="nobody"),
        pytest.param(request("moderations"), {"plain"}, Unsupported, "can do: moderations", id="none-in-reach"),
        pytest.param(request("completions"), {"small"}, Unsupported, "can do: completions", id="none-that-writes"),
        pytest.param(request("embeddings"), set(), Forbidden, "no expert", id="nothing-in-reach"),
        pytest.param(request("completions", echo=True, model="plain"), None, Unsupported, "suffix, echo", id="echo"),
    ],
)
def test_who_cannot_be_served_hears_why(
    rules: Rules, *, asked: ModelRequest, scope: set[str] | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        decided(rules, asked, Scope(frozenset(scope)) if scope is not None else None)


def test_a_chat_is_never_sent_to_an_expert_that_only_embeds(rules: Rules, ask: Any) -> None:
    with pytest.raises(Unsupported, match="cannot do: chat"):
        decided(rules, ask(model="small"))
    with pytest.raises(Unsupported, match="can do: chat"):
        decided(rules, ask(), Scope(frozenset({"small", "judge", "encoder"})))


def test_a_text_completion_becomes_a_chat_with_one_message_and_loses_what_asks_for_nothing(rules: Rules) -> None:
    asked = request("completions", prompt=["once"], echo=False, best_of=1, logprobs=None, suffix="", seed=7, top_k=2)
    prompt = rules.compose(asked, decided(rules, asked).steps[0])
    assert prompt.body == {"messages": [{"role": "user", "content": "once"}], "seed": 7, "top_k": 2}
    assert prompt.operation == "chat"


@pytest.mark.parametrize("operation", PARSE)
def test_what_an_able_expert_is_sent_is_what_was_written(rules: Rules, operation: str) -> None:
    model = {"embeddings": "small", "moderations": "judge", "completions": "older"}[operation]
    asked = request(operation, model=model, user="u", conclave={"x": 1})
    prompt = rules.compose(asked, decided(rules, asked).steps[0])
    assert prompt.body == {key: value for key, value in asked.body.items() if key not in ("model", "conclave")}
    assert prompt.operation == operation


@pytest.mark.parametrize(
    ("asked", "error", "param"),
    [
        pytest.param(request("embeddings", input="a" * 2_000_000), TooLarge, "input", id="too-much-text"),
        pytest.param(request("embeddings", input=[[1] * 150_000] * 3), TooLarge, "input", id="too-many-token-ids"),
        pytest.param(request("embeddings", input=[[1] * 150_000]), None, None, id="many-token-ids"),
        pytest.param(request("embeddings", x=list(range(100_001))), TooLarge, "x", id="too-many-values"),
    ],
)
def test_the_caps_are_those_of_a_chat(
    rules: Rules, asked: ModelRequest, error: type[TooLarge] | None, param: str | None
) -> None:
    if error is None:
        assert rules.read(asked) is not None
        return
    with pytest.raises(error) as refused:
        rules.read(asked)
    assert refused.value.param == param
