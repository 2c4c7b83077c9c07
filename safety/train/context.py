"""Fits the model of floods (safety/context/flood.json) on sets of passages whose questions are held apart.

    python -m conclave.safety.train.context --data DIR          half a minute on one core

DIR holds poisoned_context and knowledge_conflict. Poisoned: the five passages of a PoisonedRAG question, among the
passages that a search over other rows finds, of one hand or with nothing known of where they came from. Honest: what a
search finds for a question of XQuAD, where neighbours of one article stand together in one batch, and what independent
models wrote on one question of ConflictQA. A question, and an article, is in one half only: `half` says in which.
"""

import gzip
import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from conclave.safety.context.duplicates import NUMBERS, SHIPPED, FloodModel, Likeness, flooded, likenesses
from conclave.safety.context.provenance import Evidence
from conclave.safety.context.words import names
from conclave.safety.context.words import read as read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILES: Final = ("poisoned_context.jsonl.gz", "knowledge_conflict.jsonl.gz")
INDEPENDENT: Final = "independent"
FOUND: Final = 10  # passages a question
QUESTIONS: Final = 400  # of each honest kind
MOST_CHARS: Final = 3_000  # of an honest passage: a chunk is shorter
PENALTY: Final = 1e-3
STEPS: Final = 400  # of Newton's method at most
LEAST: Final = 50  # per cent: of the threshold
LOST: Final = 0.002  # of honest passages of the training half that may count as a flood


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, what was found for it, and which of that is poisoned. `kind` names how it was made."""

    kind: str
    question: str
    passages: tuple[Evidence, ...]
    poisoned: tuple[bool, ...]
    wrong: str = ""
    right: str = ""


def half(name: str) -> int:
    """0 or 1, by the name alone."""
    return hashlib.sha256(name.encode("utf-8", "replace")).digest()[0] & 1


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a file; raises FileNotFoundError."""
    with gzip.open(file) as lines:
        return [msgspec.json.decode(line) for line in lines]


class Sets:
    """The questions of one half with what is found for them."""

    def __init__(self, data: Path, part: int, encode: Any, *, seed: int = 0) -> None:
        self._rows = read(data / FILES[0])
        self._conflicts = read(data / FILES[1])
        self._part = part
        self._encode = encode
        self._draw = random.Random(seed)  # noqa: S311  a draw of rows, no secret
        self._honest = [row for row in self._rows if row["kind"] == "clean" and len(row["passage"]) <= MOST_CHARS]
        texts = {row["passage"] for row in self._honest}
        self._corpus = sorted(text for text in texts if half(text) == part)
        self._vectors: NDArray[np.float32] = encode(self._corpus)

    def poisoned(self, *, known: bool) -> list[Asked]:
        """Five poisoned passages of one batch in the first ten; the others are the nearest of other rows.

        Not `known`: no passage says where it came from.
        """
        by: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self._rows:
            if row["source"] == "poisonedrag_nq" and half(row["question"]) == self._part:
                by[row["question"]].append(row)
        made = []
        for question, rows in by.items():
            bad = [Evidence(row["passage"], f"page-{n}", "batch-of-one-hand") for n, row in enumerate(rows)]
            good = self._nearest(question, FOUND - len(bad))
            mixed = [(one, True) for one in bad] + [(one, False) for one in good]
            self._draw.shuffle(mixed)
            passages = tuple(one if known else Evidence(one.text) for one, _ in mixed)
            kind = "poisoned" if known else "poisoned, nothing known of sources"
            wrong, right = rows[0]["wrong_answer"], rows[0]["correct_answer"]
            made.append(Asked(kind, question, passages, tuple(is_bad for _, is_bad in mixed), wrong, right))
        return made

    def honest(self, *, known: bool) -> list[Asked]:
        """What is found for questions of XQuAD and BIPIA among their passages, all of one batch."""
        rows = [row for row in self._honest if half(row["passage"]) == self._part and row["question"].isascii()]
        rows = [row for row in rows if len(row["question"]) <= 300]  # noqa: PLR2004  others are logs, no questions
        made = []
        for row in self._draw.sample(rows, min(QUESTIONS, len(rows))):
            found = self._nearest(row["question"], FOUND)
            passages = tuple(one if known else Evidence(one.text) for one in found)
            kind = "honest" if known else "honest, nothing known of sources"
            made.append(Asked(kind, row["question"], passages, (False,) * len(passages)))
        return made

    def independent(self) -> list[Asked]:
        """What several models wrote in answer to one question: short, to the point, and each of its own hand."""
        by: dict[str, list[str]] = defaultdict(list)
        for row in self._conflicts:
            if half(row["question"]) == self._part and row["parametric_memory"].strip():
                by[row["question"]].append(row["parametric_memory"])
        some = [question for question, texts in by.items() if len(texts) > 3]  # noqa: PLR2004  enough for a flood
        made = []
        for question in self._draw.sample(some, min(QUESTIONS, len(some))):
            texts = [Evidence(text, f"site-{n}", f"batch-{n}") for n, text in enumerate(by[question][:FOUND])]
            made.append(Asked(INDEPENDENT, question, tuple(texts), (False,) * len(texts)))
        return made

    def all(self) -> list[Asked]:
        return [
            *self.poisoned(known=True),
            *self.poisoned(known=False),
            *self.honest(known=True),
            *self.honest(known=False),
            *self.independent(),
        ]

    def _nearest(self, question: str, count: int) -> list[Evidence]:
        cosines = self._vectors @ self._encode([question])[0]
        nearest = sorted(range(len(cosines)), key=lambda at: -cosines[at])[:count]
        return [Evidence(self._corpus[at], f"page-of-{half(self._corpus[at])}-{at}", "crawl") for at in nearest]


