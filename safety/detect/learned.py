"""The learned detectors: `override`, `persona` and `harm` in what users say, `embedded` instructions in data.

One linear model a head over token n-grams of sliding windows; a text is as suspicious as its worst window. A short
attack fills no window, and honest words behind or before it would water it down: what users say is also judged by its
first and its last sentence alone. One pass over a text gives the scores of all heads, and the last texts' are kept, so
that four checks cost one. They advise: whoever can try often enough gets past any classifier, and what must hold stands
in deterministic layers.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from conclave.safety.api import DATA, Finding, Origin, Severity, View, tool_of
from conclave.safety.detect.described import KIND as OF_TOOL
from conclave.safety.detect.described import told
from conclave.safety.detect.ngrams import (
    AGAIN,
    FEATURES,
    SENTENCE_ENDS,
    code_space,
    codes_of,
    edge_sentences,
    tokens_of,
    weight,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ARTIFACTS: Final = Path(__file__).parent.parent / "artifacts"
DETECTOR_FILES: Final = ("detectors.safetensors", "detectors.json")
ORIGINS: Final[Mapping[str, frozenset[Origin]]] = MappingProxyType(
    {
        "override": frozenset({Origin.USER}),
        "persona": frozenset({Origin.USER}),
        "harm": frozenset({Origin.USER}),
        "embedded": DATA,
    }
)
ALONE: Final = frozenset({"override", "persona", "harm"})  # read a text's first and last sentence by itself, too
SEVERITY: Final[Mapping[str, Severity]] = MappingProxyType(
    {
        "override": Severity.MEDIUM,
        "persona": Severity.MEDIUM,
        "harm": Severity.MEDIUM,
        "embedded": Severity.HIGH,
    }
)
EMBEDDED: Final = "embedded"
REMEDY: Final = "Read what this tool says of itself, and offer it only if you trust who serves it."
REMEMBERED: Final = 64  # texts: the views of one segment
CERTAIN: Final = 0.98  # of 2,757 honest questions 2 reach it, 10 the thresholds: docs/safety.md
HONEST: Final = 0.5  # below it a text is more likely honest than not
REMEMBERED_CHARS: Final = 1 << 16  # longer texts are not kept

Ids = Callable[[str], Sequence[int]]


class HeadFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One head in detectors.json: `windows` in tokens; a probability is that of `slope` * score + `offset`."""

    name: str
    bias: float
    windows: tuple[int, ...]
    slope: float
    offset: float
    threshold: float


class HeadsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """detectors.json; `trained_on` names the data files with their SHA-256, `measured` figures on unseen sources."""

    features: str
    vocabulary: int
    heads: tuple[HeadFile, ...]
    trained_on: dict[str, str]
    measured: dict[str, float] = {}


