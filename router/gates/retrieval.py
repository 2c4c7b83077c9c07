"""Whether looking something up is worth what it costs: value of information, after ExpertRAG (arXiv 2504.08744).

Look up iff p_wrong * p_fix - (1 - p_wrong) * p_harm > lambda * cost. The paper has no numbers and gives no gate; its
cost formula is kept to the letter (`saving`). `p_wrong` starts from the question and the expert's record in its
category, and moves with what the expert showed: agreement of samples, a calibrated confidence. `p_fix` is whether
documents could answer at all, and whether these do: the matches' scores. The text of a question alone says next to
nothing of what an expert knows (router/cards/retrieval_gate.md). Pure; searches nothing and asks nobody.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from conclave.router.gates.questions import NUMBERS, numbers_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from conclave.router.encoder import StaticEncoder, Tokens

ARTIFACT: Final = Path(__file__).parent.parent / "artifacts" / "retrieval_gate.json"
MATCH: Final = ("best", "margin", "coverage")
WORTH: Final = 5e-5  # a look-up of 1,000 tokens must win a twentieth of a right answer
BESIDE: Final = 0.25  # of the text's say where the expert itself was heard: it was fitted to one kind of question
ENOUGH: Final = 0.6  # of the question's words, by rarity: where more of them are covered, an answer is no likelier
EDGE: Final = 1e-4  # no probability is nearer to 0 or 1: evidence must be able to move it
CHANGING: Final = 1.5  # log odds of being wrong for a question with time words; set, not fitted: no data has the label


class Mode(StrEnum):
    """`required`: look up, and answer from what was found or not at all."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a question before it is asked; None is what nobody knows.

    `best` is the highest cosine of a passage, `margin` its distance from the next, `coverage` the share of the
    question's content words that the best passages hold; all None where nothing was searched. `expert_score` is the
    share of such questions that the expert gets right, `agreement` the share of its `samples` that agree, `confidence`
    its calibrated probability of being right. `rarest` is how often the rarest of the question's words stands in the
    corpus. `suspicion` is how likely what was found is poisoned.
    """

    best: float | None = None
    margin: float | None = None
    coverage: float | None = None
    expert_score: float | None = None
    agreement: float | None = None
    samples: int = 2
    confidence: float | None = None
    rarest: int | None = None
    suspicion: float = 0.0
    time_sensitive: bool | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """What each part costs, in tokens: searching, the passages in the prompt, and the gate itself."""

    search: float = 0.0
    context: float = 1_000.0
    gate: float = 0.0

    @property
    def looking_up(self) -> float:
        return self.search + self.context


@dataclass(frozen=True, slots=True)
class Gated:
    """The decision and all that it follows from.

    `probability` is that looking up turns a wrong answer into a right one. `value` is what it is expected to win, in
    right answers, and `threshold` what that must exceed. `saving` is in tokens, against always looking up.
    """

    retrieve: bool
    probability: float
    p_wrong: float
    p_fix: float
    p_harm: float
    value: float
    threshold: float
    reason: str
    saving: float
    required: bool = False


def saving(*, asked: int, retrieved: int, costs: Costs) -> float:
    """Tokens saved against always looking up: per question (1 - E[g]) * (C_ret + C_ctx) - C_gate (ExpertRAG).

    `asked` questions went through the gate and `retrieved` of them were looked up. Raises ValueError.
    """
    if not 0 <= retrieved <= asked:
        raise ValueError(f"{retrieved} of {asked} questions cannot have been looked up")
    return math.fsum(((asked - retrieved) * costs.search, (asked - retrieved) * costs.context, -asked * costs.gate))


def break_even(costs: Costs) -> float:
    """The share of look-ups below which the gate saves anything: 1 - C_gate / (C_ret + C_ctx); 0 if nothing costs."""
    return 1 - costs.gate / costs.looking_up if costs.looking_up > 0 else 0.0


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A logistic model, calibrated (Platt): weights of `numbers`, and of the `vector` that encodes the question."""

    numbers: tuple[float, ...]
    bias: float
    vector: tuple[float, ...] = ()


class GateFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """retrieval_gate.json.

    `unknown`: does an expert not know the answer; `factual`: could a document hold it; `match`: does what was found
    hold it. `base` is the share that experts of the training data got wrong, `right` and `wrong` how often two samples
    agree if the first is right or wrong (`wrong` is assumed), `prior` is p_fix where nothing was searched.
    """

    features: tuple[str, ...]
    unknown: Line
    factual: Line
    match: Line
    base: float
    right: float
    wrong: float = 0.5
    prior: float = 0.5
    harm: float = 0.05
    trained_on: dict[str, str] = {}
    measured: dict[str, float] = {}


