"""`conclave router fit`: outcome rows to a folder with the quality head, its card and the score table.

Writes `quality.safetensors`, `quality.json`, `quality.md` (the card) and `scores.json` (the policy's `routing.scores`),
and says whether routing pays: by the gain of the head over the best single expert, on rows that neither had seen.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from safetensors.numpy import save_file

from conclave.router.budget import Problem
from conclave.router.classify import Router
from conclave.router.cues import CUES_VERSION
from conclave.router.evaluate.benchmark import advice
from conclave.router.evaluate.measures import Interval, bootstrap
from conclave.router.features import FEATURES
from conclave.router.mapping import frontier
from conclave.router.outcomes import Graded, experts_of
from conclave.router.quality import QUALITY_FILES, HeadFile, Tensors, quality_digest
from conclave.router.scores import Score, ScoreTable, score_table
from conclave.router.train.quality import Fitted, Material, fit, material

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCORES_FILE: Final = "scores.json"
CARD_FILE: Final = "quality.md"
FEWEST_ROWS: Final = 200  # the head's inner validation is a quarter of them; fewer say nothing about any expert


@dataclass(frozen=True, slots=True)
class Step:
    """One table of the frontier: its mean cost in USD a call and its expected score."""

    usd_per_call: float
    expected: float
    table: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of the outcome data; `gain` is over `best`, on `judged` rows that the head had not seen."""

    rows: int
    experts: tuple[str, ...]
    scores: ScoreTable
    best: str
    gain: Interval
    judged: int
    advice: str
    shares: Mapping[str, float]
    frontier: tuple[Step, ...]
    folder: str
    sha256: str


def fit_to(
    rows: Sequence[Graded], files: Sequence[Path], out: Path, *, apart: bool, say: Callable[[str], None]
) -> Made:
    """Fit and write all files into `out`; raises ValueError for data that no head can be made from."""
    experts = experts_of(rows)
    if len(rows) < FEWEST_ROWS or len(experts) < 2:  # noqa: PLR2004  a choice needs two
        raise ValueError(
            f"{len(rows)} rows of {len(experts)} experts: a head needs at least {FEWEST_ROWS} rows and 2 experts"
        )
    router = Router.load()
    say(f"{len(rows)} rows, {len(experts)} experts: classifying")
    probabilities = [found.probabilities for found in router.classify_batch(row.prompt for row in rows)]
    scores = score_table(rows, [shares_of(row, mine) for row, mine in zip(rows, probabilities, strict=True)])
    held = material(rows, probabilities, encoder=router.encoder)
    say("fitting the head, twice: for its shares, then on all rows")
    fitted = fit(held, apart=apart)
    best, gain, judged = gain_of(held, fitted)
    out.mkdir(parents=True, exist_ok=True)
    _write(out, held, fitted, files)
    (out / SCORES_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(scores), indent=2) + b"\n")
    made = Made(
        rows=len(rows),
        experts=experts,
        scores=scores,
        best=experts[best],
        gain=gain,
        judged=judged,
        advice=advice(gain),
        shares=dict(zip(("topics", "words", "trees"), fitted.shares.mix, strict=True)),
        frontier=_frontier(rows, scores),
        folder=str(out),
        sha256=quality_digest(out),
    )
    (out / CARD_FILE).write_text(card(made, files), encoding="utf-8")
    return made


def shares_of(row: Graded, probabilities: Mapping[str, float]) -> Mapping[str, float]:
    """The row's own category if it is one of the classifier's, else the classifier's probabilities."""
    known = row.category is not None and row.category in probabilities
    return {str(row.category): 1.0} if known else probabilities


