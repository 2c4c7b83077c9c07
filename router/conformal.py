"""Which categories a text may belong to: a set that holds the right one nine times in ten.

Split conformal prediction with the least ambiguous sets (Sadinle, Lei, Wasserman 2019, arXiv 1609.00451): a category is
credible if its probability reaches a floor, and the floor is the one that the right category reached often enough on
rows the model had not seen. What is taken to be exchangeable are *sources*, not rows (Dunn, Wasserman, Ramdas 2022,
arXiv 1809.07441): a row of a source that nobody has seen is covered as often as promised, on average over such sources.
One source alone can lie far off the promise; the card says how far.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

COVERAGE: Final = 0.90


def credible(probabilities: Mapping[str, float], floor: float) -> tuple[str, ...]:
    """The categories that reach the floor, the most probable first; the winner is always among them."""
    first, *others = sorted(probabilities, key=probabilities.__getitem__, reverse=True)
    return (first, *(name for name in others if probabilities[name] >= floor))


def floor_of(of_truth: Sequence[float], sources: Sequence[str], coverage: float = COVERAGE) -> float:
    """The highest floor that the right category's probability reaches often enough, every source counting alike.

    One further source, the one to come, is counted as not covered at all. Where there are too few sources to promise
    that much (9 for nine in ten) the floor is 0, and everything is credible. Raises ValueError for no rows.
    """
    if not of_truth:
        raise ValueError("a conformal floor needs scored rows; there are none")
    held: defaultdict[str, list[float]] = defaultdict(list)
    for source, probability in zip(sources, of_truth, strict=True):
        held[source].append(probability)
    ranked = sorted(((value, 1 / len(values)) for values in held.values() for value in values), reverse=True)
    reached = 0.0
    for value, weight in ranked:
        reached += weight
        if reached >= coverage * (len(held) + 1) - 1e-9:  # the weights are sums of fractions
            return value
    return 0.0