class RetrievalGate:
    """The gate. `worth` is lambda: what a token costs in units of one right answer."""

    __slots__ = ("_about", "_encoder", "_factual", "_unknown", "costs", "worth")

    def __init__(
        self, about: GateFile, encoder: "StaticEncoder", *, worth: float = WORTH, costs: Costs | None = None
    ) -> None:
        import numpy as np  # noqa: PLC0415

        self._about = about
        self._encoder = encoder
        self._unknown = np.array(about.unknown.vector, dtype=np.float32)
        self._factual = np.array(about.factual.vector, dtype=np.float32)
        self.worth = worth
        self.costs = costs or Costs()

    @property
    def tokens(self) -> "Tokens":
        """What splits texts into the encoder's words."""
        return self._encoder.tokens

    @classmethod
    def load(cls, encoder: "StaticEncoder", file: Path = ARTIFACT, *, worth: float = WORTH) -> "RetrievalGate":
        """Read the shipped gate, or another. Raises FileNotFoundError, and ValueError for a file of another fit."""
        try:
            about = msgspec.json.decode(file.read_bytes(), type=GateFile)
        except msgspec.DecodeError as error:
            raise ValueError(f"{file}: {error}; fit it again (router/cards/retrieval_gate.md)") from error
        if about.features != NUMBERS or len(about.unknown.vector) != encoder.dimensions:
            raise ValueError(f"{file} was fitted to other numbers or another encoder")
        return cls(about, encoder, worth=worth)

    def decide(
        self,
        question: str,
        known: Known | None = None,
        *,
        mode: Mode = Mode.AUTO,
        vector: "NDArray[np.float32] | None" = None,
        counts: "Mapping[str, int] | None" = None,
    ) -> Gated:
        """Whether to look the question up. `vector` is its encoding, where it is known already.

        `counts` say how often words stand in the corpus, for `Known.rarest`. Raises ValueError for evidence that is no
        share.
        """
        known = known or Known()
        _check(known)
        numbers = numbers_of(question, self._encoder.tokens)
        vector = self._encoder.encode([question])[0] if vector is None else vector
        if known.rarest is None and counts is not None:
            known = _with_counts(known, question, counts)
        p_wrong = self._p_wrong(numbers, vector, known)
        p_fix = self._p_fix(numbers, vector, known)
        p_harm = self._about.harm + (1 - self._about.harm) * known.suspicion
        value = p_wrong * p_fix - (1 - p_wrong) * p_harm
        threshold = self.worth * self.costs.looking_up
        pays = value > threshold
        retrieve = pays if mode is Mode.AUTO else mode is not Mode.NEVER
        reason = _reason(known, p_wrong, p_fix, pays=pays) if mode is Mode.AUTO else f"the mode is {mode}"
        saved = saving(asked=1, retrieved=int(retrieve), costs=self.costs)
        return Gated(
            retrieve, p_wrong * p_fix, p_wrong, p_fix, p_harm, value, threshold, reason, saved, mode is Mode.REQUIRED
        )

    def _p_wrong(self, numbers: Sequence[float], vector: "NDArray[np.float32]", known: Known) -> float:
        about = self._about
        base = _logit(about.base)
        said = _score(about.unknown, numbers) + float(self._unknown @ vector) - base
        odds = base + said * (1.0 if known.confidence is None and known.agreement is None else BESIDE)
        if known.expert_score is not None:
            odds += _logit(1 - known.expert_score) - base
            base = _logit(1 - known.expert_score)
        if known.time_sensitive or (known.time_sensitive is None and numbers[NUMBERS.index("time")] > 0):
            odds += CHANGING
        if known.confidence is not None:
            odds += _logit(1 - known.confidence) - base
        elif known.agreement is not None:
            same, other = math.log(about.wrong / about.right), math.log((1 - about.wrong) / (1 - about.right))
            odds += (known.samples - 1) * known.agreement * same + (1 - known.agreement) * other
        return _sigmoid(odds)

    def _p_fix(self, numbers: Sequence[float], vector: "NDArray[np.float32]", known: Known) -> float:
        about = self._about
        if known.rarest == 0 and known.best is None:
            return EDGE  # a word that no document has, and no match that says otherwise
        factual = _sigmoid(_score(about.factual, numbers) + float(self._factual @ vector))
        if known.best is None:
            return factual * about.prior
        coverage = known.coverage if known.coverage is not None else known.best
        return factual * _sigmoid(_score(about.match, match_of(known.best, known.margin or 0.0, coverage)))


def match_of(best: float, margin: float, coverage: float) -> tuple[float, float, float]:
    """What the model of a match reads, from what a search found: fitted and asked in the same way."""
    return best, margin, min(coverage, ENOUGH)


def _with_counts(known: Known, question: str, counts: Mapping[str, int]) -> Known:
    words = [word for word in question.casefold().replace("?", " ").split() if len(word) > 3]  # noqa: PLR2004  letters of a word
    return replace(known, rarest=min((counts.get(word, 0) for word in words), default=0))


def _check(known: Known) -> None:
    shares = {
        "coverage": known.coverage,
        "expert_score": known.expert_score,
        "agreement": known.agreement,
        "confidence": known.confidence,
        "suspicion": known.suspicion,
    }
    for name, value in shares.items():
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name!r} is {value}, and a share is 0 to 1")
    for name, value in (("best", known.best), ("margin", known.margin)):
        if value is not None and not -1 <= value <= 2:  # noqa: PLR2004  a difference of two cosines
            raise ValueError(f"{name!r} is {value}, and a cosine is -1 to 1")


def _reason(known: Known, p_wrong: float, p_fix: float, *, pays: bool) -> str:
    if pays:
        return (
            "the expert may well be wrong, and what was found may help"
            if known.best is not None
            else ("the expert may well be wrong, and documents may help")
        )
    if p_fix < p_wrong:
        return "nothing that was found is likely to help" if known.best is not None else "no document is likely to help"
    return "the expert is likely to know this"


def _score(line: Line, numbers: Sequence[float]) -> float:
    return line.bias + sum(weight * value for weight, value in zip(line.numbers, numbers, strict=True))


def _sigmoid(odds: float) -> float:
    return min(1 - EDGE, max(EDGE, 1 / (1 + math.exp(-max(-60.0, min(60.0, odds))))))


def _logit(share: float) -> float:
    share = min(1 - EDGE, max(EDGE, share))
    return math.log(share / (1 - share))
