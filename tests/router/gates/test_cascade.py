"""The gate of a cascade: how sure an answer was, and who stands where."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.router.api import Decision, Outcome, Step
from conclave.router.gates.cascade import (
    Cascade,
    Heard,
    agreement_confidence,
    calibrated,
    entropy_confidence,
    first_token_confidence,
    label_confidence,
    logprob_confidence,
    majority,
    normalised,
    staged,
    variance_confidence,
)

SHARES = st.lists(st.floats(0.001, 1), min_size=2, max_size=20).map(lambda xs: [x / math.fsum(xs) for x in xs])


def by_definition(shares: list[float]) -> tuple[float, float]:
    """Mowst's two dispersions, written as the paper has them."""
    classes = len(shares)
    one_hot = [1.0] + [0.0] * (classes - 1)

    def variance(values: list[float]) -> float:
        mean = sum(values) / classes
        return sum((value - mean) ** 2 for value in values) / classes

    entropy = -sum(share * math.log(share) for share in shares if share)
    return variance(shares) / variance(one_hot), 1 - entropy / math.log(classes)


@given(SHARES)
def test_both_confidences_are_the_papers(shares: list[float]) -> None:
    variance, entropy = by_definition(shares)
    assert variance_confidence(shares) == pytest.approx(variance, abs=1e-9)
    assert entropy_confidence(shares) == pytest.approx(entropy, abs=1e-9)


@pytest.mark.parametrize("measure", [variance_confidence, entropy_confidence])
@pytest.mark.parametrize(
    ("shares", "expected"),
    [([1.0, 0, 0], 1.0), ([0.25] * 4, 0.0), ([1.0], 1.0)],
    ids=["one-has-all", "all-alike", "one-class"],
)
def test_the_ends_of_the_scale(measure: "object", shares: list[float], expected: float) -> None:
    assert measure(shares) == pytest.approx(expected, abs=1e-12)  # type: ignore[operator]


def first(**probabilities: float) -> dict[str, float]:
    return {token: math.log(p) for token, p in probabilities.items()}


def test_tokens_of_one_label_are_one_class() -> None:
    split = {"Yes": math.log(0.5), " yes": math.log(0.3), "No": math.log(0.2)}
    assert label_confidence(Heard(("Yes",), (), split)) == pytest.approx(
        label_confidence(Heard(("yes",), (), first(yes=0.8, no=0.2)))
    )


def test_a_longer_answer_is_no_label() -> None:
    assert label_confidence(Heard(("It may well be so",), (), first(It=0.9))) is None


def test_what_is_not_listed_makes_less_sure_not_more() -> None:
    known = first_token_confidence(Heard(("a",), (), first(a=0.5, b=0.5)))
    assert known is not None
    alone = first_token_confidence(Heard(("a",), (), first(a=0.5)))
    assert alone is not None
    assert alone < known
    assert first_token_confidence(Heard(("a",), (), first(a=0.05))) == pytest.approx(0, abs=0.05)


def test_an_answer_that_chance_drew_is_less_sure_than_the_likely_one() -> None:
    drawn = label_confidence(Heard(("no",), (), first(no=0.05, yes=0.95)))
    likely = label_confidence(Heard(("yes",), (), first(yes=0.95, no=0.05)))
    assert drawn is not None
    assert likely is not None
    assert drawn < 0.1
    assert likely > 0.8


def test_the_probability_of_a_text_is_the_geometric_mean_over_its_tokens() -> None:
    assert logprob_confidence(Heard(("a b",), (math.log(0.9), math.log(0.4)))) == pytest.approx(0.6)


@pytest.mark.parametrize(
    "logprobs",
    [(-1e9,), (5.0,), (-0.0,), (1e308, 1e308), (-1e308, -1e308)],
    ids=["minus-huge", "positive", "zero", "beyond-exp", "beyond-doubles"],
)
def test_odd_probabilities_stay_within_the_scale(logprobs: tuple[float, ...]) -> None:
    found = logprob_confidence(Heard(("a",), logprobs, {"a": logprobs[0]}))
    assert found is not None
    assert 0 <= found <= 1
    one = first_token_confidence(Heard(("a",), logprobs, {"a": logprobs[0]}))
    assert one is not None
    assert 0 <= one <= 1


