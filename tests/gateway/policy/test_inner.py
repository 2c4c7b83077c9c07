"""What a request may say of a local mixture-of-experts model's inside, and that a scope is never widened by it."""

import random
from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.access.tags import tagged
from conclave.gateway.api.chat import parse
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import Forbidden, InvalidRequest, Unsupported
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.inner import Inner, inner_of
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.rules import Rules
from conclave.router.api import Classification, Step

PLACE = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
EXPERTS = {"local": {**PLACE, "capabilities": ["chat", "moe"]}, "other": PLACE}
MASKED = {
    "experts": ["local", "other"],
    "expert_masks": {"local": [0, 2, 5]},
    "experts_max": {"local": 3},
    "routing_policies": ["topp"],
}


def rules(experts: dict[str, Any] | None = None, **scopes: Any) -> Rules:
    named = {name.replace("_", "."): said for name, said in scopes.items()}
    known = experts or EXPERTS
    policy = PolicyDocument.model_validate({"experts": known, "default": list(known), "scopes": named})
    sure = Classification("code", 0.9, False, {"code": 0.9})
    return Version(policy, Pool({}), classify=lambda _: sure, model_digest="d").rules_for("default")


def asking(moe: Any) -> ModelRequest:
    said = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "conclave": {"moe": moe}}
    return ModelRequest(said, "auto", stream=False, include_usage=False, needs=frozenset())


def sent(policy: Rules, moe: Any, *, expert: str = "local", scopes: tuple[str, ...] | None = None) -> Any:
    """What the expert is sent as `conclave`, once the call was granted what its scope allows."""
    request = asking(moe)
    grant = policy.granted(Grant("default", "k", Scope(None, scopes), deadline_s=1e12), request)
    return policy.compose(request, Step(expert, "category"), scope=grant.scope).body.get("conclave")


WISH = {"policy": {"name": "topp", "p": 0.5}, "experts_max": 4, "experts": [2, 5, 7]}


def test_the_local_model_is_told_all_that_was_asked_and_no_other_expert_a_word() -> None:
    assert sent(rules(), WISH) == {"moe": {**WISH, "experts": (2, 5, 7)}}
    assert sent(rules(), WISH, expert="other") is None
    assert sent(rules(), None) is None


def test_a_scope_masks_and_caps_whatever_is_asked_for() -> None:
    policy = rules(local_synth=MASKED)
    assert sent(policy, WISH, scopes=("local.synth",)) == {
        "moe": {"policy": WISH["policy"], "experts_max": 3, "experts": (2, 5)}
    }
    assert sent(policy, {"experts_max": 2}, scopes=("local.synth",))["moe"]["experts_max"] == 2
    assert sent(policy, None, scopes=("local.synth",)) == {"moe": {"experts_max": 3, "experts": (0, 2, 5)}}


@pytest.mark.parametrize(
    ("moe", "place"),
    [
        ({"policy": "topk"}, "conclave.moe.policy"),
        ({"policy": {"name": "topk", "k": 1}}, "conclave.moe.policy"),
        ({"experts": [1, 3]}, "conclave.moe.experts"),
    ],
)
def test_what_lies_outside_the_scope_is_refused_before_anyone_is_asked(moe: Any, place: str) -> None:
    with pytest.raises(Forbidden) as refused:
        sent(rules(local_synth=MASKED), moe, scopes=("local.synth",))
    assert (refused.value.param, refused.value.code) == (place, "outside_scope")


def test_the_scope_that_allows_the_routing_policy_is_the_one_that_counts() -> None:
    policy = rules(first_read={"routing_policies": []}, second_read={"experts_max": {"local": 2}})
    assert sent(policy, {"policy": "topk"}, scopes=("first.read", "second.read"))["moe"] == {
        "policy": "topk", "experts_max": 2,
    }  # fmt: skip
    assert sent(policy, None, scopes=("first.read", "second.read")) is None


def test_no_draw_of_wishes_ever_widens_a_mask_or_a_cap() -> None:
    dice = random.Random(0)
    policy = rules(local_synth=MASKED)
    for _ in range(300):
        moe = {"experts_max": dice.randint(1, 9), "experts": dice.sample(range(9), dice.randint(1, 9))}
        try:
            inside = sent(policy, moe, scopes=("local.synth",))["moe"]
        except Forbidden:
            assert not set(moe["experts"]) & {0, 2, 5}
            continue
        assert inside["experts_max"] <= min(3, moe["experts_max"])
        assert set(inside["experts"]) == set(moe["experts"]) & {0, 2, 5}


@pytest.mark.parametrize(
    ("moe", "words"),
    [
        ("topp", "must be an object"),
        ([], "must be an object"),
        ({"polcy": "topk"}, "did you mean 'policy'"),
        ({"x" * 5000: 1}, "known: policy"),
        ({"policy": 7}, "must be the name"),
        ({"policy": ""}, "must be the name"),
        ({"policy": "x" * 65}, "must be the name"),
        ({"policy": {"p": 0.5}}, "must be the name"),
        ({"policy": {"name": "topp", "p": [0.5]}}, "settings"),
        ({"policy": {"name": "topp", "p": "x" * 65}}, "settings"),
        ({"policy": {"name": "topp"} | {str(n): n for n in range(16)}}, "settings"),
        ({"experts_max": 0}, "whole number"),
        ({"experts_max": True}, "whole number"),
        ({"experts_max": 2.5}, "whole number"),
        ({"experts_max": 10**30}, "whole number"),
        ({"experts": []}, "begin at 0"),
        ({"experts": 3}, "begin at 0"),
        ({"experts": [-1]}, "begin at 0"),
        ({"experts": [False]}, "begin at 0"),
        ({"experts": [0] * 4097}, "begin at 0"),
    ],
    ids=lambda case: str(case)[:40],
)
def test_what_cannot_be_meant_is_refused_with_its_place(moe: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        inner_of(asking(moe).body)
    assert str(refused.value.param).startswith("conclave.moe")
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("moe", [None, {}, {"policy": None, "experts_max": None, "experts": None}])
def test_nothing_said_is_nothing_asked(moe: Any) -> None:
    assert inner_of(asking(moe).body) == Inner()


def test_where_no_expert_has_an_inside_the_wish_is_refused_and_not_lost() -> None:
    with pytest.raises(Unsupported, match="capability `moe`") as refused:
        sent(rules({"other": PLACE}), WISH)
    assert refused.value.param == "conclave.moe"


def test_the_door_knows_the_field_and_its_misspelling() -> None:
    body = b'{"model":"auto","messages":[{"role":"user","content":"x"}],"conclave":{"%s":{"experts_max":2}}}'
    assert tagged(parse, None)(body % b"moe").body["conclave"] == {"moe": {"experts_max": 2}}
    with pytest.raises(InvalidRequest, match="did you mean 'moe'"):
        tagged(parse, None)(body % b"mo")


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ({"experts": ["other"], "experts_max": {"local": 2}}, "experts_max names 'local'"),
        ({"experts_max": {"local": 0}}, "greater than or equal to 1"),
        ({"experts_max": {"local": 4097}}, "less than or equal"),
        ({"routing_policies": [""]}, "at least 1"),
        ({"routing_policies": "topp"}, "tuple"),
    ],
)
def test_what_no_scope_can_be_is_refused(scope: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PolicyDocument.model_validate({"scopes": {"a.read": scope}})