def gain_of(held: Material, fitted: Fitted) -> tuple[int, Interval, int]:
    """The best single expert by the rows that taught the head, and the head's gain over it on the others."""
    seen = np.setdiff1d(np.arange(len(held.scores)), fitted.unseen)
    asked = ~np.isnan(held.scores)
    sums = np.where(asked, held.scores, 0.0)[seen].sum(axis=0)
    best = int((sums / np.maximum(asked[seen].sum(axis=0), 1)).argmax())
    scores = held.scores[fitted.unseen]
    chosen = np.where(np.isnan(scores), -np.inf, fitted.expected).argmax(axis=1)  # among those that were asked
    gains = scores[np.arange(len(scores)), chosen] - scores[:, best]
    known: NDArray[np.float64] = gains[~np.isnan(gains)]
    return best, bootstrap(known), len(known)


def lay_out(made: Made) -> str:
    """For a terminal."""
    width = max(map(len, made.experts))
    lines = [f"{made.rows} rows; best single expert: {made.best}", "score (standard error) by category"]
    for category, row in made.scores.items():
        lines.append(f"  {category}")
        ranked = sorted(row.items(), key=lambda item: -item[1].score)
        lines += [f"    {name:<{width}}  {_shown(score)}" for name, score in ranked]
    lines.append(made.advice)
    if made.frontier:
        lines.append("USD per call -> expected score")
        lines += [f"  {step.usd_per_call:.6f}  {step.expected:.3f}" for step in made.frontier]
    lines += [f"written to {made.folder}; for the policy:", "  routing:", "    quality:"]
    lines += [f"      folder: {made.folder}", f"      sha256: {made.sha256}"]
    return "\n".join(lines)


def card(made: Made, files: Sequence[Path]) -> str:
    """What the head is, how good it was on rows it had not seen, and what it is not for."""
    shares = ", ".join(f"{name} {share:.2f}" for name, share in made.shares.items())
    return (
        "# Quality head\n\n"
        f"Expects a score of each of: {', '.join(made.experts)}.\n\n"
        f"Made by `conclave router fit` from {made.rows} rows of {', '.join(file.name for file in files)}. "
        f"Shares of its parts in the gain: {shares}.\n\n"
        f"On {made.judged} rows that it had not seen: {made.advice}. The best single expert there is {made.best}.\n\n"
        "It knows these experts as they were when the data were made, on questions like those of the data. Questions "
        "of another kind get little more than the experts' means. It must not be used to judge people or answers.\n"
    )


def _shown(score: Score) -> str:
    return f"{score.score:.3f} ({score.error:.3f}) of {score.rows}"


def _write(out: Path, held: Material, fitted: Fitted, files: Sequence[Path]) -> None:
    tensors: Tensors = fitted.tensors
    written = {name: np.ascontiguousarray(value) for name, value in asdict(tensors).items()}
    save_file(written | {"lexical": written["lexical"].astype(np.float16)}, out / QUALITY_FILES[0])
    (out / QUALITY_FILES[0]).chmod(0o644)  # safetensors writes 0600
    about = HeadFile(
        experts=held.experts,
        topics=held.topics if len(tensors.table) else (),  # none are recognised apart
        categories=held.categories,
        features=FEATURES,
        cues=CUES_VERSION,
        trained_on={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    )
    (out / QUALITY_FILES[1]).write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")


def _frontier(rows: Sequence[Graded], scores: ScoreTable) -> tuple[Step, ...]:
    """Budget to expected score, where every expert's cost is known."""
    held: dict[str, list[float]] = {}
    for row in rows:
        for name, cost in row.cost.items():
            held.setdefault(name, []).append(cost)
    experts = experts_of(rows)
    if not all(name in held for name in experts):
        return ()
    problem = Problem(
        experts={name: {"usd_per_call": float(np.mean(held[name]))} for name in experts},
        scores={category: row for category, row in scores.items() if category != "any"},
        weights={category: float(max(one.rows for one in row.values())) for category, row in scores.items()},
    )
    return tuple(
        Step(solved.uses["usd_per_call"], solved.expected, solved.table) for solved in frontier(problem, "usd_per_call")
    )
