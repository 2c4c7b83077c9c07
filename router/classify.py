"""Which category a text belongs to, how sure that is, and whether to say "unsure".

A linear model over the static encoder's vector, lexical features and a few properties of the characters, calibrated by
one temperature on sources that the model had not seen. It reads text and nothing else: which expert serves a category
is the policy's business.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from conclave.router.api import Classification
from conclave.router.conformal import credible
from conclave.router.encoder import ARTIFACTS, ENCODER_FILES, StaticEncoder, excerpt, mapped
from conclave.router.features import FEATURES, code_space, codes, evidence, surface

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from conclave.router.categories import OwnCategories
    from conclave.router.explain import Explanation

CLASSIFIER_FILES: Final = ("classifier.safetensors", "classifier.json")


class Head(msgspec.Struct, frozen=True):
    """`classifier.json`: what the weights mean."""

    categories: tuple[str, ...]
    features: str
    temperature: float
    curve: tuple[tuple[float, float], ...]  # the winner's probability, and how often such winners were right
    unit: float  # what a step of the codes' weights is worth
    threshold: float  # below this confidence a classification is `unsure`
    floor: float  # a category that reaches it is credible, see conformal.py
    trained_on: dict[str, str]  # file -> SHA-256


@dataclass(frozen=True, slots=True)
class Weights:
    """The linear model: one column a category."""

    codes: "NDArray[np.int16]"  # [codes, categories], in steps: their sums are exact in any order
    unit: float  # of such a step
    vector: "NDArray[np.float32]"  # [256, categories]
    surface: "NDArray[np.float32]"  # [measures, categories]
    bias: "NDArray[np.float32]"  # [categories]


@dataclass(frozen=True, slots=True)
class Reading:
    """One text as the model sees it."""

    ids: list[int]
    codes: "NDArray[np.int64]"
    vector: "NDArray[np.float32]"
    surface: "NDArray[np.float32]"


class Router:
    """The classifier; `load` reads the shipped one. Thread-safe: nothing but the encoder's memo changes."""

    __slots__ = ("_background", "_head", "_weights", "digest", "encoder")

    def __init__(
        self, encoder: StaticEncoder, head: Head, weights: Weights, *, background: "NDArray[np.float16]", digest: str
    ) -> None:
        self.encoder = encoder
        self._head = head
        self._weights = weights
        self._background = background  # [texts, 256], of all categories
        self.digest = digest

    @classmethod
    def load(cls, folder: Path | None = None) -> "Router":
        """Read encoder and classifier from one folder; raises ValueError for an artifact of another version."""
        from safetensors.numpy import load_file  # noqa: PLC0415  numpy is imported where it is first needed

        folder = folder or ARTIFACTS
        encoder = StaticEncoder.load(folder)
        head = msgspec.json.decode((folder / CLASSIFIER_FILES[1]).read_bytes(), type=Head)
        tensors = load_file(folder / CLASSIFIER_FILES[0])
        if head.features != FEATURES or len(tensors["codes"]) != code_space(encoder.vocabulary):
            raise ValueError(f"the classifier in {folder} was made for features {head.features!r}, not {FEATURES!r}")
        tensors["codes"] = mapped(folder / CLASSIFIER_FILES[0], "codes", "I16")
        background = tensors.pop("background")
        return cls(
            encoder, head, Weights(**tensors, unit=head.unit), background=background, digest=artifacts_digest(folder)
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories, in the order of `probabilities`."""
        return self._head.categories

    @property
    def threshold(self) -> float:
        """The confidence below which a classification is `unsure`."""
        return self._head.threshold

    @property
    def temperature(self) -> float:
        """What the scores are divided by before they become probabilities."""
        return self._head.temperature

    @property
    def floor(self) -> float:
        """The probability from which a category is credible."""
        return self._head.floor

    @property
    def background(self) -> "NDArray[np.float16]":
        """Vectors of texts of all shipped categories, [texts, 256]: what a new category is told apart from."""
        return self._background

    @property
    def weights(self) -> Weights:
        """The model's weights, for those who explain it."""
        return self._weights

    def classify(self, text: str) -> Classification:
        """The category of one text; an empty or unreadable one gets a decision too, with low confidence."""
        return self.decide(self.read(text))

    def decide(self, reading: Reading) -> Classification:
        """The category of a text that has been read."""
        head = self._head
        return decide(head, [score / head.temperature for score in self.scores(reading)])

    def classify_batch(self, texts: Iterable[str]) -> list[Classification]:
        """The categories of many texts: the same bits as one by one."""
        return [self.classify(text) for text in texts]

    def credible(self, found: Classification) -> tuple[str, ...]:
        """The categories that hold the right one nine times in ten, on average over sources never seen."""
        return credible(found.probabilities, self._head.floor)

    def taught(self, examples: Mapping[str, Sequence[str]]) -> "OwnCategories":
        """This classifier with categories of the user's own; raises ValueError for examples that teach nothing."""
        from conclave.router.categories import OwnCategories  # noqa: PLC0415  only where a policy has some

        return OwnCategories.taught(self, examples)

    def explain(self, text: str) -> "Explanation":
        """The category of one text with its strongest cues."""
        from conclave.router.explain import explain  # noqa: PLC0415  for people; no call needs it

        return explain(self, text)

    def read(self, text: str) -> Reading:
        """What the model sees of a text."""
        import numpy as np  # noqa: PLC0415

        text = excerpt(text)
        ids = self.encoder.tokens.ids(text)
        tokens = np.array(ids, dtype=np.int64)
        return Reading(
            ids=ids,
            codes=codes(tokens, self.encoder.vocabulary),
            vector=self.encoder.pool(tokens),
            surface=np.array(surface(text, ids), dtype=np.float32),
        )

    def scores(self, reading: Reading) -> list[float]:
        """One number a category, before the temperature."""
        import numpy as np  # noqa: PLC0415

        weights = self._weights
        scores = weights.bias + reading.vector @ weights.vector + reading.surface @ weights.surface  # [categories]
        if len(reading.codes):
            steps = np.add.reduce(weights.codes.take(reading.codes, axis=0), axis=0, dtype=np.int32)  # [categories]
            scores += steps * np.float32(weights.unit * evidence(len(reading.codes)))
        found: list[float] = scores.tolist()
        return found


def decide(head: Head, logits: list[float]) -> Classification:
    """Softmax over the scores, in double precision; then the winner gets what the curve says, the others the rest."""
    top = max(logits)
    powers = [math.exp(logit - top) for logit in logits]
    total = math.fsum(powers)
    place = logits.index(top)
    others = total - 1.0  # the winner's power is 1
    confidence = corrected(1.0 / total, head.curve)
    if others > 0:
        second = sorted(powers)[-2]
        confidence = max(confidence, second / (others + second))  # the winner stays the winner
        share = (1.0 - confidence) / others
    else:
        confidence, share = 1.0, 0.0
    shares = [power * share for power in powers]
    shares[place] = confidence
    return Classification(
        category=head.categories[place],
        confidence=confidence,
        unsure=confidence < head.threshold,
        probabilities=dict(zip(head.categories, shares, strict=True)),
    )


def corrected(confidence: float, curve: Sequence[tuple[float, float]]) -> float:
    """The value of the curve, straight between its points and level beyond them."""
    place = bisect_right(curve, (confidence, math.inf))
    if place == 0:
        return curve[0][1]
    if place == len(curve):
        return curve[-1][1]
    (left, low), (right, high) = curve[place - 1 : place + 1]
    return low + (high - low) * (confidence - left) / (right - left)


def artifacts_digest(folder: Path | None = None) -> str:
    """SHA-256 over the names and bytes of the encoder's and the classifier's files."""
    digest = hashlib.sha256()
    for name in (*ENCODER_FILES, *CLASSIFIER_FILES):
        digest.update(f"{name}\n".encode())
        with ((folder or ARTIFACTS) / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
