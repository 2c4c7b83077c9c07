"""Fits the retrieval gate (router/artifacts/retrieval_gate.json) and measures it on what it has not seen.

    python -m conclave.router.train.retrieval_gate --data DIR          a minute on one core

DIR holds retrieval_gate (13,604 TriviaQA questions with what three models know by heart; 2,509 tasks that need no
document by construction), knowledge_conflict and poisoned_context (questions with passages that answer them). The
questions say how little their text tells: `python -m benchmarks.retrieval.gate` prints it beside the evidence.
"""

import gzip
import hashlib
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from conclave.retrieval.stopwords import STOP_WORDS
from conclave.router.encoder import StaticEncoder
from conclave.router.gates.questions import NUMBERS, WORD, numbers_of
from conclave.router.gates.retrieval import ARTIFACT, GateFile, Line, match_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILES: Final = ("retrieval_gate.jsonl.gz", "knowledge_conflict.jsonl.gz", "poisoned_context.jsonl.gz")
MEASURED: Final = "wack_triviaqa"
MATCHED: Final = ("conflictqa", "xquad")  # BIPIA's questions are about a text in hand: nobody searches so
MATCH_PENALTY: Final = 1e-4
STEPS: Final = 30  # of Newton's method
CORPUS: Final = 1_500  # passages of each data set
TOP: Final = 3  # passages whose words count
SHORT: Final = 3  # words up to this long carry no content


@dataclass(frozen=True, slots=True)
class Row:
    """A question; `wrong` is the share of answers that are wrong, by model and over all; None for a task."""

    question: str
    source: str
    needed: int
    wrong: float
    by_model: dict[str, float]


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search of a corpus found for a question, and whether the corpus holds its passage."""

    source: str
    question: str
    best: float
    margin: float
    coverage: float
    held: bool

    def numbers(self) -> tuple[float, float, float]:
        return match_of(self.best, self.margin, self.coverage)


def rows_of(data: Path) -> list[Row]:
    """The questions of retrieval_gate; raises FileNotFoundError."""
    return [
        Row(
            row["question"],
            row["source"],
            row["need_retrieval"],
            1 - row["p_know"] if row["p_know"] is not None else 0.0,
            {model: 1 - known for model, known in row.get("per_model", {}).items()},
        )
        for row in _read(data / FILES[0])
    ]


def features(questions: Sequence[str], encoder: StaticEncoder) -> "NDArray[np.float64]":
    """Numbers and vector of each question, [questions, numbers + dimensions]."""
    import numpy as np  # noqa: PLC0415

    numbers = np.array([numbers_of(question, encoder.tokens) for question in questions])
    return np.hstack([numbers, encoder.encode(questions)])


def logistic(
    x: "NDArray[np.float64]", y: "NDArray[np.float64]", *, penalty: float, weight: "NDArray[np.float64] | None" = None
) -> "NDArray[np.float64]":
    """Ridge-penalised logistic regression by Newton's method: the weights, and the bias last. y may be a share."""
    import numpy as np  # noqa: PLC0415

    z = np.hstack([x, np.ones((len(x), 1))])
    weight = np.full(len(x), 1 / len(x)) if weight is None else weight / weight.sum()
    beta = np.zeros(z.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(z @ beta, -30, 30)))
        slope = z.T @ (weight * (chance - y)) + penalty * np.append(beta[:-1], 0.0)
        curve = (z * (weight * chance * (1 - chance))[:, None]).T @ z
        curve[np.diag_indices_from(curve)] += penalty
        step = np.linalg.solve(curve, slope)
        beta -= step
        if np.abs(step).max() < 1e-7:  # noqa: PLR2004  it stands
            break
    return beta


def platt(scores: "NDArray[np.float64]", y: "NDArray[np.float64]") -> tuple[float, float]:
    """Slope and offset that make scores of unseen rows log odds (Platt 1999)."""
    slope, offset = logistic(scores[:, None], y, penalty=1e-6)
    return float(slope), float(offset)


def folds(count: int, parts: int = 5, seed: int = 0) -> "NDArray[np.int64]":
    """Which part each row is in, [count]."""
    import numpy as np  # noqa: PLC0415

    return np.random.default_rng(seed).integers(0, parts, count)


