"""`conclave router benchmark`: does routing pay, on real outcomes, beside the best single expert and the oracle.

For each pool of experts and each split, all ways of choosing (`ways.py`) on the same test rows: accuracy, gain over the
best single expert with a paired bootstrap interval, cost, and for two experts the curves of RouteLLM. Nothing is chosen
on test rows, and the classifier has seen none of the questions (`refit.py`).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from conclave.router.encoder import StaticEncoder
from conclave.router.evaluate.measures import Interval, apgr, bootstrap, cpt, recovered
from conclave.router.evaluate.pools import SPLITS, Pool, folds
from conclave.router.evaluate.refit import strange_probabilities
from conclave.router.evaluate.ways import Fold, ways
from conclave.router.train.quality import Material, material, topic_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CURVE_DRAWS: Final = 200  # resamples of the curves, each of which is sorted again
BLEND: Final = "blend"


@dataclass(frozen=True, slots=True)
class Way:
    """One way of choosing; `gain` is over the best single expert, `cost` per call relative to that expert's."""

    accuracy: Interval
    gain: Interval
    cost: float | None


@dataclass(frozen=True, slots=True)
class Curves:
    """Between two experts, by the head's expected gain; cpt: the share of calls that brings 50 and 80 % of the gap."""

    apgr: Interval
    cpt_50: float
    cpt_80: float


@dataclass(frozen=True, slots=True)
class Result:
    """One pool under one split."""

    pool: str
    split: str
    rows: int
    experts: tuple[str, ...]
    best: str
    category_accuracy: float | None
    ways: dict[str, Way]
    curves: Curves | None
    advice: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All results of one run."""

    results: tuple[Result, ...]
    rows_at_most: int


def benchmark(  # noqa: PLR0913  each is an option of the command
    pools: Iterable[Pool],
    data: Path,
    *,
    splits: Sequence[str] = SPLITS,
    rows: int = 0,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> Benchmark:
    """Measure all pools; `rows` bounds each (0: all). `data` holds category_train; raises FileNotFoundError without."""
    encoder = StaticEncoder.load()
    results = []
    for whole in pools:
        pool = whole.at_most(rows)
        say(f"{pool.name}: {len(pool.rows)} rows, {len(pool.experts)} experts; the classifier is fitted without them")
        shares = strange_probabilities([row.prompt for row in pool.rows], data, encoder)
        held = material(pool.rows, shares, encoder=encoder, experts=pool.experts)
        for split in splits:
            part = folds(pool.rows, split)
            if part is not None:
                say(f"{pool.name}: {split}")
                results.append(measured(pool, held, part, split=split, clock=clock))
    return Benchmark(tuple(results), rows)


def measured(
    pool: Pool, held: Material, part: "NDArray[np.int64]", *, split: str, clock: Callable[[], float]
) -> Result:
    """One pool under one split: every row is a test row once."""
    started = clock()
    count = len(pool.rows)
    costs = np.array([pool.costs[name] for name in pool.experts]) if pool.costs else None
    labels = [row.category or row.dataset for row in pool.rows]
    topics = [topic_of(row) for row in pool.rows]
    chosen: dict[str, NDArray[np.int64]] = {}
    expected = np.zeros(held.scores.shape, dtype=np.float32)
    for number in np.unique(part):
        test = np.flatnonzero(part == number)
        fold = Fold(held, np.flatnonzero(part != number), test, labels, topics, costs)
        found, expected[test] = ways(fold, apart=split != SPLITS[0])
        for name, experts in found.items():
            chosen.setdefault(name, np.zeros(count, dtype=np.int64))[test] = experts
    each = np.arange(count)
    base = held.scores[each, chosen["best single"]]
    paid = np.ones(count) if costs is None else costs[chosen["best single"]]
    measures = {
        name: _way(held.scores[each, way], base, None if costs is None else costs[way].mean() / paid.mean())
        for name, way in chosen.items()
    }
    measures["random"] = _way(held.scores.mean(axis=1), base, None if costs is None else costs.mean() / paid.mean())
    return Result(
        pool=pool.name,
        split=split,
        rows=count,
        experts=pool.experts,
        best=pool.experts[int(held.scores.mean(axis=0).argmax())],
        category_accuracy=_category_accuracy(pool, held),
        ways=dict(sorted(measures.items(), key=lambda item: item[1].accuracy.value)),
        curves=_curves(held.scores, expected, part) if len(pool.experts) == 2 else None,  # noqa: PLR2004  the curves' two
        advice=advice(measures[BLEND].gain),
        seconds=round(clock() - started, 1),
    )


def advice(gain: Interval) -> str:
    """What the gain of routing over the best single expert says, in words."""
    between = f"95 % {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    words = f"{100 * gain.value:+.1f} points over the best single expert ({between})"
    if gain.low > 0:
        return f"routing pays here: {words}"
    return f"routing does not pay here: {words}; only cost can be won"


def _way(scores: "NDArray[np.float64]", base: "NDArray[np.float64]", cost: float | None) -> Way:
    return Way(bootstrap(scores), bootstrap(scores - base), None if cost is None else float(cost))


def _curves(scores: "NDArray[np.float64]", expected: "NDArray[np.float32]", part: "NDArray[np.int64]") -> Curves | None:
    """None where the two are about equally good: there is no gap to recover.

    Each fold's head ranks its own rows, and the ranks are pooled: a fold whose subjects gain much was left out of the
    mean that its head starts from, so pooled values would be in the wrong order between folds (APGR below .5).
    """
    strong = int(scores.mean(axis=0).argmax())
    gap = bootstrap(scores[:, strong] - scores[:, 1 - strong])
    if gap.low <= 0:
        return None
    prefer = _ranked(expected[:, strong] - expected[:, 1 - strong], part)
    curve = recovered(prefer, scores[:, 1 - strong], scores[:, strong])
    draw = np.random.default_rng(0)
    areas = []
    for _ in range(CURVE_DRAWS):
        some = draw.integers(0, len(prefer), len(prefer))
        if scores[some, strong].sum() > scores[some, 1 - strong].sum():
            areas.append(apgr(recovered(prefer[some], scores[some, 1 - strong], scores[some, strong])))
    low, high = np.quantile(areas, (0.025, 0.975))
    return Curves(Interval(apgr(curve), float(low), float(high)), cpt(curve, 0.5), cpt(curve, 0.8))


def _ranked(values: "NDArray[np.float32]", part: "NDArray[np.int64]") -> "NDArray[np.float64]":
    """Each row's share of the rows of its fold that lie below it, from 0 to 1."""
    ranks = np.zeros(len(values))
    for number in np.unique(part):
        mine = np.flatnonzero(part == number)
        ranks[mine] = (values[mine].argsort(kind="stable").argsort(kind="stable") + 0.5) / len(mine)
    return ranks


def _category_accuracy(pool: Pool, held: Material) -> float | None:
    """How often the classifier that has not seen the questions finds their category, where that is one of its own."""
    guessed = held.form[:, held.form.shape[1] - len(held.categories) :].argmax(axis=1)
    right = [
        held.categories[guess] == row.category
        for guess, row in zip(guessed, pool.rows, strict=True)
        if row.category in held.categories
    ]
    return sum(right) / len(right) if right else None
