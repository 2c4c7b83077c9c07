"""Why a text got its category, in words a person can read.

The model is linear, so every cue's share of the distance between the winner and the runner-up is known exactly: the
cues listed are the largest of those shares, not a guess made afterwards.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from conclave.router.api import Classification
from conclave.router.features import SURFACE, ends, evidence, pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from conclave.router.classify import Reading, Router

CUES: Final = 10


class Cue(NamedTuple):
    """What was seen, and what it adds to the winner's log-odds against the runner-up (negative: it speaks against).

    Of the odds as the scores have them, before the winner's probability is corrected by the curve.
    """

    cue: str
    weight: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """A classification and its strongest cues, the strongest first."""

    classification: Classification
    cues: tuple[Cue, ...]


def explain(router: "Router", text: str, *, cues: int = CUES) -> Explanation:
    """The `cues` strongest cues between the winner and the runner-up."""
    reading = router.read(text)
    classification = router.decide(reading)
    first = router.categories.index(classification.category)
    second = router.categories.index(classification.runner_up)
    shares: defaultdict[str, float] = defaultdict(float)
    for name, share in _shares(router, reading, first, second):
        shares[name] += share / router.temperature
    strongest = sorted(shares.items(), key=lambda item: (-abs(item[1]), item[0]))[:cues]
    return Explanation(classification, tuple(Cue(name, weight) for name, weight in strongest if weight))


def _shares(router: "Router", reading: "Reading", first: int, second: int) -> Iterator[tuple[str, float]]:
    """Each cue's part of the difference of the two scores, before the temperature."""
    weights, ids = router.weights, reading.ids
    for name, column, value in zip(SURFACE, weights.surface, reading.surface.tolist(), strict=True):
        yield f"the text's look: {name}", float(column[first] - column[second]) * value
    import numpy as np  # noqa: PLC0415

    direction = weights.vector[:, first] - weights.vector[:, second]
    if router.transformer is not None:  # its vector is not a sum of words
        yield "the text as a whole", float(reading.vector @ direction)
        direction = np.zeros(router.encoder.dimensions, dtype=np.float32)
    if not ids:
        return
    tokens = np.array(ids, dtype=np.int64)
    vocabulary, words = router.encoder.vocabulary, _words(router.encoder.tokens.strings(ids))
    codes = weights.codes[:, [first, second]].astype(np.float32)
    lexical = (codes[:, 0] - codes[:, 1]) * (weights.unit * evidence(len(reading.codes)))
    for word, share in zip(words, _token_shares(router, ids, lexical, direction), strict=True):
        yield f"“{word}”", share
    neighbours = pairwise(words)
    named = [f"“{left} {right}”" if left != right else f"“{left}”" for left, right in neighbours]
    opening, closing = (found.tolist() for found in ends(tokens, vocabulary))
    named += [f"begins with “{word}”" for word in words[: len(opening)]]
    named += [f"ends with “{word}”" for word in words[-len(closing) :]]
    every = [*pairs(tokens, vocabulary).tolist(), *opening, *closing]
    for code, name in dict(zip(reversed(every), reversed(named), strict=True)).items():
        yield name, float(lexical[code])


def _token_shares(
    router: "Router", ids: Sequence[int], lexical: "NDArray[np.float32]", direction: "NDArray[np.float32]"
) -> list[float]:
    """A token's share through the sentence vector and as a word of its own, [tokens]."""
    vectors = router.encoder.token_vectors(ids)  # [tokens, 256]
    total = vectors.sum(axis=0)
    along = vectors @ direction / max(float(total @ total) ** 0.5, 1e-12)  # [tokens]
    return [float(share) + float(lexical[token]) / ids.count(token) for token, share in zip(ids, along, strict=True)]


def _words(pieces: Sequence[str]) -> list[str]:
    """For each token the word it belongs to: `un ##happy` gives `unhappy` twice."""
    words: list[str] = []
    start = 0
    for place, piece in enumerate(pieces):
        if not piece.startswith("##"):
            start = place
        whole = "".join(part.removeprefix("##") for part in pieces[start : place + 1])
        words[start:] = [whole] * (place + 1 - start)
    return words
