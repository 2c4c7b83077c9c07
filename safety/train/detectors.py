"""Trains the learned detectors: `python -m conclave.safety.train.detectors --data DIR --out safety/artifacts`.

About 3.2 minutes of CPU, one core. Each head is a logistic regression over token
n-grams of windows; a text's score is its best window's. Calibration and thresholds come from folds of sources and
templates that the fold's model had not seen; the shipped weights from all of them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import click
import msgspec
import numpy as np
from safetensors.numpy import save_file
from scipy.optimize import minimize
from scipy.sparse import vstack
from scipy.special import expit

from conclave.router.encoder import ARTIFACTS as ENCODER
from conclave.router.encoder import ENCODER_FILES, StaticEncoder
from conclave.router.train.rows import TRAIN_FILE
from conclave.safety.detect.learned import DETECTOR_FILES, HeadFile, HeadsFile
from conclave.safety.detect.ngrams import FEATURES, code_space
from conclave.safety.train.carriers import CONFLICTS, POISONED, data_examples
from conclave.safety.train.matrix import Matrix, matrix
from conclave.safety.train.sources import CODE, FOLDS, INJECTIONS, REWRITTEN, Example, user_examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED: Final = 20261122
SIZES: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {"override": (24,), "persona": (48,), "harm": (24,), "embedded": (12, 24)}
)
PENALTY: Final = 0.5
STEPS: Final = 40
LEAST_WINDOWS: Final = 2
FALSE: Final[Mapping[str, float]] = MappingProxyType(  # of honest texts of unseen sources that a head may take for one
    {"override": 0.005, "persona": 0.002, "harm": 0.005, "embedded": 0.01}  # .003: a plain question on a model's rules
)
OWN_FALSE: Final = 0.06  # of our own hard ones and our role-play, which are harder than life

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head's weights, one for each code."""

    weights: "NDArray[np.float64]"
    bias: float

    def scores(self, of: Matrix) -> "NDArray[np.float64]":
        """Each window's score."""
        found: NDArray[np.float64] = of.rows @ self.weights + self.bias
        return found


@dataclass(frozen=True, slots=True)
class Unseen:
    """Scores of examples by models that had not seen their sources."""

    scores: "NDArray[np.float64]"
    attack: "NDArray[np.bool_]"
    sources: list[str]


def train(data: Path, out: Path, *, say: Say) -> None:
    """Write the detectors of the data folder into `out`; raises FileNotFoundError."""
    encoder = StaticEncoder.load()
    users = user_examples(data, SEED)
    honest = users.pop("")
    heads = {name: [*users[name], *honest] for name in users} | {"embedded": data_examples(data, SEED)}
    table = np.zeros((code_space(encoder.vocabulary) + 1, len(heads)), dtype=np.float16)  # the last row answers -1
    files: list[HeadFile] = []
    measured: dict[str, float] = {}
    shared: dict[tuple[int, ...], Matrix] = {}
    for column, (name, examples) in enumerate(heads.items()):
        sizes = SIZES[name]
        if name != "embedded" and sizes not in shared:
            shared[sizes] = matrix(honest, sizes, encoder.tokens.ids, encoder.vocabulary)
        attacks = examples if name == "embedded" else users[name]
        seen = matrix(attacks, sizes, encoder.tokens.ids, encoder.vocabulary)
        if name != "embedded":
            seen = joined(seen, shared[sizes])
        say(f"{name}: {len(examples)} texts, {seen.rows.shape[0]} windows")
        unseen = out_of_fold(seen, examples)
        file, lines, some = calibrated(name, unseen)
        measured.update(some)
        for line in lines:
            say(line)
        fitted = fit(seen, examples)
        table[:-1, column] = fitted.weights.astype(np.float16)
        files.append(msgspec.structs.replace(file, bias=fitted.bias, windows=sizes))
    read = [*(data / name for name in (INJECTIONS, POISONED, CONFLICTS, CODE, TRAIN_FILE)), ENCODER / ENCODER_FILES[1]]
    about = HeadsFile(
        features=FEATURES,
        vocabulary=encoder.vocabulary,
        heads=tuple(files),
        trained_on={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in read},
        measured=measured,
    )
    out.mkdir(parents=True, exist_ok=True)
    save_file({"table": table}, out / DETECTOR_FILES[0])
    (out / DETECTOR_FILES[0]).chmod(0o644)  # safetensors writes 0600
    (out / DETECTOR_FILES[1]).write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")