def unseen(
    x: "NDArray[np.float64]", y: "NDArray[np.float64]", part: "NDArray[np.int64]", *, penalty: float
) -> "NDArray[np.float64]":
    """Each row's score by a model that was fitted without its part, [rows]."""
    import numpy as np  # noqa: PLC0415

    scores = np.zeros(len(x))
    for one in np.unique(part):
        beta = logistic(x[part != one], y[part != one], penalty=penalty)
        scores[part == one] = x[part == one] @ beta[:-1] + beta[-1]
    return scores


def auroc(scores: "Sequence[float] | NDArray[np.float64]", y: "Sequence[float] | NDArray[Any]") -> float:
    """The chance that a positive scores above a negative; ties count half."""
    import numpy as np  # noqa: PLC0415

    scores, y = np.asarray(scores, dtype=float), np.asarray(y, dtype=bool)
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    positive = int(y.sum())
    negative = len(y) - positive
    return float((ranks[y].sum() - positive * (positive + 1) / 2) / (positive * negative))


def log_loss(scores: "NDArray[np.float64]", y: "NDArray[np.float64]") -> float:
    """What scores that are log odds miss of the truth, in nats a row: 0.69 for a coin."""
    import numpy as np  # noqa: PLC0415

    return float(np.mean(np.logaddexp(0.0, np.where(y > 0, -scores, scores))))


def searches(data: Path, encoder: StaticEncoder, *, seed: int = 0) -> list[Searched]:
    """Questions of three data sets, searched in a corpus of their data set's passages that holds every other one."""
    found: list[Searched] = []
    draw = random.Random(seed)  # noqa: S311  a draw of rows, no secret
    for source, pairs in _pairs(data).items():
        some = draw.sample(sorted(pairs), min(CORPUS, len(pairs)))
        passages = sorted({passage for _, passage in some})
        kept = [passage for passage in passages if hashlib.sha256(passage.encode()).digest()[0] & 1]
        found += search(source, [(question, passage in set(kept)) for question, passage in some], kept, encoder)
    return found


def search(
    source: str, asked: Sequence[tuple[str, bool]], corpus: Sequence[str], encoder: StaticEncoder
) -> list[Searched]:
    """What the vectors of a corpus find for each question."""
    index = Index(corpus, encoder)
    return [Searched(source, question, *index.search(question).numbers(), held) for question, held in asked]


@dataclass(frozen=True, slots=True)
class Scores:
    """The highest cosine, its distance from the second, and the best coverage among the first three."""

    best: float
    margin: float
    coverage: float
    first: int

    def numbers(self) -> tuple[float, float, float]:
        return (self.best, self.margin, self.coverage)


class Index:
    """A corpus in memory, searched by vector.

    Coverage is the share of the question's content words that a passage holds, each weighted by how rare it is in the
    corpus: a word that no passage has counts most, and is never covered.
    """

    def __init__(self, corpus: Sequence[str], encoder: StaticEncoder) -> None:
        self._encoder = encoder
        self._vectors = encoder.encode(corpus)
        self._words = [content(passage) for passage in corpus]
        self._holders = Counter(word for words in self._words for word in words)

    def search(self, question: str) -> Scores:
        import numpy as np  # noqa: PLC0415

        cosines = self._vectors @ self._encoder.encode([question])[0]
        first, second, *others = (int(place) for place in np.argsort(-cosines)[:TOP])
        weights = {word: self._weight(word) for word in content(question)}
        total = sum(weights.values())
        covered = (
            sum(weight for word, weight in weights.items() if word in self._words[place])
            for place in (first, second, *others)
        )
        coverage = max(covered) / total if total > 0 else 0.0
        return Scores(float(cosines[first]), float(cosines[first] - cosines[second]), coverage, first)

    def _weight(self, word: str) -> float:
        """Inverse document frequency (Robertson and Zaragoza 2009, eq. 3.3), 1 added so that it stays positive."""
        holders = self._holders[word]
        return math.log(1 + (len(self._words) - holders + 0.5) / (holders + 0.5))


def content(text: str) -> frozenset[str]:
    """The words of a text that say what it is about."""
    return frozenset(word.lower() for word in WORD.findall(text) if len(word) > SHORT) - STOP_WORDS


