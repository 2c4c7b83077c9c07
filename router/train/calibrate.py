"""From scores on unseen sources to probabilities, a threshold for `unsure`, and the floor of the credible set.

One temperature makes the scores probabilities. What is left is corrected by a curve over the winner's probability: far
from what it was trained on the model is too sure at the top and too modest below (isotonic regression, Zadrozny and
Elkan 2002). All is fitted to predictions for sources that the fold's model had not seen. How well it holds on sources
that it was not fitted to either is measured by `nested_error` and `nested_coverage`, which leave one more source out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from scipy.optimize import isotonic_regression, minimize_scalar
from scipy.special import log_softmax, softmax

from conclave.router.classify import Head, decide
from conclave.router.conformal import floor_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SURE_ACCURACY: Final = 0.80  # what "sure" promises, on unseen sources
SURE_COVERAGE: Final = 0.70  # and of how many at least, where the accuracy allows it
BINS: Final = 15
CURVE_BINS: Final = 12

Curve: TypeAlias = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows of unseen sources: their scores, their labels, how much each counts, and where each came from."""

    scores: "NDArray[np.float32]"  # [rows, categories]
    labels: "NDArray[np.int64]"
    counts: "NDArray[np.float64]"
    sources: Sequence[str]

    def part(self, chosen: "NDArray[np.bool_]") -> "Scored":
        """Some of the rows."""
        sources = [source for source, held in zip(self.sources, chosen, strict=True) if held]
        return Scored(self.scores[chosen], self.labels[chosen], self.counts[chosen], sources)

    def right(self) -> "NDArray[np.bool_]":
        """Which rows are classified rightly; no temperature changes it."""
        found: NDArray[np.bool_] = self.scores.argmax(axis=1) == self.labels
        return found


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns scores into a classification: see `Head`."""

    temperature: float
    curve: Curve
    threshold: float
    floor: float


def calibrate(scored: Scored) -> Calibration:
    """Temperature of least log loss and the curve; then the threshold and the floor that keep their promises."""
    temperature, curve = scale_of(scored)
    probabilities = probabilities_of(scored.scores, temperature, curve)
    return Calibration(
        temperature=temperature,
        curve=curve,
        threshold=threshold_of(probabilities.max(axis=1), scored),
        floor=round(floor_of(of_truth(probabilities, scored).tolist(), scored.sources), 4),
    )


def temperature_of(scored: Scored) -> float:
    """One temperature for all categories (Guo et al. 2017, arXiv 1706.04599)."""
    numbers = np.arange(len(scored.labels))

    def loss(log_temperature: float) -> float:
        found = log_softmax(scored.scores / math.exp(log_temperature), axis=1)[numbers, scored.labels]
        return -float((found * scored.counts).sum())

    best = minimize_scalar(loss, bounds=(math.log(0.25), math.log(4.0)), method="bounded", options={"xatol": 1e-3})
    return round(math.exp(best.x), 4)


def scale_of(scored: Scored) -> tuple[float, Curve]:
    """The temperature, and the curve at it."""
    temperature = temperature_of(scored)
    confidence = softmax(scored.scores / temperature, axis=1).max(axis=1)
    return temperature, curve_of(confidence, scored)


def curve_of(confidence: "NDArray[np.float64]", scored: Scored) -> Curve:
    """How often winners of a probability were right: bins of equal weight, never falling."""
    order = np.argsort(confidence, kind="stable")
    passed = np.cumsum(scored.counts[order])
    bins = np.minimum((passed / passed[-1] * CURVE_BINS).astype(int), CURVE_BINS - 1)
    held = [order[bins == number] for number in range(CURVE_BINS)]
    held = [rows for rows in held if len(rows)]
    right = scored.right()
    weights = np.array([scored.counts[rows].sum() for rows in held])
    means = [np.average(confidence[rows], weights=scored.counts[rows]) for rows in held]
    rates = isotonic_regression(
        [np.average(right[rows], weights=scored.counts[rows]) for rows in held], weights=weights
    )
    points = {round(float(mean), 4): round(float(rate), 4) for mean, rate in zip(means, rates.x, strict=True)}
    return tuple(sorted(points.items()))


def probabilities_of(scores: "NDArray[np.float32]", temperature: float, curve: Curve) -> "NDArray[np.float64]":
    """What the classifier says of the scores, [rows, categories]: many rows of `decide`."""
    names = tuple(str(number) for number in range(scores.shape[1]))
    head = Head(
        categories=names, features="", temperature=1.0, curve=curve, unit=1.0, threshold=0.0, floor=0.0, trained_on={}
    )
    rows = (scores.astype(np.float64) / temperature).tolist()
    return np.array([list(decide(head, row).probabilities.values()) for row in rows])


def threshold_of(confidence: "NDArray[np.float64]", scored: Scored) -> float:
    """The highest threshold that leaves enough rows sure, or the lowest at which the sure ones are right enough."""
    right, counts = scored.right(), scored.counts
    chosen = 0.96
    for threshold in np.arange(0.95, 0.09, -0.01):
        sure = confidence >= threshold
        if (counts * right * sure).sum() < SURE_ACCURACY * (counts * sure).sum():
            break
        chosen = float(round(threshold, 2))
        if (counts * sure).sum() >= SURE_COVERAGE * counts.sum():
            break
    return chosen


def of_truth(probabilities: "NDArray[np.float64]", scored: Scored) -> "NDArray[np.float64]":
    """The right category's probability, [rows]."""
    found: NDArray[np.float64] = probabilities[np.arange(len(scored.labels)), scored.labels]
    return found