def joined(one: Matrix, other: Matrix) -> Matrix:
    """Two matrices as one."""
    return Matrix(
        vstack((one.rows, other.rows)).tocsr(),
        np.concatenate((one.of, other.of + one.examples)),
        np.concatenate((one.attack, other.attack)),
        one.examples + other.examples,
    )


def out_of_fold(seen: Matrix, examples: Sequence[Example]) -> Unseen:
    """Every fold's examples, judged by a model of the others."""
    scores: list[NDArray[np.float64]] = []
    attack: list[bool] = []
    sources: list[str] = []
    for fold in range(FOLDS):
        held = np.array([one.folds == {fold} for one in examples])
        kept = np.array([fold not in one.folds for one in examples])
        model = fit(seen.take(kept), [one for one, keep in zip(examples, kept, strict=True) if keep])
        other = seen.take(held)
        scores.append(other.best(model.scores(other)))
        tested = [one for one, hold in zip(examples, held, strict=True) if hold]
        attack += [bool(one.attack) for one in tested]
        sources += [one.source for one in tested]
    return Unseen(np.concatenate(scores), np.array(attack), sources)


def fit(seen: Matrix, examples: Sequence[Example]) -> Fitted:
    """Weighted logistic regression with an L2 penalty; sources by the root of their windows, attacks as much as not.

    A code of a single window has no weight: most are names and numbers.
    """
    used = seen.attack >= 0
    labels = (seen.attack[used] == 1).astype(np.float64)
    counts = _counts([examples[number].source for number in seen.of[used]], labels)
    common = np.flatnonzero(np.bincount(seen.rows[used].indices, minlength=seen.rows.shape[1]) >= LEAST_WINDOWS)
    rows = seen.rows[used][:, common]
    turned = rows.T.tocsr()

    def loss(at: "NDArray[np.float64]") -> "tuple[float, NDArray[np.float64]]":
        scores = rows @ at[:-1] + at[-1]
        wrong = counts * (expit(scores) - labels)
        total = (counts * (np.logaddexp(0, scores) - labels * scores)).sum() + 0.5 * PENALTY * (at[:-1] ** 2).sum()
        return float(total), np.append(turned @ wrong + PENALTY * at[:-1], wrong.sum())

    found = minimize(
        loss, np.zeros(len(common) + 1), jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "maxcor": 8}
    )
    weights = np.zeros(seen.rows.shape[1])
    weights[common] = found.x[:-1]
    return Fitted(weights, float(found.x[-1]))


def _counts(sources: Sequence[str], labels: "NDArray[np.float64]") -> "NDArray[np.float64]":
    sizes: defaultdict[tuple[str, float], int] = defaultdict(int)
    cells = list(zip(sources, labels.tolist(), strict=True))
    for cell in cells:
        sizes[cell] += 1
    counts = np.array([30 * sizes[cell] ** -0.5 for cell in cells])
    counts[labels == 1] *= counts[labels == 0].sum() / counts[labels == 1].sum()
    return counts


