"""How well each expert will do on this very question: a trained head beside the scores of the question's category.

Three small models of outcome data, added up with weights from questions that they had not seen: the experts' scores by
topic (topics are finer than categories and are recognised from the words), a linear model of the words, and shallow
trees over what topic and form say together. They say by how much an expert differs from the others (its gain); how hard
the question is for all of them is a fourth, linear part. Never names an expert that the data did not hold, and chooses
nobody.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from conclave.router.api import Classification
from conclave.router.cues import CUES_VERSION, cues
from conclave.router.encoder import StaticEncoder, excerpt
from conclave.router.features import FEATURES, codes, evidence, surface

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUALITY_FILES: Final = ("quality.safetensors", "quality.json")
TREE_DEPTH: Final = 3


class HeadFile(msgspec.Struct, frozen=True):
    """`quality.json`: what the tensors mean, and what they were made from."""

    experts: tuple[str, ...]
    topics: tuple[str, ...]
    categories: tuple[str, ...]
    features: str
    cues: str
    trained_on: dict[str, str]  # file -> SHA-256


class Read(Protocol):
    """What the classifier has read of a text; `classify.Reading` is one."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def codes(self) -> "NDArray[np.int64]": ...
    @property
    def vector(self) -> "NDArray[np.float32]": ...
    @property
    def surface(self) -> "NDArray[np.float32]": ...


@dataclass(frozen=True, slots=True)
class Tensors:
    """The models; E experts, T topics, F features of the trees. All are per unit of a share of the gain."""

    seen: "NDArray[np.int64]"  # [codes known] sorted
    lexical: "NDArray[np.float32]"  # [codes known, E gains + 1 level + T topics], as halves in the file
    bias: "NDArray[np.float32]"  # [E + 1 + T]
    dense: "NDArray[np.float32]"  # [vector + surface, T]
    table: "NDArray[np.float32]"  # [T, E + 1] gains and level by topic
    feature: "NDArray[np.int64]"  # [trees, TREE_DEPTH]
    cut: "NDArray[np.float32]"  # [trees, TREE_DEPTH]
    leaf: "NDArray[np.float32]"  # [trees, 2 ** TREE_DEPTH, E]
    mix: "NDArray[np.float32]"  # [3] the shares of table, words and trees in the gain
    ease: "NDArray[np.float32]"  # [2] the shares of table and words in the level
    mean: "NDArray[np.float32]"  # [E] each expert's score over all


class Quality:
    """The head; `load` reads what `conclave router fit` wrote. Thread-safe but for the encoder's memo."""

    __slots__ = ("_encoder", "_offsets", "_tensors", "about", "digest")

    def __init__(self, about: HeadFile, tensors: Tensors, *, encoder: StaticEncoder, digest: str) -> None:
        import numpy as np  # noqa: PLC0415

        self.about = about
        self.digest = digest
        self._encoder = encoder
        self._tensors = tensors
        self._offsets = np.arange(len(tensors.leaf)) << TREE_DEPTH

    @classmethod
    def load(cls, folder: Path, *, encoder: StaticEncoder | None = None) -> "Quality":
        """Read the head in a folder; raises ValueError for one of other features, FileNotFoundError for none."""
        from safetensors.numpy import load_file  # noqa: PLC0415  imported where numpy is

        about = msgspec.json.decode((folder / QUALITY_FILES[1]).read_bytes(), type=HeadFile)
        if (about.features, about.cues) != (FEATURES, CUES_VERSION):
            raise ValueError(
                f"the quality head in {folder} was made for features {about.features!r} and {about.cues!r}, not "
                f"{FEATURES!r} and {CUES_VERSION!r}: run `conclave router fit` again"
            )
        held = load_file(folder / QUALITY_FILES[0])
        missing = [one.name for one in fields(Tensors) if one.name not in held]
        if missing:
            raise ValueError(
                f"the quality head in {folder} lacks {', '.join(missing)}: run `conclave router fit` again"
            )
        held["lexical"] = held["lexical"].astype("float32")  # numpy adds halves five times more slowly
        tensors = Tensors(**{one.name: held[one.name] for one in fields(Tensors)})
        return cls(about, tensors, encoder=encoder or StaticEncoder.load(), digest=quality_digest(folder))

    @property
    def experts(self) -> tuple[str, ...]:
        """Whose scores it expects."""
        return self.about.experts

    def expected(self, text: str, classification: Classification, read: Read | None = None) -> Mapping[str, float]:
        """Each expert's expected score on the question, 0 to 1; `read` saves reading the text again.

        A text without a known word gets what its form and category say, an empty one the experts' means at worst.
        """
        import numpy as np  # noqa: PLC0415

        text = excerpt(text)
        if read is not None:
            found, vector, marks = read.codes, read.vector, read.surface
        else:
            ids = self._encoder.tokens.ids(text)
            tokens = np.array(ids, dtype=np.int64)
            found, vector = codes(tokens, self._encoder.vocabulary), self._encoder.pool(tokens)
            marks = np.array(surface(text, ids), dtype=np.float32)
        shares = [classification.probabilities.get(name, 0.0) for name in self.about.categories]
        form = np.concatenate((np.array(cues(text), dtype=np.float32), marks, np.array(shares, dtype=np.float32)))
        return dict(zip(self.about.experts, self._scores(found, np.concatenate((vector, marks)), form), strict=True))

    def _scores(
        self, found: "NDArray[np.int64]", dense: "NDArray[np.float32]", form: "NDArray[np.float32]"
    ) -> list[float]:
        import numpy as np  # noqa: PLC0415

        held = self._tensors
        experts = len(held.mean)
        words = held.bias.copy()
        if len(found) and len(held.seen):
            place = np.minimum(held.seen.searchsorted(found), len(held.seen) - 1)
            place = place[held.seen[place] == found]
            words += np.add.reduce(held.lexical.take(place, axis=0), axis=0) * np.float32(evidence(len(found)))
        topics = posterior(words[experts + 1 :] + dense @ held.dense)  # [T]
        by_topic = topics @ held.table  # [E + 1]
        gain = held.mix[0] * by_topic[:experts] + held.mix[1] * words[:experts]
        if len(held.leaf):
            features = np.concatenate((by_topic, topics.max(initial=0.0, keepdims=True), form))
            bits = features.take(held.feature) > held.cut  # [trees, depth]
            leaves = (bits @ _PLACES).astype(np.int64) + self._offsets
            gain += held.mix[2] * held.leaf.reshape(-1, experts).take(leaves, axis=0).sum(axis=0)
        level = held.ease[0] * by_topic[experts] + held.ease[1] * words[experts]
        scores: list[float] = np.clip(held.mean + gain + level, 0.0, 1.0).tolist()
        return scores


_PLACES: Final = [1 << place for place in range(TREE_DEPTH)]  # of the bits in a leaf's number


def posterior(scores: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Probabilities of the topics from their scores, [..., T]; none where there are no topics."""
    import numpy as np  # noqa: PLC0415

    if not scores.shape[-1]:
        return scores
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def quality_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of the head's files: what a policy's `routing.quality.sha256` must say."""
    digest = hashlib.sha256()
    for name in QUALITY_FILES:
        digest.update(f"{name}\n".encode())
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
