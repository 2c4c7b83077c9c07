"""Routing on the conversation: what a follow-up is about, and who goes on answering."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.router.api import Classification, Decision, Step, Talk
from conclave.router.conversation import Rule, blended, classify_turns, leans, settled

FOLLOW_UPS = ["commit it", "make it shorter", "and in Python?", "thanks", "why?", "continue", "translate it to German",
              "do it again but with a loop", "what about the second one?", "can you make this more formal", "", "  ",
              "\u7ee7\u7eed", "yes please", "shorter"]  # fmt: skip
SUBJECTS = ["Who was Napoleon?", "Is it true that cats purr when they hunger?", "now what is the capital of France?",
            "Explain quantum entanglement", "add unit tests", "x" * 5000, "word " * 5000,
            "That reminds me: what is the capital of Peru?"]  # fmt: skip


@pytest.mark.parametrize("text", FOLLOW_UPS)
def test_a_follow_up_leans_on_what_was_said(text: str) -> None:
    assert leans(text)


@pytest.mark.parametrize("text", SUBJECTS, ids=[text[:20] for text in SUBJECTS])
def test_a_turn_with_a_subject_of_its_own_does_not(text: str) -> None:
    assert not leans(text)


@given(st.text(max_size=300))
def test_no_text_is_too_odd(text: str) -> None:
    assert leans(text) in {True, False}


def found(category: str, confidence: float = 0.9, *, unsure: bool = False) -> Classification:
    rest = {"code": 0.0, "law": 0.0, "math": 0.0} | {category: confidence}
    others = [name for name in rest if name != category]
    return Classification(
        category, confidence, unsure, {**rest, **dict.fromkeys(others, (1 - confidence) / len(others))}
    )


class Said:
    """Classifies by the text's first word, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, text: str) -> Classification:
        self.asked.append(text)
        category, _, how = text.partition(" ")
        known = category in {"code", "law", "math"}
        return found(category if known else "law", 0.9 if known else 0.4, unsure=not known or how.endswith("unsure"))


def test_a_sure_turn_with_a_subject_is_taken_as_it_is_and_no_other_is_looked_at() -> None:
    said = Said()
    category, turns = classify_turns(["law of the sea", "code that sorts three lists"], said, Rule())
    assert (category.category, turns, len(said.asked)) == ("code", (), 1)


def test_a_follow_up_takes_its_subject_from_before() -> None:
    category, turns = classify_turns(["code that sorts three lists", "commit it"], Said(), Rule())
    assert (category.category, category.unsure) == ("code", False)
    assert [(turn.weight, turn.category) for turn in turns] == [(0.25, "law"), (1.0, "code")]


def test_follow_ups_in_a_row_reach_back_to_the_subject() -> None:
    category, _ = classify_turns(["code that sorts three lists", "and then?", "commit it"], Said(), Rule())
    assert (category.category, category.unsure) == ("code", False)


def test_looking_back_ends_at_a_turn_that_says_enough() -> None:
    said = Said()
    classify_turns(["law of the sea", "code that sorts three lists", "commit it"], said, Rule())
    assert said.asked == ["commit it", "code that sorts three lists"]


def test_no_more_turns_are_looked_at_than_the_rule_says() -> None:
    said = Said()
    classify_turns(["odd words with no subject known"] * 50, said, Rule(turns=3))
    assert len(said.asked) == 4


@pytest.mark.parametrize(
    ("turns", "rule"), [(["code it", "it"], Rule(turns=0)), (["it"], Rule())], ids=["off", "alone"]
)
def test_a_last_turn_that_stands_alone_is_taken_as_it_is(turns: list[str], rule: Rule) -> None:
    assert classify_turns(turns, Said(), rule)[1] == ()


def test_an_unsure_turn_counts_more_than_an_older_one() -> None:
    category, turns = classify_turns(["math of seven open problems", "law unknown matters of unsure"], Said(), Rule())
    assert [turn.weight for turn in turns] == [1.0, 0.5]
    assert (category.category, category.unsure) == ("law", True)


ONE = st.builds(found, st.sampled_from(["code", "law", "math"]), st.floats(0.34, 1.0), unsure=st.booleans())


@given(st.lists(st.tuples(ONE, st.floats(0.01, 1)), min_size=1, max_size=6))
def test_the_blend_is_a_distribution_and_its_category_the_argmax(turns: list[tuple[Classification, float]]) -> None:
    blend = blended([one for one, _ in turns], [weight for _, weight in turns])
    assert sum(blend.probabilities.values()) == pytest.approx(1)
    assert blend.confidence == max(blend.probabilities.values()) == blend.probabilities[blend.category]


DECISION = Decision((Step("a", "category"), Step("b", "fallback")), "category", "code", found("code"))
UNSURE = Decision((Step("a", "unsure"), Step("b", "fallback")), "unsure", "default", found("code", 0.4, unsure=True))


@pytest.mark.parametrize("reach", [DECISION, UNSURE], ids=["sure", "unsure"])
@pytest.mark.parametrize("worth", [{}, {"a": 1.0, "b": 0.0}], ids=["no-scores", "scores"])
def test_in_a_tool_loop_the_expert_goes_on_whatever_another_is_worth(reach: Decision, worth: dict[str, float]) -> None:
    stuck = settled(reach, Talk("b", open_loop=True), Rule(), worth=worth, unsure=False)
    assert stuck.steps == (Step("b", "tool_loop"), Step("a", "fallback"))


@pytest.mark.parametrize(
    ("gain", "first"), [(0.04, "b"), (0.05, "b"), (0.2, "a"), (-0.3, "b")], ids=["less", "equal", "more", "loss"]
)
@pytest.mark.parametrize("unsure", [False, True], ids=["sure", "unsure"])
def test_with_scores_the_expert_changes_only_for_a_gain_beyond_the_handoff(
    gain: float, first: str, unsure: bool
) -> None:
    worth = {"a": 0.5, "b": 0.5 - gain}
    decision = settled(DECISION, Talk("b"), Rule(handoff=0.05 + 1e-9), worth=worth, unsure=unsure)
    assert decision.steps[0].expert == first


@pytest.mark.parametrize(("unsure", "first"), [(True, "b"), (False, "a")], ids=["unsure", "sure"])
def test_without_scores_the_expert_stays_where_the_category_is_unsure(unsure: bool, first: str) -> None:
    assert settled(DECISION, Talk("b"), Rule(), worth={"a": 0.9}, unsure=unsure).steps[0].expert == first


def test_an_expert_from_another_row_keeps_the_row_as_its_fallbacks() -> None:
    stuck = settled(UNSURE, Talk("z"), Rule(), worth={}, unsure=True)
    assert [step.expert for step in stuck.steps] == ["z", "a", "b"]
    assert stuck.reason == "stays"


@pytest.mark.parametrize(
    ("talk", "rule"), [(Talk(), Rule()), (Talk("a"), Rule()), (Talk("b"), Rule(stick=False))],
    ids=["unknown", "the-same", "switched-off"],
)  # fmt: skip
def test_nothing_changes_where_nobody_is_to_stay(talk: Talk, rule: Rule) -> None:
    assert settled(UNSURE, talk, rule, worth={}, unsure=True) is UNSURE