@pytest.mark.parametrize(
    ("answers", "expected"),
    [(("Paris", "paris.", " PARIS!"), 1.0), (("a1", "b2", "c3"), 0.0), (("Paris", "Lyon", "Paris"), 0.42)],
    ids=["agree", "differ", "two-of-three"],
)
def test_samples_are_compared_by_what_they_say(answers: tuple[str, ...], expected: float) -> None:
    assert agreement_confidence(Heard(answers)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("heard", [Heard(), Heard(("a",))], ids=["nothing", "one"])
def test_one_sample_agrees_with_nobody(heard: Heard) -> None:
    assert agreement_confidence(heard) is None


def test_samples_without_a_word_agree_on_nothing() -> None:
    """Calls of a tool and refusals have no text; three of them say nothing of how sure the expert is."""
    assert agreement_confidence(Heard(("", " ", ""))) is None


def test_a_number_and_its_negative_are_two_answers() -> None:
    assert agreement_confidence(Heard(("5", "-5"))) == pytest.approx(0)


def test_of_endless_samples_the_beginning_is_compared() -> None:
    """An expert that ignores the limit it was given must not hold everybody up: 2 MB would take a second."""
    assert len(normalised("x y " * 500_000)) < 5000


@pytest.mark.parametrize("without", ["accept", "escalate"])
def test_silence_is_not_good_enough_however_sure(without: Any) -> None:
    gate = Cascade(below=0.1, evidence=("logprobs",), without_evidence=without)
    sure = Heard(answers=("",), logprobs=(-0.001,), silent=True)
    assert gate.judge(sure) == Outcome(accepted=False, unsure=True)
    assert not gate.judge(Heard(answers=("",), silent=True)).accepted
    assert gate.judge(Heard(answers=("",), logprobs=(-0.001,))).accepted  # a call of a tool


def test_what_was_measured_is_told_beside_what_the_curve_makes_of_it() -> None:
    """A curve found from its own output would be applied to what it was not made for."""
    gate = Cascade(below=0.5, evidence=("logprobs",), curve=((0.0, 0.0), (1.0, 0.5)))
    found = gate.judge(Heard(("a",), (math.log(0.8),)))
    assert (found.measured, found.confidence) == (pytest.approx(0.8), pytest.approx(0.4))


def test_the_majority_is_shown_as_it_was_written() -> None:
    assert majority(["Lyon", "The Paris", "paris"]) == 1
    assert majority([]) == 0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The  Answer.", "answer"),
        ("(B)", "b"),
        ("\uff21", "a"),
        ("-1", "\u22121"),
        ("\u22121", "\u22121"),
        ("3-1", "3 1"),
        ("- 1", "1"),
        ("...", "..."),
        ("", ""),
        ("A", "a"),
        ("(a)", "a"),
    ],
)
def test_answers_are_compared_without_their_dress(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


def test_the_first_evidence_that_an_answer_gives_counts() -> None:
    gate = Cascade(below=0.5, evidence=("label", "logprobs"))
    label = gate.judge(Heard(("yes",), (math.log(0.1),), first(yes=0.99)))
    assert (label.evidence, label.accepted, label.unsure) == ("label", True, False)
    long = gate.judge(Heard(("one two three four",), (math.log(0.1),), first(one=0.99)))
    assert (long.evidence, long.accepted, long.unsure) == ("logprobs", False, True)


@pytest.mark.parametrize(("choice", "accepted"), [("accept", True), ("escalate", False)])
def test_without_evidence_the_policy_decides(choice: str, accepted: bool) -> None:
    outcome = Cascade(below=0.5, without_evidence=choice).judge(Heard(("a",)))  # type: ignore[arg-type]
    assert (outcome.accepted, outcome.unsure, outcome.confidence) == (accepted, not accepted, None)


@pytest.mark.parametrize(("confidence", "expected"), [(0.0, 0.2), (0.1, 0.2), (0.3, 0.4), (0.5, 0.6), (0.9, 0.6)])
def test_a_curve_is_straight_between_its_points_and_level_beyond(confidence: float, expected: float) -> None:
    assert calibrated(confidence, ((0.1, 0.2), (0.5, 0.6))) == pytest.approx(expected)


def names(decision: Decision) -> list[str]:
    return [step.expert for step in decision.steps]


ROW = Decision(tuple(Step(name, "category") for name in "abc"), "category", "math")


@pytest.mark.parametrize(
    ("weak", "strong", "expected"),
    [(None, None, "abc"), ("c", None, "cab"), ("x", None, "xabc"), ("x", "c", "xcab"), (None, "c", "acb")],
)
def test_the_weak_expert_comes_first_and_the_strong_one_after_it(
    weak: str | None, strong: str | None, expected: str
) -> None:
    found = staged(ROW, Cascade(below=0.5, weak=weak, strong=strong), "abcx")
    assert names(found) == list(expected)
    assert [step.on_trial for step in found.steps] == [True] + [False] * (len(expected) - 1)
    assert [step.reason for step in found.steps[:2]] == ["trial", "escalated"]
    assert (found.reason, found.row) == ("category", "math")


@pytest.mark.parametrize(
    ("weak", "strong", "able"), [("x", None, "abc"), ("a", "x", "abc"), (None, "a", "abc")],
    ids=["weak-not-able", "strong-not-able", "the-same"],
)  # fmt: skip
def test_nothing_changes_where_one_of_the_two_cannot_serve(weak: str | None, strong: str | None, able: str) -> None:
    assert staged(ROW, Cascade(below=0.5, weak=weak, strong=strong), able) is ROW


def test_a_row_of_one_expert_has_no_second() -> None:
    alone = Decision((Step("a", "category"),), "category", "math")
    assert staged(alone, Cascade(below=0.5), "a") is alone
