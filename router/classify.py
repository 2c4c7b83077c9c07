"""Which category a text belongs to, how sure that is, and whether to say "unsure".

A linear model over the encoder's vector, lexical features and a few properties of the characters, calibrated by one
temperature on sources that the model had not seen. The vector is the static encoder's, or that of a transformer which
the artifact names; the words are split by the static encoder's tokenizer in any case. It reads text and nothing else:
which expert serves a category is the policy's business.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from conclave.router.api import Classification
from conclave.router.conformal import credible
from conclave.router.encoder import ARTIFACTS, ENCODER_FILES, StaticEncoder, excerpt, mapped
from conclave.router.features import FEATURES, code_space, codes, evidence, surface
from conclave.router.transformer import TransformerEncoder, Wanted, check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from conclave.router.categories import OwnCategories
    from conclave.router.explain import Explanation

CLASSIFIER_FILES: Final = ("classifier.safetensors", "classifier.json")
TENSORS: Final = {"codes", "vector", "surface", "bias", "background"}


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """`classifier.json`: what the weights mean."""

    categories: tuple[str, ...]
    features: str
    temperature: float
    curve: tuple[tuple[float, float], ...]  # the winner's probability, and how often such winners were right
    unit: float  # what a step of the codes' weights is worth
    threshold: float  # below this confidence a classification is `unsure`
    floor: float  # a category that reaches it is credible, see conformal.py
    trained_on: dict[str, str]  # file -> SHA-256
    static: dict[str, str] = {}  # files of the shipped encoder that it uses, where its folder has none -> SHA-256
    encoder: Wanted | None = None  # the transformer that makes its vectors; None: the static encoder does


@dataclass(frozen=True, slots=True)
class Weights:
    """The linear model: one column a category."""

    codes: "NDArray[np.int16]"  # [codes, categories], in steps: their sums are exact in any order
    unit: float  # of such a step
    vector: "NDArray[np.float32]"  # [dimensions, categories]
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
    """The classifier; `load` reads the shipped one. Thread-safe: nothing but the encoder's memo changes.

    `encoder` is the static one: it splits words, and others share it. `transformer`, if there is one, makes
    the vectors.
    """

    __slots__ = ("_background", "_head", "_weights", "digest", "encoder", "transformer")

    def __init__(  # noqa: PLR0913  the parts of an artifact; keyword-only but the first three
        self,
        encoder: StaticEncoder,
        head: Head,
        weights: Weights,
        *,
        background: "NDArray[np.float16]",
        digest: str,
        transformer: TransformerEncoder | None = None,
    ) -> None:
        self.encoder = encoder
        self.transformer = transformer
        self._head = head
        self._weights = weights
        self._background = background  # [texts, dimensions], of all categories
        self.digest = digest

    @classmethod
    def load(cls, folder: Path | None = None, *, encoder: Path | None = None) -> "Router":
        """Read a classifier from its folder, and what encodes for it.

        `encoder` is where the transformer that it needs lies, if not where it lay at the training. Raises OSError, and
        ValueError for an artifact of another version or one whose encoder is not that of its training.
        """
        folder = folder or ARTIFACTS
        head = read_head(folder, encoder=encoder)
        static = StaticEncoder.load(static_folder(folder))
        transformer = TransformerEncoder.wanted_by(head.encoder, folder=encoder) if head.encoder is not None else None
        tensors = _tensors_in(folder / CLASSIFIER_FILES[0])
        wanted = code_space(static.vocabulary), (transformer or static).dimensions
        if wanted != (len(tensors["codes"]), len(tensors["vector"])):
            raise ValueError(f"the classifier in {folder} was made for an encoder of another size: train it again")
        tensors["codes"] = mapped(folder / CLASSIFIER_FILES[0], "codes", "I16")
        background = tensors.pop("background")
        weights, digest = Weights(**tensors, unit=head.unit), artifacts_digest(folder)
        return cls(static, head, weights, background=background, digest=digest, transformer=transformer)

    @property
    def is_slow(self) -> bool:
        """Whether a text takes milliseconds, so that it must not be classified where others wait."""
        return self.transformer is not None

    def encode(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """The texts' vectors as the classifier sees them, [texts, dimensions] fp32."""
        return (self.transformer or self.encoder).encode(texts)

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
        """Vectors of texts of all its categories, [texts, dimensions]: what a new category is told apart from."""
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
            vector=self.encoder.pool(tokens) if self.transformer is None else self.transformer.encode([text])[0],
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


def _tensors_in(file: Path) -> "dict[str, NDArray[Any]]":
    """The weights and the background; raises OSError, ValueError."""
    from safetensors import SafetensorError  # noqa: PLC0415  numpy is imported where it is first needed
    from safetensors.numpy import load_file  # noqa: PLC0415

    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if tensors.keys() != TENSORS:
        raise ValueError(f"{file} holds {', '.join(sorted(tensors)) or 'nothing'}, not a classifier's weights")
    return tensors


def read_head(folder: Path, *, encoder: Path | None = None) -> Head:
    """What a classifier's folder says of itself, if all that it needs is there; opens no model.

    Raises OSError and ValueError, as `Router.load`.
    """
    try:
        head = msgspec.json.decode((folder / CLASSIFIER_FILES[1]).read_bytes(), type=Head)
    except msgspec.DecodeError as error:
        raise ValueError(f"{folder / CLASSIFIER_FILES[1]} is no classifier's: {error}") from error
    if head.features != FEATURES:
        raise ValueError(f"the classifier in {folder} was made for features {head.features!r}, not {FEATURES!r}")
    if not head.static and static_folder(folder) != folder:
        raise ValueError(f"the classifier in {folder} was made for an encoder that lay beside it: there is none")
    for name, digest in head.static.items():
        if digest != file_digest(static_folder(folder) / name):
            raise ValueError(f"the classifier in {folder} was made for another {name}: train it again")
    if head.encoder is not None:
        check(head.encoder, folder=encoder or Path(head.encoder.folder))
    elif encoder is not None:
        raise ValueError(f"the classifier in {folder} uses the static encoder; it was not trained on {encoder}")
    return head


def static_folder(folder: Path) -> Path:
    """Where the static encoder of a classifier lies: beside it, else it is the shipped one."""
    return folder if (folder / ENCODER_FILES[0]).exists() else ARTIFACTS


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def artifacts_digest(folder: Path | None = None) -> str:
    """SHA-256 over the names and bytes of the encoder's and the classifier's files; a transformer's stand in one."""
    folder = folder or ARTIFACTS
    digest = hashlib.sha256()
    for name, held in [
        *((name, static_folder(folder)) for name in ENCODER_FILES),
        *((name, folder) for name in CLASSIFIER_FILES),
    ]:
        digest.update(f"{name}\n".encode())
        digest.update(bytes.fromhex(file_digest(held / name)))
    return digest.hexdigest()
