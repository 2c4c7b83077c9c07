"""Rules with a cascade and a conversation: who is on trial, who goes on, and what the policy may not say."""

from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.access.scope import Scope
from conclave.gateway.call import ModelRequest
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.asked import Asked
from conclave.gateway.policy.choosing import asked_turns
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.remembered import Thread
from conclave.gateway.policy.rules import Rules
from conclave.router.api import Classification, Talk
from conclave.safety.boundary.caps import Caps
from conclave.safety.boundary.segments import read_messages

CAPS = Caps(messages=99, text_chars=9999, nesting=9)
MATH = Classification("math", 0.9, False, {"math": 0.9, "code": 0.1})
VAGUE = Classification("math", 0.4, True, {"math": 0.4, "code": 0.35})


def rules(found: Classification = MATH, *, stages: Any = None, tenant: str = "t", **routing: Any) -> Rules:
    expert = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
    policy = {
        "experts": dict.fromkeys("abc", expert),
        "categories": {"math": ["a", "b"]},
        "default": ["b", "a"],
        "routing": routing,
        "stages": stages or {},
        "tenants": {"narrow": {"experts": ["a", "b"]}},
    }
    document = PolicyDocument.model_validate(policy)
    return Version(document, Pool({}), classify=lambda _: found, model_digest="d").rules_for(tenant)


def ask(found: Classification = MATH, model: str = "auto", **more: Any) -> Asked:
    return Asked(model, "chat", frozenset(more.pop("needs", ())), more.pop("reach", None), found, Talk(**more))


def steps(made: Rules, asked: Asked) -> list[tuple[str, str]]:
    return [(step.expert, step.reason) for step in made.choose(asked).steps]


CASCADE = {"weak": "c", "below": 0.5}
STAGED = [("c", "trial"), ("a", "escalated"), ("b", "fallback")]
PLAIN = [("a", "category"), ("b", "fallback")]


def test_a_weak_expert_from_outside_the_row_comes_first() -> None:
    assert steps(rules(cascade=CASCADE), ask()) == STAGED


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        (rules(cascade=CASCADE), ask(reach=frozenset("ab"))),
        (rules(cascade=CASCADE, tenant="narrow"), ask()),
        (rules(cascade=CASCADE), ask(needs=["n"])),
        (rules(cascade=CASCADE), ask(open_loop=True)),
        (rules(cascade=CASCADE | {"categories": ["law"]}), ask()),
        (rules(cascade=CASCADE, bans={"c": ["math"]}), ask()),
        (rules(), ask()),
    ],
    ids=["key", "tenant", "several", "loop", "category", "ban", "no-cascade"],
)
def test_where_the_weak_expert_may_not_or_should_not_the_row_serves(made: Rules, asked: Asked) -> None:
    assert steps(made, asked) == PLAIN


def test_a_pin_is_not_moved() -> None:
    made = rules(cascade=CASCADE, pins={"law": "b"})
    law = Classification("law", 0.9, False, {"law": 0.9, "math": 0.1})
    assert steps(made, ask(law, before="c"))[0] == ("b", "pin")


@pytest.mark.parametrize("stage", ["observe", "off"])
def test_where_routing_is_not_on_nothing_follows(stage: str) -> None:
    made = rules(cascade=CASCADE, stages={"route": stage})
    assert [name for name, _ in steps(made, ask(before="c", open_loop=True))] == ["b", "a"]


@pytest.mark.parametrize("model", ["auto", "auto:cheap", "auto:best"])
def test_a_tool_loop_is_the_experts_own_whatever_virtual_model_is_asked_for(model: str) -> None:
    assert steps(rules(cascade=CASCADE), ask(model=model, before="c", open_loop=True))[0] == ("c", "tool_loop")


def test_a_named_expert_is_asked_although_another_began_the_loop() -> None:
    assert steps(rules(), ask(model="b", before="c", open_loop=True)) == [("b", "named")]


@pytest.mark.parametrize("more", [{"reach": frozenset("ab")}, {"needs": ["embeddings"]}], ids=["reach", "needs"])
def test_an_expert_that_may_not_or_cannot_serve_does_not_go_on(more: dict[str, Any]) -> None:
    made = rules()
    if "needs" in more:
        with pytest.raises(Exception, match="can do"):
            made.choose(ask(before="c", open_loop=True, **more))
        return
    assert steps(made, ask(before="c", open_loop=True, **more)) == PLAIN


def test_who_goes_on_is_not_put_on_trial_again() -> None:
    assert steps(rules(VAGUE, cascade=CASCADE), ask(VAGUE, before="a"))[0] == ("a", "stays")


def test_the_weak_expert_goes_on_only_as_long_as_it_is_sure() -> None:
    """It answered once because it was sure of that: the next turn is another question."""
    made = rules(VAGUE, cascade=CASCADE)
    assert steps(made, ask(VAGUE, before="c")) == [("c", "trial"), ("b", "escalated"), ("a", "fallback")]


def scored(a: float, b: float) -> dict[str, Any]:
    return {"math": {"a": {"score": a, "error": 0.01, "rows": 9}, "b": {"score": b, "error": 0.01, "rows": 9}}}


@pytest.mark.parametrize(("gap", "first"), [(0.04, "b"), (0.2, "a")])
def test_with_scores_the_expert_changes_only_for_more_than_the_handoff(gap: float, first: str) -> None:
    made = rules(scores=scored(0.5 + gap, 0.5), conversation={"handoff": 0.05})
    assert steps(made, ask(before="b"))[0][0] == first


def test_a_call_says_what_it_took_from_its_conversation() -> None:
    messages = [{"role": "user", "content": "Add 2 and 3"}, {"role": "assistant", "content": "5"},
                {"role": "user", "content": "and again?"}]  # fmt: skip
    segments = read_messages(messages, CAPS).segments
    request = ModelRequest({"messages": messages}, "auto", False, False, frozenset())
    asked = rules().asked(request, segments, Scope(), Thread(before="b"))
    assert (asked.talk.before, asked.talk.open_loop) == ("b", False)
    assert [turn.weight for turn in asked.talk.turns] == [0.25, 1.0]


def test_the_turns_are_the_users_own_words_the_last_one_last() -> None:
    part = [{"type": "text", "text": "two"}, {"type": "text", "text": "parts"}]
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "one"},
                {"role": "user", "content": " "},
                {"role": "assistant", "content": "a"}, {"role": "user", "content": part}]  # fmt: skip
    segments = read_messages(messages, CAPS).segments
    assert asked_turns(segments, 9) == ["one", "two\nparts"]
    assert asked_turns(segments, 1) == ["two\nparts"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"weak": "a", "strong": "a"}, "same expert"),
    ({"evidence": ["agreement"]}, "set samples"),
    ({"samples": 3}, "add agreement"),
    ({"evidence": ["label", "label"]}, "same thing twice"),
    ({"evidence": []}, "at least 1"),
    ({"evidence": ["vibes"]}, "label"),
    ({"below": 1.5}, "less than or equal to 1"),
    ({"samples": 100}, "less than or equal to 8"),
    ({"trial_s": 0}, "greater than 0"),
    ({"curve": [[0.5, 0.2], [0.4, 0.3]]}, "must rise"),
    ({"curve": [[0.1, 0.5], [0.4, 0.3]]}, "must rise"),
    ({"curve": [[0.1, 2]]}, "less than or equal to 1"),
    ({"below": "high"}, "number"),
]


@pytest.mark.parametrize(("cascade", "words"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_what_a_cascade_cannot_mean_is_refused_in_words(cascade: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        rules(cascade=cascade)
