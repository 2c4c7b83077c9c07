"""What the retrieval gate's evidence is worth: AUROC by kind of evidence, model and data set; and what `auto` saves.

    python -m benchmarks.retrieval.gate --data DIR [--json]            two minutes on one core

DIR holds retrieval_gate, knowledge_conflict and poisoned_context. Questions are scored by models that have not seen
them. Rows: the text alone (a baseline of words, and the gate's own), with two samples of the expert that agree or not
(drawn from the measured shares; that two wrong ones are the same is assumed, at three rates), with what the other
models know, and with the scores of a search. Then 2,000 invented facts in a corpus and 2,000 that an expert knows:
answers that are right, and look-ups, of always, never and auto.
"""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec
import numpy as np

from conclave.router.encoder import StaticEncoder
from conclave.router.gates.retrieval import Costs, Known, RetrievalGate, saving
from conclave.router.train.retrieval_gate import (
    MATCH_PENALTY,
    MEASURED,
    Index,
    Row,
    auroc,
    features,
    folds,
    logistic,
    rows_of,
    searches,
    unseen,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTS: Final = 2_000
SAME_WRONG: Final = (0.2, 0.5, 0.8)  # how often two wrong samples are the same: nobody has measured it here
ALL: Final = "all models"


def measure(data: Path, encoder: StaticEncoder, say: Callable[[str], None] = lambda _: None) -> dict[str, float]:
    """Every figure by its name."""
    rows = [row for row in rows_of(data) if row.source == MEASURED]
    x = features([row.question for row in rows], encoder)
    part = folds(len(rows))
    found: dict[str, float] = {}
    needed = np.array([row.needed for row in rows])
    wrong = np.array([row.wrong for row in rows])
    found[f"text, words alone (baseline) | {ALL}"] = auroc(_words(rows, needed, part), needed)
    text = unseen(x, wrong, part, penalty=1e-3)
    found[f"text, the gate's | {ALL}"] = auroc(text, needed)
    for model in sorted({name for row in rows for name in row.by_model}):
        say(model)
        found |= _by_model(model, rows, x, part)
    say("sources held out")
    found |= _sources(data, encoder, text, needed)
    say("searches")
    found |= _matches(data, encoder)
    say("facts")
    return {name: round(value, 4) for name, value in (found | facts(encoder)).items()}


def _by_model(model: str, rows: list[Row], x: "NDArray[np.float64]", part: "NDArray[np.int64]") -> dict[str, float]:
    has = np.array([model in row.by_model for row in rows])
    some = [row for row in rows if model in row.by_model]
    wrong = np.array([row.by_model[model] for row in some])
    hard = wrong > 0.5  # noqa: PLR2004  of six answers
    name = model.rpartition("_")[2]
    found = {f"text, words alone (baseline) | {name}": auroc(_words(some, hard, part[has]), hard)}
    text = unseen(x[has], wrong, part[has], penalty=1e-3)
    found[f"text, the gate's | {name}"] = auroc(text, hard)
    others = np.array([_mean([value for one, value in row.by_model.items() if one != model]) for row in rows])
    apart = has & ~np.isnan(others)
    target, own = others[apart], np.array([row.by_model[model] for row in rows if model in row.by_model])
    own = own[~np.isnan(others[has])]
    left_out = unseen(x[apart], target, part[apart], penalty=1e-3)  # fitted to the other models only
    found[f"text, fitted to the other models | {name}"] = auroc(left_out, own > 0.5)  # noqa: PLR2004  of six answers
    found[f"what the other models know | {name}"] = auroc(target, own > 0.5)  # noqa: PLR2004  of six answers
    draw = np.random.default_rng(0)
    for rate in SAME_WRONG:
        first, second = draw.random(len(wrong)) >= wrong, draw.random(len(wrong)) >= wrong
        agree = (first & second) | (~first & ~second & (draw.random(len(wrong)) < rate))
        right = 0.97  # of samples after a right one, see the artifact
        odds = np.where(agree, math.log(0.5 / right), math.log(0.5 / (1 - right)))
        found[f"text and two samples, wrong ones the same at {rate} | {name}"] = auroc(text + odds, ~first)
        found[f"text alone, the first sample's errors | {name}"] = auroc(text, ~first)
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _words(
    rows: list[Row], y: "NDArray[np.bool_] | NDArray[np.int64]", part: "NDArray[np.int64]"
) -> "NDArray[np.float64]":
    """Naive Bayes over words: what a query-only classifier of the plainest kind says, out of fold, [rows]."""
    words = [frozenset(row.question.lower().replace("?", "").split()) for row in rows]
    scores = np.zeros(len(rows))
    for one in np.unique(part):
        counts: dict[str, list[float]] = {}
        train = np.flatnonzero(part != one)
        totals = [1.0 + float(np.sum(~y[train].astype(bool))), 1.0 + float(np.sum(y[train].astype(bool)))]
        for at in train:
            for word in words[at]:
                counts.setdefault(word, [1.0, 1.0])[int(y[at])] += 1
        odds = {w: math.log(c[1] / totals[1]) - math.log(c[0] / totals[0]) for w, c in counts.items() if sum(c) > 4}  # noqa: PLR2004  rare words
        for at in np.flatnonzero(part == one):
            scores[at] = sum(odds.get(word, 0.0) for word in words[at])
    return scores


def _sources(
    data: Path, encoder: StaticEncoder, text: "NDArray[np.float64]", needed: "NDArray[np.int64]"
) -> dict[str, float]:
    """Whole sources of tasks held out: is a task told from a question that a document answers, and not looked up."""
    rows = rows_of(data)
    x = features([row.question for row in rows], encoder)
    known = np.array([row.source == MEASURED for row in rows])
    names = sorted({row.source for row in rows} - {MEASURED})
    part = np.array([names.index(row.source) % 5 if row.source in names else at % 5 for at, row in enumerate(rows)])
    factual = unseen(x, known.astype(float), part, penalty=1e-3)
    unknown = np.zeros(len(rows))
    unknown[known] = text
    beta = logistic(x[known], np.array([row.wrong for row in rows])[known], penalty=1e-3)
    unknown[~known] = x[~known] @ beta[:-1] + beta[-1]
    both = 1 / (1 + np.exp(-unknown)) / (1 + np.exp(-factual))
    label = np.array([row.needed for row in rows])
    return {
        "needed or not, TriviaQA and held-out task sources | the gate's": auroc(both, label),
        "task or question, sources held out | the gate's": auroc(factual, known),
        "needed or not, TriviaQA alone | the gate's": auroc(both[known], needed),
    }


def _matches(data: Path, encoder: StaticEncoder) -> dict[str, float]:
    """Does the corpus hold the answer: by the scores of a search, with each data set held out."""
    found = searches(data, encoder)
    m = np.array([one.numbers() for one in found])
    held = np.array([float(one.held) for one in found])
    source = np.array([one.source for one in found])
    scores = unseen(m, held, source, penalty=MATCH_PENALTY)
    said = {
        f"search scores, {name} held out": auroc(scores[source == name], held[source == name]) for name in set(source)
    }
    return dict(sorted(said.items())) | {"search scores, a data set held out": auroc(scores, held)}


def facts(encoder: StaticEncoder, *, count: int = FACTS, seed: int = 0) -> dict[str, float]:
    """Invented facts: half in the corpus and unknown to the expert, half known to it and in no document.

    The expert answers from the best passage if one is shown and it names the thing that was asked about, else from what
    it knows; its two samples agree where it knows, and else at 0.25.
    """
    draw = random.Random(seed)  # noqa: S311  a draw of names, no secret
    names = _names(draw, 2 * count)
    asked = [draw.choice(QUESTIONS) for _ in names]
    corpus = [what.replace("?", f"{name}", 1) for name, (_, what) in zip(names[:count], asked[:count], strict=True)]
    index = Index(corpus, encoder)
    gate = RetrievalGate.load(encoder)
    right = {"always": 0, "never": 0, "auto": 0}
    looked = 0
    for place, (name, (question, _)) in enumerate(zip(names, asked, strict=True)):
        text = question.replace("?", name, 1) + "?"
        scores = index.search(text)
        knows, found = place >= count, scores.first == place
        known = Known(best=scores.best, margin=scores.margin, coverage=scores.coverage)
        agrees = 1.0 if knows else float(draw.random() < 0.25)  # noqa: PLR2004  assumed
        said = gate.decide(text, replace(known, agreement=agrees, samples=3, expert_score=0.5))
        looked += said.retrieve
        right["always"] += found or knows
        right["never"] += knows
        right["auto"] += knows or (said.retrieve and found)
    total = 2 * count
    costs = Costs()
    return {
        **{f"invented facts, right answers | {way}": value / total for way, value in right.items()},
        "invented facts, auto's share of always's right answers": right["auto"] / right["always"],
        "invented facts, auto's share of look-ups": looked / total,
        "invented facts, tokens saved a question": saving(asked=total, retrieved=looked, costs=costs) / total,
    }


QUESTIONS: Final = (
    ("In which year was the lighthouse of ? built", "The lighthouse of ? was built in 1873 by the harbour board."),
    ("Who founded the observatory of ?", "The observatory of ? was founded by Mira Tallen after the great flood."),
    ("Which river flows through the town of ?", "The town of ? lies on the river Ansel, below two old mills."),
    ("What colour is the flag of the island of ?", "The flag of the island of ? is green with a white heron."),
    ("How many bells hang in the tower of ?", "In the tower of ? hang eleven bells, cast in one summer."),
)


def _names(draw: random.Random, count: int) -> list[str]:
    parts = (
        "bal",
        "dor",
        "ven",
        "mik",
        "tar",
        "os",
        "lun",
        "gre",
        "hal",
        "ist",
        "rov",
        "cam",
        "ely",
        "zun",
        "pir",
        "qua",
    )
    made: dict[str, None] = {}
    while len(made) < count:
        made["".join(draw.choices(parts, k=draw.randint(3, 4))).capitalize()] = None
    return list(made)


@click.command()
@click.option("--data", required=True, envvar="CONCLAVE_DATA", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True)
def main(data: Path, *, as_json: bool) -> None:
    found = measure(data, StaticEncoder.load(), lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    width = max(map(len, found))
    for name, value in found.items():
        click.echo(f"{name:{width}}  {value:.3f}")


if __name__ == "__main__":
    main()
