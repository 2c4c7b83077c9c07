"""What a shadow would have chosen is worked out from rows alone, once, and only where it can be compared."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from conclave.gateway.experts.pool import Pool
from conclave.gateway.followers.api import Row
from conclave.gateway.followers.shadow import ShadowScores
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.past import PastVersions
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.store import PolicyStore
from conclave.gateway.state.sql import Database
from conclave.gateway.state.tables import shadow_choices
from conclave.router.api import Classification

Rows = Callable[..., Row]
URL = "http://127.0.0.1:1/v1"
POLICY: dict[str, Any] = {
    "experts": {
        "large": {"base_url": URL, "model": "m", "price": {"input": 2, "output": 8}},
        "small": {"base_url": URL, "model": "n", "price": {"input": 1, "output": 1}},
        "unpriced": {"base_url": URL, "model": "o"},
    },
    "categories": {"code": ["large", "small"]},
    "default": ["large"],
    "tenants": {"tiny": {"experts": ["large"]}},
}
SHADOW = {"thrifty": {"categories": {"code": ["small"]}}}


def never(_: str) -> Classification:
    raise AssertionError("a shadow sees no text")


def version(**parts: Any) -> Version:
    document = complete(PolicyDocument.model_validate(POLICY | parts), {})
    return Version(document, Pool({}), classify=never, model_digest="")


def a_call(data: dict[str, Any], policy: Version, **decision: Any) -> dict[str, Any]:
    """The row of a question about code."""
    chosen = {
        "row": "code",
        "reason": "category",
        "steps": [{"expert": "large", "reason": "category"}, {"expert": "small", "reason": "fallback"}],
        "model_digest": "m",
        "category": "code",
        "confidence": 0.9,
        "unsure": False,
        "probabilities": {"code": 0.9, "law": 0.1},
        "needs": [],
    }
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 500_000}
    return {**data, "policy": policy.digest, "decision": chosen | decision, "usage": usage, "attempts": []}


def kept(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(shadow_choices).order_by(shadow_choices.c.seq, shadow_choices.c.shadow)))


def follower(database: Database, *versions: Version) -> ShadowScores:
    return ShadowScores(database, {one.digest: one for one in versions}.get)


def test_a_call_is_decided_again_by_each_shadow(database: Database, row: Rows, data: Any) -> None:
    policy = version(routing={"shadow": SHADOW | {"alike": {}}})
    follower(database, policy).follow([row(3, a_call(data["call"], policy))])
    alike, thrifty = kept(database)
    assert (alike.shadow, alike.expert, alike.other) == ("alike", "large", "large")
    assert (thrifty.chain, thrifty.seq, thrifty.request_id, thrifty.category) == ("c", 3, "req_1", "code")
    assert (thrifty.shadow, thrifty.expert, thrifty.other) == ("thrifty", "large", "small")
    assert (thrifty.cost_usd, thrifty.other_cost_usd) == (2 + 4, 1 + 0.5)
    assert (thrifty.score, thrifty.other_score) == (None, None)  # this policy knows none
    assert alike.trial != thrifty.trial


@pytest.mark.parametrize(("shown", "tokens"), [({}, 2_000_000), ({"kept": "small"}, 1_000_000)], ids=["last", "kept"])
def test_of_several_attempts_the_tokens_of_the_answer_that_was_shown_count(
    database: Database, row: Rows, data: Any, shown: dict[str, str], tokens: int
) -> None:
    """A trial or a failure before it is no part of what either choice would have paid for the answer."""
    policy = version(routing={"shadow": SHADOW})
    used = {"small": 1_000_000, "large": 2_000_000}
    attempts = [{"expert": name, "usage": {"prompt_tokens": n, "completion_tokens": 0}} for name, n in used.items()]
    follower(database, policy).follow([row(3, a_call(data["call"], policy) | shown | {"attempts": attempts})])
    (found,) = kept(database)
    assert (found.cost_usd, found.other_cost_usd) == (2 * tokens / 1e6, tokens / 1e6)


def test_expected_scores_of_both_are_kept_as_the_policy_in_force_has_them(
    database: Database, row: Rows, data: Any
) -> None:
    policy = version(routing={"shadow": SHADOW})
    recorded = a_call(data["call"], policy, expected={"large": 0.9, "small": 0.7})
    follower(database, policy).follow([row(0, recorded)])
    assert (kept(database)[0].score, kept(database)[0].other_score) == (0.9, 0.7)


def test_rows_that_come_again_are_kept_once(database: Database, row: Rows, data: Any) -> None:
    policy = version(routing={"shadow": SHADOW})
    rows = [row(seq, a_call(data["call"], policy)) for seq in range(3)]
    follower(database, policy).follow(rows[:2])
    second = follower(database, policy)
    assert second.position() == {"c": 1}
    second.follow(rows)
    assert [one.seq for one in kept(database)] == [0, 1, 2]


@pytest.mark.parametrize(
    "decision",
    [
        pytest.param({"arm": "trial"}, id="the other arm of a split"),
        pytest.param({"category": None}, id="nothing was classified"),
    ],
)
def test_what_cannot_be_compared_is_left_out(database: Database, row: Rows, data: Any, decision: Any) -> None:
    policy = version(routing={"shadow": SHADOW})
    follower(database, policy).follow([row(0, a_call(data["call"], policy, **decision))])
    assert kept(database) == []


def test_rows_of_an_older_conclave_of_unknown_policies_and_without_a_decision_are_left_out(
    database: Database, row: Rows, data: Any
) -> None:
    policy, unknown = version(routing={"shadow": SHADOW}), version(routing={"shadow": SHADOW}, name="unknown")
    old = a_call(data["call"], policy)
    del old["decision"]["needs"]
    rows = [old, a_call(data["call"], unknown), data["refused"], data["unauthenticated"], data["genesis"]]
    follower(database, policy).follow([row(seq, one) for seq, one in enumerate(rows)])
    assert kept(database) == []


def test_a_row_of_another_shape_holds_up_none_of_the_others(database: Database, row: Rows, data: Any) -> None:
    """A follower that fails is given the same rows again, for ever."""
    policy = version(routing={"shadow": SHADOW})
    bent = [a_call(data["call"], policy, **change) for change in ({"steps": []}, {"steps": 7}, {"confidence": "high"})]
    follower(database, policy).follow([row(seq, one) for seq, one in enumerate([*bent, a_call(data["call"], policy)])])
    assert [one.seq for one in kept(database)] == [3]


def test_the_control_of_a_split_counts_as_the_policy(database: Database, row: Rows, data: Any) -> None:
    policy = version(routing={"shadow": SHADOW, "split": {"name": "x", "share": 0.5}})
    follower(database, policy).follow([row(0, a_call(data["call"], policy, arm="control"))])
    assert kept(database)[0].other == "small"


def test_a_shadow_never_widens_a_tenants_reach(database: Database, row: Rows, data: Any) -> None:
    policy = version(routing={"shadow": SHADOW})
    follower(database, policy).follow([row(0, {**a_call(data["call"], policy), "tenant": "tiny"})])
    assert kept(database)[0].other == "large"


def test_a_shadow_that_has_nobody_for_a_request_says_so(database: Database, row: Rows, data: Any) -> None:
    policy = version(routing={"shadow": SHADOW})
    follower(database, policy).follow([row(0, a_call(data["call"], policy, needs=["audio", "files", "moderations"]))])
    assert (kept(database)[0].expert, kept(database)[0].other) == ("large", None)


def test_an_unknown_price_or_count_makes_no_cost(database: Database, row: Rows, data: Any) -> None:
    policy = version(routing={"shadow": {"x": {"categories": {"code": ["unpriced"]}}, **SHADOW}})
    recorded = a_call(data["call"], policy)
    follower(database, policy).follow([row(0, recorded), row(1, {**recorded, "usage": None})])
    costs = {(one.shadow, one.seq): one.other_cost_usd for one in kept(database)}
    assert costs == {("x", 0): None, ("x", 1): None, ("thrifty", 0): 1.5, ("thrifty", 1): None}


def test_under_observe_a_shadow_routes_so_that_its_worth_is_seen_before(
    database: Database, row: Rows, data: Any
) -> None:
    policy = version(stages={"route": "observe"}, default=["small"], routing={"shadow": {"routed": {}}})
    observed = a_call(
        data["call"], policy, row="default", reason="observe", steps=[{"expert": "small", "reason": "observe"}]
    )
    follower(database, policy).follow([row(0, observed)])
    assert (kept(database)[0].expert, kept(database)[0].other) == ("small", "large")


def test_a_row_of_a_past_version_is_compared_with_that_one(database: Database, row: Rows, data: Any) -> None:
    """After a change of the policy, rows that were written under the one before are still followed."""
    store = PolicyStore(database)
    policy = version(routing={"shadow": SHADOW})
    store.add(policy.document, origin="file", source="f", author=None)
    store.add(version(default=["small"]).document, origin="file", source="f", author=None)
    ShadowScores(database, PastVersions(store).find).follow([row(0, a_call(data["call"], policy))])
    assert kept(database)[0].other == "small"
