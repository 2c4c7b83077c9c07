"""Reading a request with the gateway's errors, and what the client is told when nobody is left to ask."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from conclave.gateway.api.chat import parse
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import ConclaveError, InvalidRequest, NoExpertLeft, TooLarge, Unsupported, UpstreamRejected
from conclave.gateway.policy.published import Version
from conclave.router.api import Decision, Outcome, Step

Publish = Callable[..., Version]
Ask = Callable[..., ModelRequest]
TWO = Decision(steps=(Step("a", "category"), Step("b", "fallback")), reason="category", row="code")
FAILED = Outcome(accepted=False, error="connection refused")


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else "x"


@pytest.mark.parametrize(
    ("body", "error", "param"),
    [
        pytest.param({"messages": []}, InvalidRequest, "messages", id="no-messages"),
        pytest.param({"messages": "x"}, InvalidRequest, "messages", id="messages-is-text"),
        pytest.param({"messages": [{"role": "user"}] * 6}, InvalidRequest, "messages", id="too-many-messages"),
        pytest.param({"tools": deep(30)}, InvalidRequest, "tools", id="too-deep"),
        pytest.param({"user": "\ud800"}, InvalidRequest, "user", id="surrogate"),
        pytest.param(
            {"messages": [{"role": "user", "content": "x" * 101}]}, TooLarge, "messages[0].content", id="too-long"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": "\ufdfa" * 6}]}, TooLarge, "messages[0].content", id="nfkc-bomb"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
            Unsupported,
            "messages[0].content[0]",
            id="unknown-part",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            Unsupported,
            "messages[0].content[0]",
            id="nobody-hears",
        ),
    ],
)
def test_what_may_not_pass_names_its_place(
    publish: Publish, ask: Ask, body: dict[str, Any], error: type[ConclaveError], param: str
) -> None:
    rules = publish(limits={"messages": 5, "text_chars": 100, "nesting": 20}).rules_for("any")
    with pytest.raises(error) as caught:
        rules.read(ask(**body))
    assert type(caught.value) is error
    assert caught.value.param == param


def test_an_unknown_kind_of_part_is_refused_by_its_name(publish: Publish) -> None:
    """As it comes over HTTP: the parser lets it through, and the policy knows that nobody takes it."""
    content = [{"type": "text", "text": "what is it?"}, {"type": "video"}]
    request = parse(msgspec.json.encode({"model": "auto", "messages": [{"role": "user", "content": content}]}))
    with pytest.raises(Unsupported, match="'video'") as caught:
        publish().rules_for("any").read(request)
    assert (caught.value.status, caught.value.param) == (400, "messages[0].content[1]")


def test_an_image_passes_where_one_expert_sees(publish: Publish, ask: Ask) -> None:
    content = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    assert [segment.text for segment in publish().rules_for("any").read(ask(content))] == ["what is it?"]
    with pytest.raises(Unsupported, match="images"):
        publish().rules_for("small").read(ask(content))


def test_the_prompt_is_the_request_without_what_is_ours(publish: Publish, ask: Ask) -> None:
    prompt = publish().rules_for("any").compose(ask(temperature=0.5, conclave={"x": 1}), Step("quoting", "named"))
    assert prompt.body == {"messages": [{"role": "user", "content": "why?"}], "temperature": 0.5}


def test_the_next_step_is_the_fallback(publish: Publish) -> None:
    rules = publish().rules_for("any")
    assert rules.next_step(TWO, [], shown=False).expert == "a"
    assert rules.next_step(TWO, [FAILED], shown=False).expert == "b"


@pytest.mark.parametrize(
    ("outcomes", "shown", "words"),
    [
        pytest.param([FAILED, FAILED], False, r"2 asked.*connection refused", id="all-failed"),
        pytest.param([FAILED], True, "no expert could continue it: connection refused", id="after-the-first-word"),
        pytest.param([Outcome(accepted=False)] * 2, False, "no reason", id="without-a-reason"),
    ],
)
def test_when_nobody_is_left_the_last_ones_words_are_told(
    publish: Publish, outcomes: list[Outcome], shown: bool, words: str
) -> None:
    with pytest.raises(NoExpertLeft, match=words):
        publish().rules_for("any").next_step(TWO, outcomes, shown=shown)


def test_an_upstreams_verdict_on_the_request_is_passed_on_and_no_fallback_is_tried(publish: Publish) -> None:
    refused = Outcome(
        accepted=False, error="max_tokens is too large", rejected=True, final=True, param="max_tokens", code="too_large"
    )
    with pytest.raises(UpstreamRejected, match=r"^max_tokens is too large$") as caught:
        publish().rules_for("any").next_step(TWO, [refused], shown=False)
    assert (caught.value.param, caught.value.code) == ("max_tokens", "too_large")


def test_an_experts_words_are_short_on_one_line_and_without_its_key(publish: Publish) -> None:
    said = "Incorrect API key provided: sk-proj-abcdefghijklmnop1234.\nHeader: Bearer abc.def-ghi " + "x" * 1000
    with pytest.raises(NoExpertLeft) as caught:
        publish().rules_for("any").next_step(TWO, [FAILED, Outcome(accepted=False, error=said)], shown=False)
    assert "abcdefghijklmnop" not in caught.value.message
    assert "abc.def" not in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400
