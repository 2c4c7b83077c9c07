"""What a policy's scores, budget, pins and bans come to: rows, fallbacks, choices, and problems with their lines."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.access.scope import Scope
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import Unsupported
from conclave.gateway.policy.canonical import UnreadableError, canonical, document_of
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.source import ConfigError
from conclave.gateway.policy.table import table_of, wanted_of
from conclave.gateway.settings import load_settings
from conclave.router.api import Decision

Publish = Callable[..., Version]
Ask = Callable[..., ModelRequest]
URL = "http://127.0.0.1:1/v1"


def expert(size_b: float | None, usd: float, **more: Any) -> dict[str, Any]:
    return {"base_url": URL, "model": "m", "size_b": size_b, "price": {"input": usd, "output": usd}, **more}


EXPERTS = {
    "small": expert(8, 0.1, latency_ms=300),
    "coder": expert(32, 0.5, latency_ms=900, active_b=3),
    "big": expert(72, 1.5, latency_ms=2000),
    "api": expert(None, 4, latency_ms=1200),
}


def row(**scores: float) -> dict[str, Any]:
    return {name: {"score": score, "error": 0.02} for name, score in scores.items()}


SCORES = {
    "code": row(small=0.5, coder=0.8, big=0.7, api=0.85),
    "math": row(small=0.5, coder=0.6, big=0.8, api=0.9),
    "law": row(small=0.5, coder=0.4, big=0.7, api=0.8),
}


PLAIN: dict[str, Any] = {"experts": EXPERTS, "categories": {}, "default": [], "aliases": {}, "tenants": {}}
NOTHING: dict[str, Any] = {}


def document(experts: dict[str, Any] = EXPERTS, **parts: Any) -> PolicyDocument:
    routing = {"scores": SCORES} | parts.pop("routing", {})
    return complete(PolicyDocument.model_validate({"experts": experts, "routing": routing, **parts}), {})


def test_without_scores_the_policys_own_rows_are_the_table() -> None:
    table = table_of(document(routing={"scores": {}}, categories={"code": ["coder", "api"]}, default=["api"]))
    assert (dict(table.rows), table.default) == ({"code": ("coder", "api")}, ("api",))
    assert not table.scores


@pytest.mark.parametrize(
    ("routing", "rows"),
    [
        pytest.param({}, {"code": "api", "math": "api", "law": "api", "default": "api"}, id="the-best"),
        pytest.param(
            {"budget": {"usd_per_call": 0.0001}},
            {"code": "small", "math": "small", "law": "small", "default": "small"},
            id="money-for-the-cheapest-alone",
        ),
        pytest.param(
            {"budget": {"hosted_b": 40}, "bans": {"api": ["code", "math", "law"]}},
            {"code": "coder", "math": "coder", "law": "small", "default": "api"},
            id="room",
        ),
        pytest.param({"pins": {"code": "small"}}, {"code": "small", "math": "api"}, id="a-pin"),
        pytest.param({"answer_worth_usd": 0.01}, {"code": "coder", "math": "big", "law": "big"}, id="worth"),
    ],
)
def test_the_rows_come_from_scores_and_budget(routing: dict[str, Any], rows: dict[str, str]) -> None:
    table = table_of(document(routing=routing))
    first = {name: members[0] for name, members in {**table.rows, "default": table.default}.items()}
    assert {name: first[name] for name in rows} == rows


def test_the_other_experts_follow_by_score_unless_they_are_banned_or_not_hosted() -> None:
    assert table_of(document()).rows["math"] == ("api", "big", "coder", "small")
    banned = table_of(document(routing={"bans": {"coder": ["math"]}}))
    assert banned.rows["math"] == ("api", "big", "small")
    assert banned.rows["code"] == ("api", "coder", "big", "small")
    limited = table_of(document(routing={"budget": {"hosted_b": 40, "usd_per_call": 0.002}}))
    assert {name for members in limited.rows.values() for name in members} == {"coder", "api"}


def test_a_row_that_the_policy_says_wins_and_its_room_is_counted() -> None:
    said = document(categories={"code": ["big", "small"]}, routing={"budget": {"hosted_b": 72}})
    table = table_of(said)
    assert table.rows["code"] == ("big", "small")
    assert "code" not in table.solved
    assert {*table.rows["law"], *table.default} <= {"api", "big"}


def test_a_default_row_that_the_policy_says_stays() -> None:
    table = table_of(document(default=["small", "big"], routing={"budget": {"hosted_b": 79}}))
    assert table.default == ("small", "big")
    assert table.rows["code"] == ("api", "small")  # with `small` there is no room for `big`


def test_a_category_that_nobody_measured_is_the_default_rows_and_weighs_there() -> None:
    wanted = wanted_of(document())
    assert set(wanted.scores) == {"code", "math", "law", "any"}
    assert wanted.shares()["any"] == pytest.approx(12 / 15)  # eleven categories, and the unsure questions


def test_an_expert_without_a_score_in_a_category_is_judged_by_its_others() -> None:
    scores = {"code": row(coder=0.8, api=0.6), "math": row(coder=0.4)}
    assert wanted_of(document(routing={"scores": scores})).scores["math"]["api"].score == 0.6
    assert table_of(document(routing={"scores": scores})).rows["math"] == ("api", "coder")
    said = scores | {"any": row(api=0.3)}
    assert table_of(document(routing={"scores": said})).rows["math"] == ("coder", "api")


def test_facts_are_per_call_and_active_parameters_are_all_unless_it_says_less() -> None:
    facts = wanted_of(document(routing={"tokens": {"input": 1000, "output": 1000}})).experts
    assert facts["coder"] == {"hosted_b": 32, "usd_per_call": 0.001, "latency_ms": 900, "active_b": 3}
    assert (facts["small"]["active_b"], facts["api"].get("hosted_b")) == (8, None)


def test_adding_and_removing_an_expert_re_solves_and_needs_no_other_change() -> None:
    new = {**EXPERTS, "best": expert(None, 3)}
    scores = {category: {**known, **row(best=0.95)} for category, known in SCORES.items()}
    with_it = document(new, routing={"scores": scores, "budget": {"usd_per_call": 0.0035}})
    without = document(routing={"scores": scores, "budget": {"usd_per_call": 0.0035}})
    assert {members[0] for members in table_of(with_it).rows.values()} == {"best"}
    assert "best" not in {name for members in table_of(without).rows.values() for name in members}


def test_the_same_document_is_the_same_table_after_it_was_stored() -> None:
    said = document(routing={"budget": {"hosted_b": 110, "usd_per_call": 0.001}, "pins": {"law": "small"}})
    again = document_of(canonical(said))
    assert again == said
    assert table_of(again) == table_of(said)


def test_the_whole_policy_is_one_table_for_all_tenants(publish: Publish) -> None:
    published = publish(**PLAIN | {"tenants": {"t": {"experts": ["api"]}}}, routing={"scores": SCORES})
    assert published.rules_for("t").table is published.rules_for("any").table


@pytest.fixture
def decide(publish: Publish, ask: Ask, classifier: Any) -> Callable[..., Decision]:
    def decided(category: str = "code", *, unsure: bool = False, asked: dict[str, Any] = NOTHING, **parts: Any) -> Any:
        classifier.says = replace(classifier.says, category=category, unsure=unsure)
        rules = publish(**PLAIN | parts).rules_for("any")
        request = ask(**asked)
        return rules.decide(request, rules.read(request), Scope())

    return decided


def experts(decision: Decision) -> list[str]:
    return [step.expert for step in decision.steps]


@pytest.mark.parametrize(
    ("category", "more", "order", "reason"),
    [
        pytest.param("code", {}, ["coder", "big", "small"], "category", id="category"),
        pytest.param("law", {}, ["small", "big"], "pin", id="pin"),
        pytest.param("code", {"unsure": True}, ["small", "big", "coder"], "unsure", id="unsure"),
        pytest.param("medicine", {}, ["small", "big", "coder"], "not_listed", id="not-listed"),
        pytest.param("math", {"asked": {"model": "auto:cheap"}}, ["small", "coder", "big"], "cheapest", id="cheapest"),
        pytest.param("math", {"asked": {"model": "auto:best"}}, ["big", "coder", "small"], "best", id="best"),
    ],
)
def test_a_decision_follows_the_table_and_says_what_each_is_expected_to_score(
    decide: Callable[..., Decision], *, category: str, more: dict[str, Any], order: list[str], reason: str
) -> None:
    routing = {
        "scores": {c: {n: s for n, s in known.items() if n != "api"} for c, known in SCORES.items()},
        "pins": {"law": "small"},
        "bans": {"coder": ["law"]},
        "answer_worth_usd": 0.002,
    }
    decision = decide(category, routing=routing, **more)
    assert (experts(decision), decision.reason) == (order, reason)
    row = SCORES.get(category, {}) if reason not in {"unsure", "not_listed"} else {}
    assert set(decision.expected) == set(order)
    if row:
        assert decision.expected == {name: row[name]["score"] for name in order}


def test_the_policys_threshold_makes_a_question_unsure(decide: Callable[..., Decision]) -> None:
    assert decide(routing={"scores": SCORES, "unsure": {"below": 0.95}}).reason == "unsure"  # its confidence is 0.9
    assert decide(unsure=True, routing={"scores": SCORES, "unsure": {"below": 0.5}}).reason == "category"


def test_a_banned_expert_is_no_detour_either_but_can_be_named(decide: Callable[..., Decision]) -> None:
    images = {name: {**one, "capabilities": ["images"] if name == "api" else []} for name, one in EXPERTS.items()}
    routing = {"scores": SCORES, "bans": {"api": ["law"]}}
    with pytest.raises(Unsupported, match="banned from its category"):
        decide("law", asked={"needs": ("images",)}, experts=images, routing=routing)
    assert experts(decide("math", asked={"needs": ("images",)}, experts=images, routing=routing)) == ["api"]
    assert experts(decide("law", asked={"model": "api"}, experts=images, routing=routing)) == ["api"]


def test_a_row_without_its_pinned_expert_is_a_detour(decide: Callable[..., Decision]) -> None:
    sees = {name: {**one, "capabilities": ["images"] if name == "api" else []} for name, one in EXPERTS.items()}
    decision = decide(
        "law", asked={"needs": ("images",)}, experts=sees, routing={"scores": SCORES, "pins": {"law": "big"}}
    )
    assert (experts(decision)[0], decision.reason) == ("api", "detour")
    assert decision.expected == {"api": 0.8}


def test_an_expert_on_trial_from_another_row_is_expected_to_score_too(decide: Callable[..., Decision]) -> None:
    cascade = {"weak": "small", "strong": "api"}
    decision = decide(categories={"code": ["coder"]}, routing={"scores": SCORES, "cascade": cascade})
    assert (experts(decision), decision.expected) == (
        ["small", "api", "coder"],
        {"small": 0.5, "api": 0.85, "coder": 0.8},
    )


def test_what_an_expert_takes_of_the_budget_is_a_cost_without_a_quality_head_too() -> None:
    """Or a conversation would stay with the dear expert whatever the budget is."""
    table = table_of(document(routing={"budget": {"usd_per_call": 0.001}}))
    assert table.costs["api"] > table.costs["big"] > table.costs["small"] > 0


def test_the_same_decision_comes_out_again(decide: Callable[..., Decision]) -> None:
    routing = {"scores": SCORES, "budget": {"hosted_b": 110, "usd_per_call": 0.001}}
    assert decide("math", routing=routing) == decide("math", routing=routing)


FILE = """\
policy:
  experts:
    small: {base_url: http://127.0.0.1:1/v1, model: s, size_b: 8, price: {input: 1, output: 1}}
    big: {base_url: http://127.0.0.1:1/v1, model: b, size_b: 72, price: {input: 9, output: 9}}
    odd: {base_url: http://127.0.0.1:1/v1, model: own}
  routing:
    scores:
      code: {small: {score: 0.5}, big: {score: 0.8}}
      law:
        small: {score: 0.6}
        biig: {score: 0.6}
"""


def load(tmp_path: Path, more: str) -> Any:
    file = tmp_path / "c.yaml"
    file.write_text(FILE + more)
    return load_settings(file)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("    budget:\n      usd_per_call: 0.0001\n", "13: .*budget.usd_per_call: no table fits: the cheapest"),
        ("    budget:\n      hosted_b: 5\n", "13: .*budget.hosted_b: no table fits: .* takes 8 billion"),
        ("    budget:\n      latency_ms: 500\n", "13: .*budget.latency_ms: latency_ms of .* 'small' is not"),
        ("    pins: {math: odd}\n    answer_worth_usd: 1\n", "13: .*answer_worth_usd: usd_per_call of .* 'odd'"),
        ("    pins:\n      law: bg\n", "13: .*pins.law: unknown expert 'bg'; did you mean 'big'"),
        ("    pins:\n      lwa: big\n", "13: .*pins.lwa: 'lwa' is none of .*; did you mean 'law'"),
        ("    bans:\n      bg: [law]\n", "13: .*bans.bg: unknown expert 'bg'; did you mean 'big'"),
        ("    bans:\n      big: [lwa]\n", r"13: .*bans.big\[0\]: 'lwa' is none .*; did you mean 'law'"),
        ("    bans: {big: [law]}\n    pins: {law: big}\n", "13: .*pins.law: 'big' is banned from law"),
        ("    pins:\n      law: big\n  categories: {law: [big]}\n", "13: .*pins.law: law has a row in categories, too"),
        ("    bans: {big: [law]}\n  categories: {law: [small, big]}\n", r"13: .*categories.law\[1\]: 'big' is banned"),
        ("    bans: {small: [law], big: [law]}\n", "9: policy.routing.scores.law: nobody may serve law"),
        ("    weights: {code: 0, law: 0, any: 0}\n    budget: {hosted_b: 80}\n", None),
        ("    answer_worth_usd: 1.0e-310\n", "12: .*answer_worth_usd: .*greater than or equal to 0.000001"),
        ("    weights: {code: -1}\n", "12: .*weights.code: .*greater than or equal to 0"),
        ("    unsure: {below: 2}\n", "12: .*unsure.below: .*less than or equal to 1"),
        (
            "    own_categories: {default: {examples: [a]}}\n",
            "12: .*own_categories.default: 'default' is what a policy",
        ),
        ("    shadow: {t: {routing: {budget: {hosted_b: 1}}}}\n", "12: .*shadow.t.*: no table fits"),
    ],
)
def test_a_contradiction_is_said_with_its_line(tmp_path: Path, more: str, words: str | None) -> None:
    if words is None:
        load(tmp_path, more)
        return
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, more)


def test_scores_of_an_expert_that_is_not_here_are_a_warning(tmp_path: Path) -> None:
    """An expert may be taken out of the policy and come back: its scores stay true."""
    (warning,) = load(tmp_path, "").warnings
    assert str(warning).partition("c.yaml")[2] == (
        ":11: policy.routing.scores.law.biig: 'biig' has scores but is no expert here; did you mean 'big'?"
    )


def test_scores_of_nobody_here_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("policy: {routing: {scores: {code: {gone: {score: 0.5}}}}}")
    with pytest.raises(ConfigError, match="nobody may serve"):
        load_settings(file)


def test_a_stored_policy_with_a_pin_on_nobody_cannot_be_used() -> None:
    raw = canonical(document()).replace(b'"pins":{}', b'"pins":{"law":"gone"}')
    with pytest.raises(UnreadableError, match=r"routing.pins.law: unknown expert 'gone'"):
        document_of(raw)
