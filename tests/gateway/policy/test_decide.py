"""Who is asked, in which order, and why: the table of the policy, scope, capabilities, virtual models."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from conclave.gateway.access.scope import Scope
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import ConclaveError, Forbidden, UnknownModel, Unsupported
from conclave.gateway.policy.published import Version
from conclave.router.api import Decision

ALL = Scope()
Publish = Callable[..., Version]
Ask = Callable[..., ModelRequest]


def decided(published: Version, request: ModelRequest, scope: Scope = ALL, *, tenant: str = "any") -> Decision:
    rules = published.rules_for(tenant)
    return rules.decide(request, rules.read(request), scope)


def experts(decision: Decision) -> list[str]:
    return [step.expert for step in decision.steps]


@pytest.mark.parametrize(
    ("category", "row", "reason", "expected"),
    [
        pytest.param("code", "code", "category", ["strong", "fast"], id="listed"),
        pytest.param("law", "law", "category", ["free"], id="one-expert"),
        pytest.param("science", "default", "not_listed", ["fast", "strong"], id="not-listed"),
    ],
)
def test_the_categorys_row_is_asked_in_order(  # noqa: PLR0913  the row of a table, and the fixtures
    publish: Publish, ask: Ask, classifier: Any, *, category: str, row: str, reason: str, expected: list[str]
) -> None:
    classifier.says = replace(classifier.says, category=category)
    decision = decided(publish(), ask())
    assert (decision.row, decision.reason, experts(decision)) == (row, reason, expected)
    assert [step.reason for step in decision.steps] == [reason] + ["fallback"] * (len(expected) - 1)
    assert decision.classification is classifier.says
    assert decision.model_digest == "m" * 64


def test_an_unsure_classification_uses_the_default_row_not_its_argmax(
    publish: Publish, ask: Ask, classifier: Any
) -> None:
    classifier.says = replace(classifier.says, category="law", unsure=True)
    decision = decided(publish(), ask())
    assert (decision.row, decision.reason, experts(decision)) == ("default", "unsure", ["fast", "strong"])


def test_routing_switched_off_classifies_nothing(publish: Publish, ask: Ask, classifier: Any) -> None:
    decision = decided(publish(stages={"route": "off"}), ask())
    assert (decision.row, decision.reason, decision.classification) == ("default", "routing_off", None)
    assert decision.model_digest is None
    assert classifier.asked == []


def test_observed_routing_is_recorded_but_not_followed(publish: Publish, ask: Ask, classifier: Any) -> None:
    classifier.says = replace(classifier.says, category="law")
    decision = decided(publish(stages={"route": "observe"}), ask())
    assert (decision.row, decision.reason, experts(decision)) == ("default", "observe", ["fast", "strong"])
    assert decision.classification is classifier.says


@pytest.mark.parametrize(
    ("model", "expected", "reason"),
    [
        pytest.param("auto", ["unpriced", "strong", "fast", "free"], "category", id="auto"),
        pytest.param("auto:cheap", ["free", "fast", "strong", "unpriced"], "cheapest", id="cheap-unknown-price-last"),
        pytest.param("auto:best", ["strong", "fast", "unpriced", "free"], "best", id="best-undeclared-last-and-stable"),
        pytest.param("gpt-4o", ["unpriced", "strong", "fast", "free"], "category", id="alias-of-auto"),
        pytest.param("cheapest", ["free", "fast", "strong", "unpriced"], "cheapest", id="alias-of-auto-cheap"),
        pytest.param("strong", ["strong"], "named", id="named-has-no-fallback"),
        pytest.param("big", ["strong"], "named", id="alias-of-an-expert"),
        pytest.param("quoting", ["quoting"], "named", id="quoting-by-name"),
    ],
)
def test_the_model_name_says_how_to_choose(  # noqa: PLR0913  the row of a table, and the fixtures
    publish: Publish, ask: Ask, classifier: Any, *, model: str, expected: list[str], reason: str
) -> None:
    classifier.says = replace(classifier.says, category="math")
    decision = decided(publish(), ask(model=model))
    assert (experts(decision), decision.reason) == (expected, reason)


def test_a_named_expert_needs_no_classification(publish: Publish, ask: Ask, classifier: Any) -> None:
    assert decided(publish(), ask(model="fast")).classification is None
    assert classifier.asked == []


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        pytest.param({}, ["why?"], id="one"),
        pytest.param(
            {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]},
            ["a"],
            id="not-the-tools",
        ),
        pytest.param(
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "first"},
                    {"role": "assistant", "content": "x"},
                    {"role": "user", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]},
                ]
            },
            ["1\n2"],
            id="the-last-message-whole",
        ),
        pytest.param({"messages": [{"role": "system", "content": "s"}]}, [], id="no-user"),
        pytest.param({"messages": [{"role": "user", "content": "  "}]}, [], id="blank"),
    ],
)
def test_the_last_user_message_is_classified_once(
    publish: Publish, ask: Ask, classifier: Any, body: dict[str, Any], asked: list[str]
) -> None:
    decision = decided(publish(), ask(**body))
    assert classifier.asked == asked
    if not asked:
        assert (decision.row, decision.reason) == ("default", "no_text")


@pytest.mark.parametrize(
    ("needs", "expected", "row", "reason"),
    [
        pytest.param((), ["free"], "law", "category", id="nothing"),
        pytest.param(("tools",), ["fast", "strong"], "default", "detour", id="the-default-row-can"),
        pytest.param(("images",), ["strong"], "default", "detour", id="only-one-can"),
    ],
)
def test_an_expert_that_cannot_is_not_asked(  # noqa: PLR0913  the row of a table, and the fixtures
    publish: Publish, ask: Ask, classifier: Any, *, needs: tuple[str, ...], expected: list[str], row: str, reason: str
) -> None:
    classifier.says = replace(classifier.says, category="law")
    decision = decided(publish(), ask(needs=needs))
    assert (experts(decision), decision.row, decision.reason) == (expected, row, reason)


def test_the_able_ones_of_a_row_keep_its_reason(publish: Publish, ask: Ask, classifier: Any) -> None:
    classifier.says = replace(classifier.says, category="math")
    decision = decided(publish(), ask(needs=("json_schema",)))
    assert (experts(decision), decision.row, decision.reason) == (["strong", "fast"], "math", "category")


def test_all_experts_are_looked_through_when_no_row_can(publish: Publish, ask: Ask) -> None:
    published = publish(categories={"code": ["free"]}, default=["free"])
    decision = decided(published, ask(needs=("images",)))
    assert (experts(decision), decision.row, decision.reason) == (["strong"], "any", "detour")


@pytest.mark.parametrize(
    ("model", "needs", "scope", "error", "words"),
    [
        pytest.param(
            "nothing", (), ALL, UnknownModel, "There are: auto, auto:cheap, .*, encoder$", id="unknown-lists-what-is"
        ),
        pytest.param("strnog", (), ALL, UnknownModel, "did you mean 'strong'", id="unknown-suggests"),
        pytest.param("AUTO", (), ALL, UnknownModel, "did you mean 'auto'\\?", id="names-keep-their-case"),
        pytest.param("", (), ALL, UnknownModel, "no model ''", id="empty"),
        pytest.param("free", ("tools",), ALL, Unsupported, "'free' cannot do: tools", id="named-cannot"),
        pytest.param("auto", ("audio",), ALL, Unsupported, "can do: audio", id="nobody-can"),
        pytest.param("strong", (), Scope(frozenset({"fast"})), Forbidden, "'strong'", id="named-out-of-scope"),
        pytest.param("big", (), Scope(frozenset({"fast"})), Forbidden, "'strong'", id="alias-out-of-scope"),
        pytest.param("auto", (), Scope(frozenset()), Forbidden, "no expert", id="nothing-in-scope"),
        pytest.param("auto", ("images",), Scope(frozenset({"fast"})), Unsupported, "images", id="none-in-scope-can"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(  # noqa: PLR0913  the row of a table, and the fixtures
    publish: Publish,
    ask: Ask,
    *,
    model: str,
    needs: tuple[str, ...],
    scope: Scope,
    error: type[ConclaveError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        decided(publish(), ask(model=model, needs=needs), scope)


def test_two_experts_that_can_one_thing_each_do_not_make_one_that_can_both(publish: Publish, ask: Ask) -> None:
    url = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    published = publish(
        experts={"eyes": url | {"capabilities": ["images"]}, "hands": url | {"capabilities": ["tools"]}},
        categories={},
        default=["eyes", "hands"],
        aliases={},
        tenants={},
    )
    with pytest.raises(Unsupported, match="images, tools at once"):
        decided(published, ask(needs=("images", "tools")))


def test_a_key_for_one_expert_gets_that_expert_whatever_the_row(publish: Publish, ask: Ask) -> None:
    decision = decided(publish(), ask(), Scope(frozenset({"free"})))
    assert (experts(decision), decision.row, decision.reason) == (["free"], "any", "detour")


def test_a_tenant_reaches_only_its_own_experts(publish: Publish, ask: Ask) -> None:
    assert experts(decided(publish(), ask(), tenant="small")) == ["free", "quoting"]
    with pytest.raises(Forbidden):
        decided(publish(), ask(model="strong"), tenant="small")


def test_a_wide_scope_does_not_widen_a_tenant(publish: Publish, ask: Ask) -> None:
    scope = Scope(frozenset({"strong", "free"}))
    assert experts(decided(publish(), ask(), scope, tenant="small")) == ["free"]


def test_the_models_are_the_virtual_ones_the_aliases_and_the_experts_in_reach(publish: Publish) -> None:
    rules = publish().rules_for("any")
    assert rules.models(ALL) == [
        *("auto", "auto:cheap", "auto:best"),
        *("gpt-4o", "cheapest", "big"),
        *("fast", "strong", "free", "unpriced", "quoting", "encoder"),
    ]
    reached = ["auto", "auto:cheap", "auto:best", "gpt-4o", "cheapest", "fast"]
    assert rules.models(Scope(frozenset({"fast"}))) == reached