def _pairs(data: Path) -> dict[str, set[tuple[str, str]]]:
    pairs: dict[str, set[tuple[str, str]]] = {"conflictqa": set(), "xquad": set(), "bipia": set()}
    for row in _read(data / FILES[1]):
        pairs["conflictqa"].add((row["question"], row["parametric_memory"]))
    for row in _read(data / FILES[2]):
        if row["kind"] == "clean" and row["source"] in {"xquad", "bipia_train"} and row["question"].isascii():
            pairs["xquad" if row["source"] == "xquad" else "bipia"].add((row["question"], row["passage"]))
    return pairs


def _read(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file) as lines:
        return [msgspec.json.decode(line) for line in lines]


def line_of(beta: "NDArray[np.float64]", slope: float, offset: float, *, numbers: int) -> Line:
    """The weights on the scale of log odds."""
    said = [round(float(value) * slope, 6) for value in beta]
    return Line(tuple(said[:numbers]), round(said[-1] + offset, 6), tuple(said[numbers:-1]))


def fit(data: Path, encoder: StaticEncoder) -> GateFile:
    """All of the gate."""
    import numpy as np  # noqa: PLC0415

    rows = rows_of(data)
    x = features([row.question for row in rows], encoder)
    known = np.array([row.source == MEASURED for row in rows])
    wrong = np.array([row.wrong for row in rows])
    part = folds(int(known.sum()))
    scores = unseen(x[known], wrong[known], part, penalty=1e-3)
    unknown = line_of(
        logistic(x[known], wrong[known], penalty=1e-3), *platt(scores, wrong[known]), numbers=len(NUMBERS)
    )
    hard = np.array([row.needed for row in rows])[known]
    measured = {"unknown: AUROC, 5-fold": auroc(scores, hard)}
    weight = np.where(known, 0.5 / known.sum(), 0.5 / (~known).sum())
    sources = {name: number for number, name in enumerate(sorted({row.source for row in rows} - {MEASURED}))}
    held = np.array([sources.get(row.source, number % len(sources)) % 5 for number, row in enumerate(rows)])
    factual_scores = unseen(x, known.astype(float), held, penalty=1e-3)
    beta = logistic(x, known.astype(float), penalty=1e-3, weight=weight)
    factual = line_of(beta, *platt(factual_scores, known.astype(float)), numbers=len(NUMBERS))
    measured["factual: AUROC, sources held out"] = auroc(factual_scores, known)
    found = searches(data, encoder)
    m = np.array([one.numbers() for one in found])
    is_held = np.array([float(one.held) for one in found])
    source = np.array([one.source for one in found])
    match_scores = unseen(m, is_held, source, penalty=MATCH_PENALTY)
    fitted = np.isin(source, MATCHED)
    within = unseen(m[fitted], is_held[fitted], folds(int(fitted.sum())), penalty=MATCH_PENALTY)
    match_beta = logistic(m[fitted], is_held[fitted], penalty=MATCH_PENALTY)
    match = line_of(match_beta, *platt(within, is_held[fitted]), numbers=3)
    measured["match: AUROC, data set held out"] = auroc(match_scores, is_held)
    measured["match: log loss, 5-fold"] = log_loss(within, is_held[fitted])
    shares = [value for row in rows for value in row.by_model.values()]
    right = sum((1 - value) ** 2 for value in shares) / sum(1 - value for value in shares)
    return GateFile(
        features=NUMBERS,
        unknown=unknown,
        factual=factual,
        match=match,
        base=round(float(wrong[known].mean()), 6),
        right=round(right, 6),
        trained_on={name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in FILES},
        measured={name: round(value, 4) for name, value in measured.items()},
    )


@click.command()
@click.option("--data", required=True, envvar="CONCLAVE_DATA", type=click.Path(exists=True, path_type=Path))
@click.option("--out", default=ARTIFACT, type=click.Path(dir_okay=False, path_type=Path), help="Default: the shipped.")
def main(data: Path, out: Path) -> None:
    about = fit(data, StaticEncoder.load())
    out.write_bytes(msgspec.json.encode(about) + b"\n")
    for name, value in about.measured.items():
        click.echo(f"{name}: {value:.4f}", err=True)


if __name__ == "__main__":
    main()