def calibration_error(
    confidence: "NDArray[np.float64]", right: "NDArray[np.bool_]", counts: "NDArray[np.float64]"
) -> float:
    """Expected calibration error over equally wide bins (Guo et al. 2017, eq. 3) of weighted rows."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(place, weights=counts * (right - confidence), minlength=BINS)
    return float(np.abs(gaps).sum() / counts.sum())


def nested_error(scored: Scored) -> float:
    """The calibration error of all rows, each source calibrated on all others."""
    confidence = np.zeros(len(scored.labels))
    for held, others in _each_source(scored):
        confidence[held] = probabilities_of(scored.scores[held], *scale_of(others)).max(axis=1)
    return calibration_error(confidence, scored.right(), scored.counts)


def nested_coverage(scored: Scored) -> dict[str, tuple[float, float]]:
    """By source: how often the credible set of a calibration without it holds the right category, and its mean size."""
    found: dict[str, tuple[float, float]] = {}
    for held, others in _each_source(scored):
        scale = scale_of(others)
        floor = floor_of(of_truth(probabilities_of(others.scores, *scale), others).tolist(), others.sources)
        mine = scored.part(held)
        probabilities = probabilities_of(mine.scores, *scale)
        inside = (probabilities >= floor) | (probabilities == probabilities.max(axis=1, keepdims=True))
        covered = inside[np.arange(len(mine.labels)), mine.labels]
        found[mine.sources[0]] = float(covered.mean()), float(inside.sum(axis=1).mean())
    return found


def report(scored: Scored, calibration: Calibration, *, say: Callable[[str], None]) -> None:
    """How good the model and its calibration are on unseen sources, a line a measure."""
    right, counts = scored.right(), scored.counts
    sources = np.array(scored.sources)
    coverage = nested_coverage(scored)
    means = []
    for source in sorted(set(scored.sources)):
        mine = right[sources == source]
        means.append(mine.mean())
        covered, size = coverage[source]
        say(f"unseen source {source:<24} {mine.mean():.3f} of {len(mine):<5} set {covered:.3f}, {size:.1f} categories")
    say(f"mean over unseen sources {np.mean(means):.3f}")
    say(f"categories alike, sources by the root of their size {(right * counts).sum() / counts.sum():.3f}")
    confidence = probabilities_of(scored.scores, calibration.temperature, calibration.curve).max(axis=1)
    sure = confidence >= calibration.threshold
    accuracy = (right * sure * counts).sum() / max((sure * counts).sum(), 1e-9)
    say(f"sure of {(sure * counts).sum() / counts.sum():.3f}, and right in {accuracy:.3f} of them")
    say(f"calibration error {calibration_error(confidence, right, counts):.3f}, nested {nested_error(scored):.3f}")
    say(f"set coverage, nested, sources alike {np.mean([covered for covered, _ in coverage.values()]):.3f}")
    say(f"mean size of the set {np.mean([size for _, size in coverage.values()]):.2f}")
    say(f"temperature {calibration.temperature}, threshold {calibration.threshold}, floor {calibration.floor}")


def _each_source(scored: Scored) -> list[tuple["NDArray[np.bool_]", Scored]]:
    """Each source's rows, and what is left without them."""
    sources = np.array(scored.sources)
    return [(sources == source, scored.part(sources != source)) for source in sorted(set(scored.sources))]