class Heads:
    """All heads' weights and what turns a text into tokens; scores are probabilities, attacks and honest texts taken
    to be equally frequent.
    """

    __slots__ = ("_about", "_ends", "_ids", "_known", "_large", "_last", "_sizes", "_table", "_widest", "digest")

    def __init__(self, about: HeadsFile, table: "NDArray[np.float16]", ids: Ids, *, digest: str) -> None:
        self._about = about
        self._table = table.astype("float32")  # [codes + 1, heads], the last row zeros; numpy adds no halves quickly
        self._ids = ids
        self._ends = frozenset(token for mark in SENTENCE_ENDS for token in ids(mark))
        self._known: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._last: tuple[Sequence[int], dict[str, float]] = ((), {})  # one pair, set at once: threads read it
        self._large: dict[str, dict[str, float]] = {}  # of the last texts that are too large to be remembered
        self._sizes = sorted({size for head in about.heads for size in head.windows})
        self._widest = max(self._sizes, default=0)
        self.digest = digest

    @classmethod
    def load(cls, ids: Ids, folder: Path | None = None) -> "Heads":
        """Read the shipped heads, or those in `folder`.

        Raises FileNotFoundError, and ValueError for files that are not of one fit or were made for other features.
        """
        from safetensors.numpy import load_file  # noqa: PLC0415  numpy is imported where it is first needed

        folder = folder or ARTIFACTS
        tensors, facts = (folder / name for name in DETECTOR_FILES)
        try:
            about = msgspec.json.decode(facts.read_bytes(), type=HeadsFile)
        except msgspec.DecodeError as error:
            raise ValueError(f"{facts}: {error}; train the detectors again") from error
        table = load_file(tensors).get("table")
        shape = (code_space(about.vocabulary) + 1, len(about.heads))
        if about.features != FEATURES or table is None or table.shape != shape:
            raise ValueError(
                f"{folder}: detectors for features {about.features!r}, not {FEATURES!r}, or of another fit"
            )
        if unknown := [head.name for head in about.heads if head.name not in ORIGINS]:
            raise ValueError(f"{facts}: no detector is called {unknown[0]!r}; known: {', '.join(ORIGINS)}")
        return cls(about, table, ids, digest=digest_of(DETECTOR_FILES, folder))

    @property
    def names(self) -> tuple[str, ...]:
        """The heads."""
        return tuple(head.name for head in self._about.heads)

    @property
    def vocabulary(self) -> int:
        """How many tokens the tokenizer must have."""
        return self._about.vocabulary

    @property
    def trained_on(self) -> dict[str, str]:
        """The data files with their SHA-256."""
        return self._about.trained_on

    @property
    def measured(self) -> dict[str, float]:
        """What training measured on sources and templates that the model had not seen."""
        return self._about.measured

    def forget(self) -> None:
        """Drop the texts that are remembered: for those who measure."""
        self._known.clear()
        self._last, self._large = ((), {}), {}

    def threshold(self, name: str) -> float:
        """The probability from which a head's finding is made; raises KeyError."""
        return {head.name: head.threshold for head in self._about.heads}[name]

    def scores(self, text: str) -> dict[str, float]:
        """Each head's probability for the text's worst window; 0 for a text without a token."""
        known = self._known.get(text)
        return self.scores_of((text,))[0] if known is None else known

    def scores_of(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The scores of each text; those that are not remembered are worked out together, at the cost of about one."""
        large = self._large
        found = {text: self._known.get(text) or large.get(text) for text in texts}
        tokens = {text: self._tokens(text) for text, known in found.items() if known is None}
        distinct: list[Sequence[int]] = []
        judged: list[dict[str, float]] = []
        before, last = self._last
        for ids in tokens.values():  # the folded view mostly has the tokens of the written one
            if len(ids) and ids != before and ids not in distinct:
                distinct.append(ids)
        if distinct:
            judged = self._judged(distinct)
            self._last = distinct[-1], judged[-1]
        for text, ids in tokens.items():
            if not len(ids):
                said = dict.fromkeys(self.names, 0.0)
            else:
                said = last if ids == before else judged[distinct.index(ids)]
            found[text] = said
            if len(text) <= REMEMBERED_CHARS:
                self._known[text] = said
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        if any(len(text) > REMEMBERED_CHARS for text in tokens):  # the next head asks for the same texts
            self._large = {text: said for text, said in found.items() if said and len(text) > REMEMBERED_CHARS}
        return [scores for text in texts if (scores := found[text]) is not None]

    def _tokens(self, text: str) -> Sequence[int]:
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
        return tokens_of(text, self._ids, self._about.vocabulary)

    def _judged(self, texts: Sequence[Sequence[int]]) -> list[dict[str, float]]:
        """Each head's probability for the worst window of some tokens, for each of the texts."""
        import numpy as np  # noqa: PLC0415

        gap = max(self._widest, AGAIN) if len(texts) > 1 else 0  # a window over a text's end finds nothing more there
        worth = self._table.take(codes_of(texts, self._about.vocabulary, gap=gap), axis=0)  # [3, places, heads]
        ends = worth[1] + worth[2]  # [places, heads]
        places = len(ends)
        sums = np.empty((places + 1 + self._widest, ends.shape[1]))  # float64: no drift in a long text
        sums[0] = 0
        np.cumsum(worth[0] + ends, axis=0, out=sums[1 : places + 1])
        sums[places + 1 :] = sums[places]
        ends[:-1] += worth[2, 1:]  # what a window that begins there does not know: what reaches out of it
        found = []
        at = 0
        for ids in texts:
            last = at + len(ids)
            best = {size: _best(sums[at : last + size + 1], ends[at:last], size) for size in self._sizes}
            alone = [
                ((sums[at + end] - sums[at + start] - ends[at + start]) * _weight(end - start)).tolist()
                for start, end in edge_sentences(ids, self._ends)
            ]
            found.append(
                {
                    head.name: _probability(
                        head,
                        max(
                            *(best[size][column] for size in head.windows),
                            *((one[column] for one in alone) if head.name in ALONE else ()),
                            -math.inf,
                        ),
                    )
                    for column, head in enumerate(self._about.heads)
                }
            )
            at = last + gap
        return found


def _best(sums: "NDArray[np.float64]", ends: "NDArray[np.float32]", size: int) -> list[float]:
    """The best weighted sum of a window of that size by head; the windows are those of `windows`, none is made."""
    tokens = len(ends)
    if tokens <= size:
        only: list[float] = ((sums[tokens] - sums[0] - ends[0]) * _weight(tokens)).tolist()
        return only
    half = size // 2
    last = (tokens - half - 1) // half * half  # where the last window begins, the only one that may be shorter
    total = sums[size : last + size + 1 : half] - sums[: last + 1 : half]  # [windows, heads]
    total -= ends[: last + 1 : half]
    if last + size > tokens:
        total[-1] *= _weight(tokens - last) / _weight(size)
    best = total.max(axis=0)
    best *= _weight(size)
    found: list[float] = best.tolist()
    return found


@cache
def _weight(tokens: int) -> float:
    import numpy as np  # noqa: PLC0415

    return float(weight(np.array(tokens)))


def _probability(head: HeadFile, score: float) -> float:
    said = head.slope * (score + head.bias) + head.offset
    return 1 / (1 + math.exp(-said)) if said > -500 else 0.0  # noqa: PLR2004  exp's range


@dataclass(frozen=True, slots=True)
class LearnedCheck:
    """One head as a check: at most one finding a view, over all that the view was made from.

    What a tool says of itself is full of instructions, so there its score is but one sign of several.
    """

    name: str
    heads: Heads
    threshold: float
    decodes: bool = True

    @property
    def origins(self) -> frozenset[Origin]:
        """Whose segments it reads."""
        return ORIGINS[self.name]

    def score(self, text: str) -> float:
        """How strongly a text is what the head looks for, 0..1."""
        return self.heads.scores(text)[self.name]

    def inspect(self, view: View) -> tuple[Finding, ...]:
        """The finding in one view, if its worst window reaches the threshold."""
        return tuple(self.inspect_all((view,)))

    def inspect_all(self, views: Sequence[View]) -> Sequence[Finding]:
        """The findings in the views of a text, at most one each."""
        if self.name == EMBEDDED and views and tool_of(views[0].segment.place):
            return self._in_tool(views)
        scores = self.heads.scores_of([view.text for view in views])
        shown = max(
            (said[self.name] for view, said in zip(views, scores, strict=True) if not view.is_decoded), default=0
        )
        return [
            Finding(
                check=self.name,
                kind=self.name,
                severity=severity(self.name, confidence, hidden=view.is_decoded and shown < HONEST),
                confidence=confidence,
                place=view.segment.place,
                start=view.start,
                end=view.end,
                view=view.name,
            )
            for view, said in zip(views, scores, strict=True)
            if (confidence := said[self.name]) >= self.threshold
        ]

    def _in_tool(self, views: Sequence[View]) -> Sequence[Finding]:
        """As `inspect_all`, of what a tool says of itself."""
        return [
            Finding(
                check=self.name,
                kind=OF_TOOL,
                severity=SEVERITY[self.name],
                confidence=said.confidence,
                place=view.segment.place,
                start=view.start,
                end=view.end,
                view=view.name,
                evidence=", ".join(said.signs),
                remedy=REMEDY,
            )
            for view in views
            if (said := told(view.text, self.score)).is_order
        ]


def severity(name: str, confidence: float, *, hidden: bool = False) -> Severity:
    """How severe a head's finding is: a guess, or as good as certain.

    An order in a text that had to be decoded, where what is written looks honest, is no guess: somebody hid it.
    """
    return Severity.HIGH if hidden or confidence >= CERTAIN else SEVERITY[name]


def learned_checks(heads: Heads) -> tuple[LearnedCheck, ...]:
    """A check for each head, at its own threshold."""
    return tuple(LearnedCheck(name, heads, heads.threshold(name)) for name in heads.names)


def digest_of(files: Sequence[str], folder: Path | None = None) -> str:
    """SHA-256 over the names and bytes of these files of `folder`, or of what ships."""
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\n".encode())
        with ((folder or ARTIFACTS) / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
