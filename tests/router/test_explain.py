"""Explanations: exact shares of the distance between the winner and the runner-up."""

import math

import pytest

from conclave.router.classify import Router
from conclave.router.explain import CUES, explain

TEXT = "Write a Python function that sorts a list of tuples."


def test_the_classification_explained_is_the_one_given(shipped: Router) -> None:
    assert shipped.explain(TEXT).classification == shipped.classify(TEXT)


def test_cues_are_ordered_by_strength_and_bounded(shipped: Router) -> None:
    cues = shipped.explain(TEXT).cues
    assert 0 < len(cues) <= CUES
    assert [abs(cue.weight) for cue in cues] == sorted((abs(cue.weight) for cue in cues), reverse=True)


def test_a_telling_word_is_among_the_cues(shipped: Router) -> None:
    assert any("python" in cue and weight > 0 for cue, weight in shipped.explain(TEXT).cues)


@pytest.mark.parametrize("text", [TEXT, "antidisestablishmentarianism, again", "\ud800", "a a a a"])
def test_all_shares_add_up_to_the_log_odds(shipped: Router, text: str) -> None:
    """Nothing is left out but the bias: with every cue shown, the sum is the distance."""
    explanation = explain(shipped, text, cues=10_000)
    found = explanation.classification
    first, second = map(shipped.categories.index, (found.category, found.runner_up))
    scores = shipped.scores(shipped.read(text))
    odds = (scores[first] - scores[second]) / shipped.temperature  # before the winner's probability is corrected
    bias = float(shipped.weights.bias[first] - shipped.weights.bias[second]) / shipped.temperature
    assert math.fsum(cue.weight for cue in explanation.cues) == pytest.approx(odds - bias, abs=2e-3)


@pytest.mark.parametrize("text", ["", "   ", "x", "\x00\x01", "word " * 100_000], ids=["", "blank", "x", "bin", "long"])
def test_any_text_can_be_explained(shipped: Router, text: str) -> None:
    assert all(math.isfinite(weight) for _, weight in shipped.explain(text).cues)
