"""Calibration: probabilities that mean what they say, fitted on rows whose source the model had not seen."""

import pytest

pytest.importorskip("numba", reason="training needs the `train` extra")

import numpy as np

from conclave.router.classify import Head, corrected, decide
from conclave.router.train.calibrate import (
    Scored,
    calibrate,
    calibration_error,
    nested_coverage,
    nested_error,
    probabilities_of,
    threshold_of,
)

CURVE = ((0.25, 0.30), (0.50, 0.60), (0.90, 0.80))


def scored(*, sharpness: float, rows: int = 3000, sources: int = 30) -> Scored:
    """Rows whose labels are drawn from the softmax of their true scores; what is given is `sharpness` times those."""
    draw = np.random.default_rng(5)
    truth = draw.normal(scale=1.5, size=(rows, 5))
    powers = np.exp(truth - truth.max(axis=1, keepdims=True))
    labels = np.array([draw.choice(5, p=row / row.sum()) for row in powers])
    return Scored(
        (truth * sharpness).astype(np.float32), labels, np.ones(rows), [f"s{n % sources}" for n in range(rows)]
    )


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_probabilities_are_right_however_sharp_the_scores_are(sharpness: float) -> None:
    given = scored(sharpness=sharpness)
    calibration = calibrate(given)
    assert calibration.temperature == pytest.approx(sharpness, rel=0.1)
    found = probabilities_of(given.scores, calibration.temperature, calibration.curve)
    assert calibration_error(found.max(axis=1), given.right(), given.counts) < 0.02
    assert nested_error(given) < 0.03


def test_the_set_keeps_its_promise_for_sources_it_was_not_fitted_to() -> None:
    covered = [share for share, _ in nested_coverage(scored(sharpness=2.0)).values()]
    assert 0.89 <= float(np.mean(covered)) <= 0.95


def test_sure_rows_are_right_as_often_as_promised() -> None:
    given = scored(sharpness=1.0)
    confidence = probabilities_of(given.scores, 1.0, ((0.0, 0.0), (1.0, 1.0))).max(axis=1)
    sure = confidence >= threshold_of(confidence, given)
    assert given.right()[sure].mean() >= 0.8


@pytest.mark.parametrize(
    ("confidence", "expected"), [(0.1, 0.30), (0.25, 0.30), (0.375, 0.45), (0.7, 0.7), (0.9, 0.8), (1.0, 0.8)]
)
def test_the_curve_is_straight_between_its_points_and_level_beyond(confidence: float, expected: float) -> None:
    assert corrected(confidence, CURVE) == pytest.approx(expected)


@pytest.mark.parametrize(
    "logits", [[0.0, -0.001, -0.002], [5.0, 4.99, 0.0], [800.0, 0.0, -800.0], [1.0, 0.9, 0.8], [9.0, 0.0, 1.0]]
)
def test_the_winner_stays_the_winner_and_all_sum_to_one(logits: list[float]) -> None:
    head = Head(
        categories=("a", "b", "c"), features="", temperature=1.0, curve=CURVE, unit=1.0, threshold=0.5, floor=0.1,
        trained_on={},
    )  # fmt: skip
    found = decide(head, logits)
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert found.confidence == max(found.probabilities.values()) == found.probabilities[found.category]
    order = sorted(range(3), key=logits.__getitem__)
    values = [list(found.probabilities.values())[place] for place in order]
    assert values == sorted(values)
