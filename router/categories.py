"""Categories of the user's own, beside the shipped ones: learned from a few examples when a policy is published.

A linear discriminant with the covariance of the shipped categories' texts (Fisher 1936, shrunk towards a ball) points
from those texts to the examples. A text belongs to the new category to the degree that it lies beyond what nearly all
of them reach. The shipped weights stay as they are: probabilities of the shipped categories are scaled down together,
so that their order and their ratios never change.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from conclave.router.api import Classification

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from conclave.router.classify import Router

LEAST_EXAMPLES: Final = 8
MOST_EXAMPLES: Final = 1000  # more say nothing new, and the work is done whenever a policy is published
FALSE_SHARE: Final = 0.01  # of the shipped categories' texts may be taken for the new one
SHRINKAGE: Final = 3.0  # of the covariance towards its mean variance; chosen on sources taken for new categories
STEEPNESS: Final = 3.0  # log-odds of a typical example
FOLDS: Final = 8  # examples are judged by what is learned from the others
LEAST_FOUND: Final = 0.25  # of the examples; fewer, and they have nothing in common that others lack


@dataclass(frozen=True, slots=True)
class Discriminant:
    """One new category: log-odds `slope * (direction @ vector - start)`."""

    direction: "NDArray[np.float32]"  # [dimensions]
    start: float
    slope: float

    def probability(self, vector: "NDArray[np.float32]") -> float:
        """That a text with this vector belongs to the category."""
        odds = self.slope * (float(self.direction @ vector) - self.start)
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, odds))))


class OwnCategories:
    """The shipped classifier and the new categories. Its `classify` has the new ones after the shipped ones."""

    __slots__ = ("_new", "_router")

    def __init__(self, router: "Router", new: Mapping[str, Discriminant]) -> None:
        self._router = router
        self._new = new

    @classmethod
    def taught(cls, router: "Router", examples: Mapping[str, Sequence[str]]) -> "OwnCategories":
        """Learn each category from its examples; raises ValueError that names the category and what it lacks."""
        for name in examples:
            if name in router.categories:
                raise ValueError(f"{name!r} is a shipped category; give yours another name")
        return cls(router, {name: learn(router, name, texts) for name, texts in examples.items()})

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories, in the order of `probabilities`."""
        return (*self._router.categories, *self._new)

    def classify(self, text: str) -> Classification:
        """The category of one text, among the shipped and the new ones."""
        reading = self._router.read(text)
        shipped = self._router.decide(reading)
        odds = {name: _odds(new.probability(reading.vector)) for name, new in self._new.items()}
        whole = 1 + math.fsum(odds.values())
        probabilities = {name: share / whole for name, share in shipped.probabilities.items()}
        probabilities |= {name: held / whole for name, held in odds.items()}
        category = max(probabilities, key=probabilities.__getitem__)
        confidence = probabilities[category]
        unsure = confidence < self._router.threshold
        return Classification(category, confidence, unsure=unsure, probabilities=probabilities)

    def classify_batch(self, texts: Sequence[str]) -> list[Classification]:
        """The categories of many texts: the same bits as one by one."""
        return [self.classify(text) for text in texts]


def learn(router: "Router", name: str, texts: Sequence[str]) -> Discriminant:
    """The discriminant of one category; raises ValueError for too few, too many or indistinct examples."""
    import numpy as np  # noqa: PLC0415  with numpy comes a fifth of a second

    distinct = sorted({text.strip() for text in texts} - {""})
    if not LEAST_EXAMPLES <= len(distinct) <= MOST_EXAMPLES:
        raise ValueError(
            f"category {name!r} has {len(distinct)} different examples; it takes {LEAST_EXAMPLES} to {MOST_EXAMPLES}"
        )
    vectors = router.encode(distinct)  # [examples, dimensions]
    others = router.background.astype(np.float32)  # [texts, dimensions]
    mean = others.mean(axis=0)
    covariance = (others - mean).T @ (others - mean) / np.float32(len(others))  # [dimensions, dimensions]
    covariance += np.float32(SHRINKAGE * covariance.trace() / len(mean)) * np.eye(len(mean), dtype=np.float32)

    def toward(examples: "NDArray[np.float32]") -> tuple["NDArray[np.float32]", float]:
        direction: NDArray[np.float32] = np.linalg.solve(covariance, examples.mean(axis=0) - mean)
        return direction, float(np.quantile(others @ direction, 1 - FALSE_SHARE))

    beyond = []  # of each example: how far it lies beyond the start, by what the others taught
    for fold in range(FOLDS):
        held = np.arange(len(vectors)) % FOLDS == fold
        direction, start = toward(vectors[~held])
        beyond += (vectors[held] @ direction - start).tolist()
    found = [distance for distance in beyond if distance > 0]
    if len(found) < LEAST_FOUND * len(beyond):
        raise ValueError(
            f"category {name!r}: from the other examples only {len(found)} of {len(beyond)} are recognised; "
            "give more of them, or some that have more in common"
        )
    direction, start = toward(vectors)
    return Discriminant(direction, start, slope=STEEPNESS / max(sorted(found)[len(found) // 2], 1e-6))


def _odds(probability: float) -> float:
    """Odds against all else; never infinite."""
    return probability / max(1 - probability, 1e-12)