def calibrated(name: str, unseen: Unseen) -> tuple[HeadFile, list[str], dict[str, float]]:
    """The head's file without its weights: Platt's numbers and the threshold; what was measured, twice."""
    scores, attack = unseen.scores, unseen.attack
    slope, offset = platt(scores, attack)
    sources = np.array(unseen.sources)
    life = ~attack & ~np.char.startswith(sources, "own_")

    def reached(share: float) -> float:
        return quantile(scores[life], sources[life].tolist(), 1 - share)

    bounds = [reached(FALSE[name])]
    bounds += [
        float(np.quantile(scores[sources == source], 1 - OWN_FALSE))
        for source in sorted(set(unseen.sources))
        if source.startswith(("own_hard", "own_roleplay"))
    ]
    threshold, stated = max(bounds), reached(0.01)
    public = attack & ~np.char.startswith(sources, "own_") & ~np.char.endswith(sources, REWRITTEN)
    orders = public & (np.char.startswith(sources, "bipia") | np.char.startswith(sources, "injecagent"))
    measured = {
        f"{name} AUC": auc(scores[public if public.any() else attack], scores[~attack]),
        **({f"{name} AUC of public orders": auc(scores[orders], scores[~attack])} if orders.any() else {}),
        f"{name} honest passed": float((scores[life] < threshold).mean()),
    }
    lines = [f"  {measured}; bounds {[round(bound, 2) for bound in bounds]}, 1 %: {stated:.2f}"]
    for source in sorted(set(unseen.sources)):
        for kind in (True, False):
            some = scores[(sources == source) & (attack == kind)]
            if len(some) and (kind or (some > threshold).mean() > 2 * FALSE[name] or source.startswith("own_")):
                caught, easy = float((some > threshold).mean()), float((some > stated).mean())
                what = "caught" if kind else "HONEST TAKEN"
                lines.append(f"  {what} {source}: {caught:.3f} (at 1 %: {easy:.3f}) of {len(some)}")
                if kind and name != "embedded":
                    measured[f"{name} {source} recall at 1 % false"] = easy
                elif source.startswith("own_") and not kind:
                    measured[f"{name} {source} passed"] = 1 - caught
    probability = float(expit(slope * threshold + offset))
    file = HeadFile(name=name, bias=0.0, windows=(), slope=slope, offset=offset, threshold=probability)
    return file, lines, {key: round(value, 4) for key, value in measured.items()}


def quantile(scores: "NDArray[np.float64]", sources: Sequence[str], share: float) -> float:
    """The score below which that share of honest texts lies, sources by the root of their size."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for source in sources:
        sizes[source] += 1
    counts = np.array([sizes[source] ** -0.5 for source in sources])
    order = scores.argsort()
    below = np.cumsum(counts[order]) / counts.sum()
    return float(scores[order[min(int(np.searchsorted(below, share)), len(order) - 1)]])


def platt(scores: "NDArray[np.float64]", attack: "NDArray[np.bool_]") -> tuple[float, float]:
    """Slope and offset that make probabilities of scores, attacks taken to be as frequent as not (Platt, 1999)."""
    counts = np.where(attack, 0.5 / attack.sum(), 0.5 / (~attack).sum())
    targets = np.where(attack, 1 - 1 / (attack.sum() + 2), 1 / ((~attack).sum() + 2))

    def loss(at: "NDArray[np.float64]") -> float:
        said = at[0] * scores + at[1]
        return float((counts * (np.logaddexp(0, said) - targets * said)).sum())

    found = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead")
    return float(found.x[0]), float(found.x[1])


def auc(attacks: "NDArray[np.float64]", honest: "NDArray[np.float64]") -> float:
    """The chance that an attack scores higher than an honest text."""
    ranks = np.concatenate([attacks, honest]).argsort().argsort() + 1
    held = len(attacks)
    return float((ranks[:held].sum() - held * (held + 1) / 2) / (held * len(honest)))


@click.command()
@click.option("--data", required=True, envvar="CONCLAVE_DATA", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
def main(data: Path, out: Path) -> None:
    """Train the learned detectors again."""
    train(data, out, say=lambda line: click.echo(line, err=True))


if __name__ == "__main__":
    main()
