"""Whether a weak expert's answer is good enough: how sure it was, and whether that is sure enough to be shown.

The idea is Mowst's (Zeng et al., ICLR 2024, arXiv 2311.05185): the dispersion of the weak expert's own softmax says
whether it can be trusted, else the strong one answers. Where we differ: a threshold decides, not a coin, so that a
decision can be replayed; and the softmax is what an answer over an API shows of it. Pure functions of what was heard;
never asks anybody, and cannot see an expert that is wrong each time with full confidence.
"""

import math
import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from conclave.router.api import Decision, Outcome, Step

Evidence: TypeAlias = Literal["label", "logprobs", "first_token", "agreement"]
Fold: TypeAlias = Callable[[str], str]
FROM_LOGPROBS: Final = frozenset({"label", "logprobs", "first_token"})
LABEL_WORDS: Final = 3  # an answer up to this long is a label: yes, a choice, a category, a tool's name
ALTERNATIVES: Final = 5  # to the first token, that are told apart; all others are one class more
ARTICLES: Final = frozenset({"a", "an", "the"})
COMPARED_CHARS: Final = 4096  # of a sample; those that are asked for have 128 tokens, at 0.5 us a character
MINUS: Final = re.compile(r"(?<![\w)\]])-(?=\.?\d)")  # "-5", and not "3-5" or "- 5"


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of an answer on trial.

    `answers` are the texts of its samples, the first of them the one that may be shown. `logprobs` are the natural
    logarithms of its tokens' probabilities; `first` those of its first token, which stands first, and of the
    alternatives to it. `silent`: no sample says anything, neither a word nor a call of a tool.
    """

    answers: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    first: Mapping[str, float] = field(default_factory=dict)
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Cascade:
    """The gate. `weak` None is the first expert of the row, `strong` None the first that is not the weak one.

    The first of `evidence` that an answer gives counts. An answer less sure than `below` is not shown; one that gives
    no evidence is, unless `without_evidence` says otherwise. `curve` maps a confidence to the probability that the
    answer is right (`calibrate.py`), as points with rising coordinates; without one the confidence counts as it is. A
    trial that takes longer than `trial_s` has failed.
    """

    below: float
    weak: str | None = None
    strong: str | None = None
    evidence: tuple[Evidence, ...] = ("label", "logprobs")
    samples: int = 1
    categories: frozenset[str] = frozenset()
    without_evidence: Literal["accept", "escalate"] = "accept"
    curve: tuple[tuple[float, float], ...] = ()
    trial_s: float = 30.0

    @property
    def wants_logprobs(self) -> bool:
        return not FROM_LOGPROBS.isdisjoint(self.evidence)

    @property
    def wants_samples(self) -> bool:
        return "agreement" in self.evidence and self.samples > 1

    def applies_to(self, category: str | None) -> bool:
        """Whether questions of this category go through the gate; None is an unsure one, or one without a category."""
        return not self.categories or category in self.categories

    def judge(self, heard: Heard) -> Outcome:
        """Whether the answer is to be shown; one that says nothing is not, however sure its expert was."""
        if heard.silent:
            return Outcome(accepted=False, unsure=True)
        for kind in self.evidence:
            if (found := MEASURES[kind](heard)) is not None:
                sure = calibrated(found, self.curve)
                accepted = sure >= self.below
                return Outcome(accepted=accepted, unsure=not accepted, confidence=sure, evidence=kind, measured=found)
        accepted = self.without_evidence == "accept"
        return Outcome(accepted=accepted, unsure=not accepted)


def staged(decision: Decision, cascade: Cascade, able: Collection[str]) -> Decision:
    """The decision with the weak expert first, on trial, and the strong one after it; as it was if that makes no sense.

    `able` are the experts that may serve the call. The others keep their order, as fallbacks.
    """
    row = [step.expert for step in decision.steps]
    weak = cascade.weak if cascade.weak is not None else row[0]
    strong = cascade.strong if cascade.strong is not None else next((name for name in row if name != weak), None)
    if strong is None or strong == weak or not {weak, strong} <= set(able):
        return decision
    steps = [Step(weak, "trial", on_trial=True), Step(strong, "escalated")]
    steps += [Step(name, "fallback") for name in row if name not in {weak, strong}]
    return replace(decision, steps=tuple(steps))


def variance_confidence(shares: Sequence[float]) -> float:
    """Var(p) / Var(one-hot), both biased (Mowst): 0 where all classes are alike, 1 where one has it all."""
    classes = len(shares)
    if classes < 2:  # noqa: PLR2004  one class alone
        return 1.0
    mean = 1.0 / classes
    most = mean * (1.0 - mean)  # of a one-hot vector: ((1-1/n)^2 + (n-1)/n^2) / n
    return min(1.0, math.fsum((share - mean) ** 2 for share in shares) / classes / most)


def entropy_confidence(shares: Sequence[float]) -> float:
    """1 - H(p) / ln n (Mowst): 0 where all classes are alike, 1 where one has it all."""
    classes = len(shares)
    if classes < 2:  # noqa: PLR2004  one class alone
        return 1.0
    entropy = -math.fsum(share * math.log(share) for share in shares if share > 0)
    return min(1.0, max(0.0, 1.0 - entropy / math.log(classes)))


def first_token_confidence(heard: Heard) -> float | None:
    """The dispersion over the alternatives to the first token; None where the provider did not give any."""
    return _dispersion(heard.first, str)


def label_confidence(heard: Heard) -> float | None:
    """Of a short answer, the dispersion over the classes that its first token tells apart; None for a longer one."""
    if not heard.answers or not 0 < len(heard.answers[0].split()) <= LABEL_WORDS:
        return None
    return _dispersion(heard.first, normalised)


def logprob_confidence(heard: Heard) -> float | None:
    """The geometric mean of the tokens' probabilities; None where the provider did not give any."""
    if not heard.logprobs:
        return None
    total = sum(min(0.0, logprob) for logprob in heard.logprobs)  # no probability is above 1, whoever says so
    return math.exp(total / len(heard.logprobs))


