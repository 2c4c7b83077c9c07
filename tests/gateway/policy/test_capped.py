"""What one request may make experts do: lowered where that only makes an answer shorter, refused where it is a loop."""

import json
from typing import Any

import pytest

from conclave.gateway.api import chat, completions
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import InvalidRequest
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.capped import RequestCaps
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.rules import Rules
from conclave.router.api import Step

USER = {"role": "user", "content": "hi"}


def request(**more: Any) -> ModelRequest:
    return chat.parse(json.dumps({"model": "auto", "messages": [USER], **more}).encode())


def lowered(caps: RequestCaps, **asked: Any) -> dict[str, Any]:
    """The asked fields as they are after the caps; what was lowered is told, and nothing else changes."""
    before = request(**asked)
    after = caps.lowered(before)
    changed = {name for name in asked if before.body[name] != after.body[name]}
    assert {place.partition(".")[0] for place in after.lowered} == changed
    assert (after is before) is not changed or not changed
    return {name: after.body[name] for name in asked}


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({"max_tokens": 5000}, {"max_tokens": 1000}),
        ({"max_completion_tokens": 1001}, {"max_completion_tokens": 1000}),
        ({"max_tokens": 2000, "max_completion_tokens": 10}, {"max_tokens": 1000, "max_completion_tokens": 10}),
        ({"max_tokens": 1000}, {"max_tokens": 1000}),
        ({"max_tokens": 0}, {"max_tokens": 0}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "xhigh"}, {"reasoning_effort": "low"}),
        ({"thinking_budget": 9000}, {"thinking_budget": 500}),
        ({"thinking_budget": 900}, {"thinking_budget": 900}),
        ({"output_config": {"effort": "max"}}, {"output_config": {"effort": "low"}}),
        ({"chat_template_kwargs": {"thinking_budget": 1001}}, {"chat_template_kwargs": {"thinking_budget": 500}}),
        ({"reasoning_effort": "who knows"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": 7}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "minimal"}, {"reasoning_effort": "minimal"}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": None}, {"reasoning_effort": None}),
        ({"reasoning": {"effort": "high", "exclude": True}}, {"reasoning": {"effort": "low", "exclude": True}}),
        ({"reasoning": {"max_tokens": 9000}}, {"reasoning": {"max_tokens": 500}}),
        ({"thinking": {"type": "x", "budget_tokens": 9000}}, {"thinking": {"type": "x", "budget_tokens": 500}}),
        ({"thinking": "yes"}, {"thinking": "yes"}),
    ],
)  # fmt: skip
def test_what_asks_for_more_is_lowered_and_what_asks_for_less_stays(
    asked: dict[str, Any], left: dict[str, Any]
) -> None:
    assert lowered(RequestCaps(answer_tokens=1000, effort="low"), **asked) == left


def test_without_caps_a_request_is_the_same_object() -> None:
    asked = request(max_tokens=10**6, reasoning_effort="high", n=9)
    assert RequestCaps().lowered(asked) is asked


@pytest.mark.parametrize("name", ["n", "best_of"])
def test_more_answers_than_there_may_be_are_refused_by_name(name: str) -> None:
    caps = RequestCaps(answers=2)
    assert caps.lowered(request(**{name: 2}))
    with pytest.raises(InvalidRequest) as refused:
        caps.lowered(request(**{name: 3}))
    assert (refused.value.param, refused.value.code, refused.value.retry) == (name, "too_many_answers", False)


def turns(*calls: list[tuple[str, str]], before: int = 0) -> list[dict[str, Any]]:
    """A conversation in which the user spoke, and then these turns of calls came, each with its results."""
    said: list[dict[str, Any]] = [USER]
    for turn in calls:
        made = [
            {"id": f"c{at}", "type": "function", "function": {"name": n, "arguments": a}}
            for at, (n, a) in enumerate(turn)
        ]
        said.append({"role": "assistant", "content": None, "tool_calls": made})
        said += [{"role": "tool", "tool_call_id": one["id"], "content": "ok"} for one in made]
    return [*said, *([USER] if before else [])]


