"""One document, one digest, and Rules for each tenant that is treated differently."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from conclave.gateway.policy.document import ExpertSettings, PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.published import Version, candidate, digest_of

Publish = Callable[..., Version]
EXPERT = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}


def digest(**parts: Any) -> str:
    return digest_of(complete(PolicyDocument.model_validate(parts), {}))


def test_tenants_without_overrides_share_their_rules_and_strangers_cost_no_memory(publish: Publish) -> None:
    published = publish()
    assert all(published.rules_for(str(name)) is published.rules_for("any") for name in range(100))
    assert published.rules_for("small") is published.rules_for("small")
    assert published.rules_for("small") is not published.rules_for("any")


def test_a_tenants_limits_change_only_what_it_says(publish: Publish) -> None:
    published = publish(limits={"messages": 9, "nesting": 9})
    assert (published.limits_for("any").messages, published.limits_for("any").nesting) == (9, 9)
    assert (published.limits_for("small").messages, published.limits_for("small").nesting) == (2, 9)


def test_a_tenants_null_lifts_a_limit_that_all_others_have(publish: Publish) -> None:
    published = publish(
        limits={"requests_per_minute": 5}, tenants={"t": {"limits": {"requests_per_minute": None}}, "u": {"limits": {}}}
    )
    assert published.limits_for("t").requests_per_minute is None
    assert published.limits_for("u").requests_per_minute == 5


def test_a_tenants_stages_and_audit_are_its_own(publish: Publish) -> None:
    published = publish(
        audit={"keep_text": True},
        tenants={"t": {"stages": {"route": "off"}, "audit": {"keep_text": False}}, "u": {"experts": ["fast"]}},
    )
    assert [(published.rules_for(t).route, published.rules_for(t).keep_text) for t in ("any", "t", "u")] == [
        ("on", True),
        ("off", False),
        ("on", True),
    ]


def test_the_digest_is_the_same_for_what_means_the_same() -> None:
    assert digest() == digest(name="default", limits={"nesting": 64}, default=["quoting"])
    assert digest(aliases={"a": "auto", "b": "auto"}) == digest(aliases={"b": "auto", "a": "auto"})


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"name": "other"}, id="name"),
        pytest.param({"limits": {"nesting": 65}}, id="limit"),
        pytest.param({"aliases": {"a": "auto"}}, id="alias"),
        pytest.param({"tenants": {"t": {"limits": {"nesting": 64}}}}, id="a-tenants-own-value-even-if-equal"),
        pytest.param({"experts": {"a": EXPERT}}, id="expert"),
    ],
)
def test_the_digest_changes_with_what_is_decided(parts: dict[str, Any]) -> None:
    assert digest(**parts) != digest()


def test_the_order_of_experts_is_part_of_the_digest() -> None:
    """It decides who is looked through first when no row can serve."""
    first = digest(experts={"a": EXPERT, "b": EXPERT}, default=["a"])
    assert first != digest(experts={"b": EXPERT, "a": EXPERT}, default=["a"])


@pytest.mark.parametrize(
    ("expert", "price", "capabilities"),
    [
        pytest.param({"model": "gpt-4o"}, 2.5 * 0.75 + 10 * 0.25, "images", id="from-the-catalog"),
        pytest.param({"model": "gpt-4o", "price": {"input": 0, "output": 0}}, 0, "images", id="price-by-policy"),
        pytest.param({"model": "gpt-4o", "capabilities": ["audio"]}, 4.375, "audio", id="capabilities-by-policy"),
        pytest.param({"model": "unheard-of"}, inf, "tools", id="unknown-model"),
    ],
)
def test_the_policy_overrides_the_catalog(expert: dict[str, Any], price: float, capabilities: str) -> None:
    made = candidate("x", ExpertSettings.model_validate(EXPERT | expert))
    assert made.price == price
    assert capabilities in made.capabilities


def test_a_quoting_expert_is_free_and_can_only_quote() -> None:
    made = candidate("q", ExpertSettings(kind="quoting"))
    assert (made.price, made.capabilities) == (0, {"chat"})