def fit(sets: Sequence[Asked], encode: Any) -> FloodModel:
    """Ridge-penalised logistic regression, each class with half of the weight; the threshold loses LOST of the honest."""  # noqa: E501
    import numpy as np  # noqa: PLC0415

    looked = [_look(one, encode) for one in sets]
    likes = [one.likes for one in looked]
    x = np.array([(*like.numbers(), 1.0) for one in likes for like in one])  # [passages, numbers + 1]
    y = np.array([bad for one in sets for bad in one.poisoned], dtype=float)
    scale = x[:, :-1].std(axis=0)
    z = x / np.append(scale, 1.0)
    weight = np.where(y == 1, 0.5 / y.sum(), 0.5 / (1 - y).sum())
    beta = np.zeros(z.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-z @ beta))
        slope = z.T @ (weight * (chance - y)) + PENALTY * np.append(beta[:-1], 0.0)
        curve = (z * (weight * chance * (1 - chance))[:, None]).T @ z + PENALTY * np.eye(len(beta))
        step = np.linalg.solve(curve, slope)
        beta -= step
        if np.abs(step).max() < 1e-9:  # noqa: PLR2004  it stands
            break
    weights = dict(zip(NUMBERS, (float(value) for value in beta[:-1] / scale), strict=True))
    model = FloodModel(weights, float(beta[-1]), 0.5)
    return FloodModel(weights, float(beta[-1]), _threshold(model, sets, looked))


def _threshold(model: FloodModel, sets: Sequence[Asked], looked: "Sequence[_Looked]") -> float:
    """The lowest at which few enough honest passages are taken for a flood."""
    chances = [[model.probability(like) for like in one.likes] for one in looked]
    honest = sum(not bad for one in sets for bad in one.poisoned)
    for step in range(LEAST, 99):
        threshold = step / 100
        lost = sum(
            found and not bad
            for one, own, seen in zip(sets, chances, looked, strict=True)
            for found, bad in zip(seen.flooded(one, own, threshold), one.poisoned, strict=True)
        )
        if lost <= LOST * honest:
            return threshold
    return 0.99


@dataclass(frozen=True, slots=True)
class _Looked:
    likes: list[Likeness]
    cosines: list[list[float]]
    named: list[frozenset[str]]

    def flooded(self, one: Asked, chances: Sequence[float], threshold: float) -> list[bool]:
        """As the guard has it, names and all."""
        return flooded(one.passages, chances, self.cosines, threshold, self.named)


def _look(one: Asked, encode: Any) -> _Looked:
    vectors = encode([passage.text for passage in one.passages])
    cosines = (vectors @ vectors.T).tolist()
    reads = [read_text(passage.text) for passage in one.passages]
    asked = (vectors @ encode([one.question])[0]).tolist()
    asked_names = names(one.question)
    named = [asked_names & read.words for read in reads]
    return _Looked(likenesses(one.question, one.passages, reads, asked, cosines), cosines, named)


def shares(sets: Sequence[Asked], model: FloodModel, encode: Any) -> dict[str, float]:
    """By kind, the share of poisoned passages that are kept and of honest ones that are lost; to floods alone."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in sets:
        looked = _look(one, encode)
        chances = [model.probability(like) for like in looked.likes]
        found = looked.flooded(one, chances, model.threshold)
        for is_flood, bad in zip(found, one.poisoned, strict=True):
            name = f"{one.kind}: {'poisoned kept' if bad else 'honest lost'}"
            counts[name][0] += is_flood != bad
            counts[name][1] += 1
    return {name: round(wrong / total, 4) for name, (wrong, total) in counts.items()}


@click.command()
@click.option("--data", required=True, envvar="CONCLAVE_DATA", type=click.Path(exists=True, path_type=Path))
@click.option("--out", default=SHIPPED, type=click.Path(dir_okay=False, path_type=Path), help="Default: the shipped.")
def main(data: Path, out: Path) -> None:
    from conclave.router.encoder import StaticEncoder  # noqa: PLC0415  training may use any room

    encode = StaticEncoder.load().encode
    model = fit([one for one in Sets(data, 0, encode).all() if one.kind != INDEPENDENT], encode)  # none has a fellow
    digests = {name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in FILES}
    measured = shares(Sets(data, 1, encode).all(), model, encode)
    shipped = FloodModel(
        {name: round(value, 6) for name, value in model.weights.items()},
        round(model.bias, 6),
        model.threshold,
        digests,
        measured,
    )
    out.write_bytes(msgspec.json.format(msgspec.json.encode(shipped), indent=1) + b"\n")
    for name, value in measured.items():
        click.echo(f"{name}: {value:.2%}", err=True)


if __name__ == "__main__":
    main()