def outcome(caps: RequestCaps, messages: list[dict[str, Any]]) -> str:
    try:
        caps.lowered(request(messages=messages))
    except InvalidRequest as error:
        return f"{error.code} {error.param}"
    return "passes"


LOOP = "tool_loop messages"
ONE = [("search", '{"q":"a"}')]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (turns(*[ONE] * 3), "passes"),
        (turns(*[ONE] * 4), LOOP),
        (turns(*[ONE] * 9, before=1), "passes"),
        (turns(ONE * 9), "passes"),
        ([USER, *[{"role": "assistant", "content": "well"}] * 9], "passes"),
        ([USER, *[{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}] * 4], LOOP),
    ],
    ids=["three", "four", "before", "parallel", "words", "old"],
)  # fmt: skip
def test_turns_of_tools_are_counted_since_the_user_spoke(messages: list[dict[str, Any]], said: str) -> None:
    assert outcome(RequestCaps(tool_turns=3), messages) == said


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ([ONE, ONE], "passes"),
        ([ONE, ONE, ONE], LOOP),
        ([ONE * 3], LOOP),
        ([[("search", '{"q":"a"}')], [("search", '{ "q" : "a" }')], [("search", '{"q":"\\u0061"}')]], LOOP),
        ([[("f", '{"a":1,"b":2}')], [("f", '{"b":2,"a":1}')], [("f", ' {"a":1,"b":2}\n')]], LOOP),
        ([[("search", json.dumps({"page": page}))] for page in range(9)], "passes"),
        ([[("a", "{}")], [("b", "{}")], [("c", "{}")]], "passes"),
        ([[("f", "no json")]] * 3, LOOP),
        ([[("f", "[" * 5000)]] * 3, LOOP),
    ],
    ids=["two", "three", "parallel", "spelt", "ordered", "pages", "names", "text", "deep"],
)
def test_the_same_call_again_and_again_is_a_loop_however_it_is_spelt(calls: list[Any], said: str) -> None:
    assert outcome(RequestCaps(same_tool_calls=2), turns(*calls)) == said


def rules(**policy: Any) -> Rules:
    urls = {
        "own": "http://127.0.0.1:1/v1",
        "openai": "https://api.openai.com/v1",
        "azure": "https://x.openai.azure.com/v1",
    }
    experts = {name: {"model": "m", "base_url": url} for name, url in urls.items()}
    document = PolicyDocument.model_validate({"experts": experts, "default": ["own"], **policy})
    version = Version(document, Pool({}), classify=lambda _: None, model_digest="d")  # type: ignore[arg-type, return-value]
    return version.rules_for("acme")


@pytest.mark.parametrize(
    ("expert", "name"),
    [("own", "max_tokens"), ("openai", "max_completion_tokens"), ("azure", "max_completion_tokens")],
)
def test_a_chat_that_names_no_limit_gets_the_cap_under_the_name_that_its_expert_takes(expert: str, name: str) -> None:
    capped = rules(limits={"answer_tokens": 100})
    sent = capped.compose(request(), Step(expert, "named")).body
    assert {key: value for key, value in sent.items() if key != "messages"} == {name: 100}
    said = capped.compose(request(max_tokens=7), Step(expert, "named")).body
    assert (said["max_tokens"], "max_completion_tokens" in said) == (7, False)


def test_a_completion_that_is_asked_as_a_chat_has_the_cap_too() -> None:
    asked = completions.parse(b'{"model":"auto","prompt":"x"}')
    assert rules(limits={"answer_tokens": 100}).compose(asked, Step("own", "named")).body["max_tokens"] == 100


def test_a_tenants_caps_are_its_own() -> None:
    capped = rules(limits={"answer_tokens": 100}, tenants={"acme": {"limits": {"answer_tokens": 5, "tool_turns": 2}}})
    assert (capped.caps.answer_tokens, capped.caps.tool_turns, capped.caps.answers) == (5, 2, None)


def test_without_caps_nothing_is_added() -> None:
    assert set(rules().compose(request(), Step("own", "named")).body) == {"messages"}