def agreement_confidence(heard: Heard) -> float | None:
    """How much the samples say the same: the normalised entropy over their clusters.

    None for less than two, and where none says a word: a call of a tool, a refusal or nothing at all is no agreement.
    """
    samples = len(heard.answers)
    if samples < 2 or not any(map(str.strip, heard.answers)):  # noqa: PLR2004  nothing to compare
        return None
    counts = sorted(Counter(map(normalised, heard.answers)).values(), reverse=True)
    shares = [count / samples for count in counts] + [0.0] * (samples - len(counts))
    return entropy_confidence(shares)


def majority(answers: Sequence[str]) -> int:
    """Which of the samples to show: the first that says what most say; the earliest cluster wins a tie."""
    said = [normalised(answer) for answer in answers]
    return said.index(Counter(said).most_common(1)[0][0]) if said else 0


def normalised(answer: str) -> str:
    """An answer as it is compared: without case, punctuation, articles and the width of its characters.

    A minus before a number is no punctuation.
    """
    folded = MINUS.sub("\u2212", unicodedata.normalize("NFKC", answer[:COMPARED_CHARS]).casefold())
    kept = "".join(" " if unicodedata.category(mark)[0] in "PZC" else mark for mark in folded)
    words = kept.split()
    return " ".join([word for word in words if word not in ARTICLES] or words) or answer.strip()


def calibrated(confidence: float, curve: Sequence[tuple[float, float]]) -> float:
    """The curve at this confidence, straight between its points and level beyond them."""
    if not curve:
        return confidence
    after = bisect_right([point[0] for point in curve], confidence)
    if after == 0:
        return curve[0][1]
    if after == len(curve):
        return curve[-1][1]
    (left, low), (right, high) = curve[after - 1], curve[after]
    return low + (high - low) * (confidence - left) / (right - left)


def _dispersion(first: Mapping[str, float], fold: Fold) -> float | None:
    """The variance confidence over the classes that the tokens stand for, [ALTERNATIVES + 1]; None if none is known.

    Always so many classes, so that one threshold means the same however many the provider lists; what is not listed is
    spread evenly over the places left. An answer that chance drew, and that the expert itself finds less likely than
    another, is the less sure by as much.
    """
    if not first:
        return None
    classes: dict[str, float] = {}
    for token, logprob in first.items():
        classes[fold(token)] = classes.get(fold(token), 0.0) + math.exp(min(0.0, logprob))
    total = max(1.0, math.fsum(classes.values()))
    own = classes[fold(next(iter(first)))] / total
    shares = sorted((share / total for share in classes.values()), reverse=True)[:ALTERNATIVES]
    places = ALTERNATIVES + 1 - len(shares)
    rest = max(0.0, 1.0 - math.fsum(shares)) / places
    return variance_confidence([*shares, *[rest] * places]) * (own / shares[0] if shares[0] > 0 else 0.0)


MEASURES: Final[Mapping[Evidence, Callable[[Heard], float | None]]] = {
    "label": label_confidence,
    "logprobs": logprob_confidence,
    "first_token": first_token_confidence,
    "agreement": agreement_confidence,
}
