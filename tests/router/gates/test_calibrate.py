"""The threshold of a cascade from logged pairs: a synthetic pair of experts, of which the truth is known."""

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.router.gates.calibrate import Pair, at_share, escalation, fit, isotonic, worth
from conclave.router.gates.cascade import calibrated, entropy_confidence, variance_confidence

CLASSES = 10
QUESTIONS = 1800  # as many as scikit-learn's digits, on which the design's template was measured


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [power / sum(powers) for power in powers]


def twin(measure: "object", *, seed: int = 7, informative: bool = True) -> list[Pair]:
    """A weak expert that is right in about 7 of 10 questions of ten classes, and a strong one that is in 99 of 100.

    Half of the questions are plain to the weak one, of the others it sees little; its softmax is too sure of itself, as
    softmaxes are. The strong one errs at random.
    """
    rng = random.Random(seed)
    pairs = []
    for _ in range(QUESTIONS):
        logits = [rng.gauss(0, 1) for _ in range(CLASSES)]
        logits[0] += rng.choice([5.0, 1.2])
        sure = measure(softmax([1.5 * one for one in logits])) if informative else rng.random()  # type: ignore[operator]
        right = float(logits[0] == max(logits))
        pairs.append(Pair(sure, right, float(rng.random() < 0.99), weak_usd=0.001, strong_usd=0.02))
    return pairs


MEASURES = pytest.mark.parametrize("measure", [variance_confidence, entropy_confidence], ids=["variance", "entropy"])


@MEASURES
def test_confidence_chooses_better_than_chance(measure: "object") -> None:
    found = worth(twin(measure))
    assert 0 < found.low <= found.area <= found.high
    assert found.pays


@MEASURES
def test_nine_tenths_of_the_gap_are_recovered_at_six_tenths_escalated(measure: "object") -> None:
    points = escalation(twin(measure))
    weak, strong = points[0].score, points[-1].score
    assert strong - weak > 0.15
    assert at_share(points, 0.6).score >= weak + 0.9 * (strong - weak)


def test_a_confidence_that_says_nothing_is_seen_not_to_pay() -> None:
    assert not worth(twin(variance_confidence, informative=False)).pays


def test_the_threshold_escalates_no_more_than_the_target_takes() -> None:
    pairs = twin(variance_confidence)
    found = fit(pairs, recover=0.9)
    asked = [calibrated(pair.confidence, found.curve) < found.below for pair in pairs]
    score = sum(p.strong if strong else p.weak for p, strong in zip(pairs, asked, strict=True)) / len(pairs)
    assert sum(asked) / len(pairs) == pytest.approx(found.at.escalated)
    assert score == pytest.approx(found.at.score)
    assert found.at.escalated < 0.6


def test_a_dearer_strong_expert_is_asked_less() -> None:
    pairs = twin(variance_confidence)
    dear = [replace(pair, strong_usd=0.2) for pair in pairs]
    cheap, costly = fit(pairs, usd_per_score=0.2).at.escalated, fit(dear, usd_per_score=0.2).at.escalated
    assert costly < cheap


def test_where_the_strong_expert_is_no_better_nobody_is_escalated() -> None:
    pairs = [replace(pair, strong=pair.weak) for pair in twin(variance_confidence)]
    found = fit(pairs)
    assert (found.at.escalated, found.below, found.worth.pays) == (0.0, 0.0, False)


def test_the_curve_is_the_probability_of_a_right_answer() -> None:
    pairs = twin(variance_confidence)
    curve = fit(pairs).curve
    fresh = twin(variance_confidence, seed=8)
    gap = 0.0
    for low, high in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.01)):
        bin_ = [p for p in fresh if low <= calibrated(p.confidence, curve) < high]
        if bin_:
            said = sum(calibrated(p.confidence, curve) for p in bin_) / len(bin_)
            gap += abs(said - sum(p.weak for p in bin_) / len(bin_)) * len(bin_) / len(fresh)
    assert gap < 0.05


POINTS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=60)


@given(POINTS)
def test_a_curve_only_rises(points: list[tuple[float, float]]) -> None:
    curve = isotonic([x for x, _ in points], [y for _, y in points])
    assert 1 <= len(curve) <= 20
    assert all(left[0] < right[0] and left[1] <= right[1] for left, right in pairwise(curve))


@given(POINTS)
def test_with_questions_of_one_confidence_there_is_nothing_to_choose(points: list[tuple[float, float]]) -> None:
    assert worth([Pair(0.5, y, 1.0) for _, y in points], resamples=5).area == pytest.approx(0)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (Pair(1.2, 0, 1), "confidence"),
        (Pair(math.nan, 0, 1), "confidence"),
        (Pair(0.5, -1, 1), "weak"),
        (Pair(0.5, 0, 2), "strong"),
        (Pair(0.5, 0, 1, math.inf), "weak_usd"),
    ],
    ids=["beyond", "nan", "negative", "too-good", "infinite"],
)
def test_a_pair_that_is_none_is_named_by_its_number(pair: Pair, words: str) -> None:
    with pytest.raises(ValueError, match=f"pair 3: {words}"):
        fit([Pair(0.5, 0, 1)] * 2 + [pair] + [Pair(0.5, 0, 1)] * 30)


def test_a_few_pairs_are_no_ground_for_a_threshold() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit([Pair(0.5, 0, 1)] * 3)
