"""Which arm of an A/B test a conversation belongs to: always the same, and as many as the share says."""

from collections.abc import Callable
from typing import Any

import pytest

from conclave.gateway.call import ModelRequest
from conclave.gateway.policy.arms import Arms, conversation_of
from conclave.gateway.policy.overlay import CONTROL
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.rules import Rules

Publish = Callable[..., Version]
Ask = Callable[..., ModelRequest]
CHEAP = {"name": "cheap", "share": 0.5, "categories": {"code": ["free"]}}


def dealt(publish: Publish, **split: Any) -> Arms:
    arms = publish(routing={"split": CHEAP | split}).rules_for("any").arms
    assert arms is not None
    return arms


def conversation(rules: Rules, request: ModelRequest) -> str:
    return conversation_of(request, rules.read(request))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_as_many_conversations_as_the_share_says_are_served_otherwise(publish: Publish, share: float) -> None:
    arms = dealt(publish, share=share)
    others = sum(arms.of("acme", f"begins:{number}").arm == "cheap" for number in range(2000))
    assert abs(others / 2000 - share) < 0.04
    assert share not in (0.0, 1.0) or others == 2000 * share


def test_a_growing_share_moves_conversations_one_way_only(publish: Publish) -> None:
    few, many = dealt(publish, share=0.1), dealt(publish, share=0.3)
    names = [f"begins:{number}" for number in range(500)]
    assert {n for n in names if few.of("t", n).arm == "cheap"} <= {n for n in names if many.of("t", n).arm == "cheap"}


def test_another_salt_or_tenant_deals_anew(publish: Publish) -> None:
    names = [f"begins:{number}" for number in range(100)]
    salted, renamed = dealt(publish, salt="again"), dealt(publish, name="x")
    ways = [(dealt(publish), "a"), (dealt(publish), "b"), (salted, "a"), (renamed, "a")]
    deals = [[arms.of(tenant, name).arm for name in names] for arms, tenant in ways]
    as_control = [[arm == CONTROL for arm in deal] for deal in deals]
    assert all(one != other for at, one in enumerate(as_control) for other in as_control[at + 1 :])


def test_where_the_tenant_ends_and_the_conversation_begins_counts(publish: Publish) -> None:
    """`ab` + `c` is dealt apart from `a` + `bc`: about half of such pairs are in different arms."""
    arms = dealt(publish)
    pairs = [(arms.of(f"t{n}x", "y"), arms.of(f"t{n}", "xy")) for n in range(200)]
    assert 60 < sum(one is not other for one, other in pairs) < 140


def test_a_conversation_is_known_by_its_name_else_by_how_it_began(publish: Publish, ask: Ask) -> None:
    rules = publish().rules_for("any")
    first = ask("hello")
    grown = ask(messages=[
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "commit it"},
    ])  # fmt: skip
    assert conversation(rules, first) == conversation(rules, grown) == "begins:hello"
    named = ask("hello", conclave={"conversation": "chat 7"})
    assert conversation(rules, named) == "named:chat 7"
    assert conversation(rules, ask("named:chat 7")) != conversation(rules, named)
    for nothing in ({"conversation": None}, {"conversation": ""}, {"tags": {}}, None, "x"):
        assert conversation(rules, ask("hello", conclave=nothing)) == "begins:hello"
    assert conversation(rules, ask("  ")) == ""


def test_an_arm_differs_only_in_what_the_split_says(publish: Publish, ask: Ask, classifier: Any) -> None:
    version = publish(routing={"split": CHEAP | {"share": 1.0}})
    rules = version.rules_for("any")
    request = ask("write code")
    other = rules.for_conversation("any", request, rules.read(request))
    assert (other.arm, other.digest, other.limits) == ("cheap", version.digest, rules.limits)
    assert other.table.default == rules.table.default
    assert (other.table.rows["code"], other.table.rows["math"]) == (("free",), rules.table.rows["math"])
    assert other.for_conversation("any", request, ()) is other


@pytest.mark.parametrize("route", ["observe", "off"])
def test_where_routing_does_not_act_no_arm_does(publish: Publish, route: str) -> None:
    """`observe` means that nothing follows, and a split would."""
    assert publish(routing={"split": CHEAP}, stages={"route": route}).rules_for("any").arms is None


def test_a_tenant_keeps_its_own_experts_in_both_arms(publish: Publish) -> None:
    arms = publish(routing={"split": CHEAP}).rules_for("small").arms
    assert arms is not None
    assert arms.control.allowed == arms.other.allowed == {"free", "quoting"}
