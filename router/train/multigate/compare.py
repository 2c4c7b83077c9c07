"""Networks against linear heads on sources that neither has seen: variants chosen inside, judged outside, in pairs.

Each fold holds a third of the sources out. Inside the first fold's other two thirds a third is held out again: there
HoME chooses its variant by the mean of the tasks (the plain mixture takes the same) and each linear head its penalty by
its own task. Then, for each fold, all are fitted to what is inside and judged on what is outside. The intervals come
from drawing the held-out rows again. What was chosen in the first fold has seen sources that later folds judge on: that
can only flatter, and HoME, which has more to choose, more than the heads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from torch import nn

from conclave.router.train.multigate.heads import fit_head, scores
from conclave.router.train.multigate.learn import UNKNOWN, Plan, Rows, learn, predict
from conclave.router.train.multigate.network import Shape
from conclave.router.train.multigate.roc import auc
from conclave.router.train.multigate.tasks import TASKS, Labelled, folds, odds, split

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUPS: Final = (("category", "difficulty", "quality", "tool", "retrieval"), ("risk",))  # capability, and risk
PENALTIES: Final = (1e-3, 1e-2, 1e-1, 1.0)
DRAWS: Final = 400


@dataclass(frozen=True, slots=True)
class Variant:
    """What is tried: a network's width, how much of its input it misses, AdamW's decay, how a source's size counts."""

    name: str
    width: int = 32
    drop: float = 0.0
    decay: float = 0.01
    source_power: float = 0.5  # 0: all sources of a label alike
    linear: bool = False  # linear heads inside the network


VARIANTS: Final = (
    Variant("drop .5, decay 1", drop=0.5, decay=1.0),
    Variant("drop .8, decay 2", drop=0.8, decay=2.0),
    Variant("drop .5, decay 1, sources alike", drop=0.5, decay=1.0, source_power=0.0),
    Variant("drop .5, decay 1, linear path", drop=0.5, decay=1.0, linear=True),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One model's answers to one task's held-out rows of one fold."""

    model: str
    task: str
    fold: int
    seed: int
    truth: "NDArray[np.int64]"
    found: "NDArray[np.float32]"  # category: the answer's number; else a score, higher for the last label
    sources: "NDArray[np.int64]"

    def measure(self, drawn: "NDArray[np.int64] | None" = None) -> float:
        """Category: accuracy, mean over sources; else the area under the ROC curve."""
        truth, found, sources = self.truth, self.found, self.sources
        if drawn is not None:
            truth, found, sources = truth[drawn], found[drawn], sources[drawn]
        if self.task != "category":
            return auc(found, truth)
        rows = np.bincount(sources)
        right = np.bincount(sources, weights=truth == found)
        return float((right[rows > 0] / rows[rows > 0]).mean())


@dataclass(frozen=True, slots=True)
class Table:
    """The rows as numbers: `labels[task]` are a task's answers in the order of their numbers."""

    rows: Sequence[Labelled]
    inputs: "NDArray[np.float32]"
    labels: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, rows: Sequence[Labelled], inputs: "NDArray[np.float32]") -> "Table":
        """From labelled rows and what the models read of them."""
        order = {"no": 0, "yes": 1, "less": 0, "same": 1, "more": 2}
        labels = {
            task: tuple(sorted({row.label for row in rows if row.task == task}, key=lambda x: (order.get(x, 0), x)))
            for task in TASKS
        }
        return cls(rows, inputs, labels)

    def learnable(self, numbers: "NDArray[np.int64]", variant: Variant) -> Rows:
        """Some rows for a network."""
        some = [self.rows[number] for number in numbers]
        labels = np.full((len(some), len(TASKS)), UNKNOWN, dtype=np.int64)
        for place, row in enumerate(some):
            labels[place, TASKS.index(row.task)] = self.labels[row.task].index(row.label)
        return Rows(self.inputs[numbers], labels, odds(some, source_power=variant.source_power))

    def shape(self, variant: Variant) -> Shape:
        """The network for these tasks."""
        return Shape(
            inputs=self.inputs.shape[1],
            classes=tuple(len(self.labels[task]) for task in TASKS),
            groups=tuple(tuple(TASKS.index(task) for task in group) for group in GROUPS),
            width=variant.width,
            drop=variant.drop,
            linear=variant.linear,
        )

    def judge(
        self,
        model: str,
        logits: Sequence["NDArray[np.float32]"],
        numbers: "NDArray[np.int64]",
        *,
        fold: int,
        seed: int = 0,
    ) -> Iterator[Judged]:
        """Each task's part of the held-out rows; a task without both answers there is left out."""
        for place, task in enumerate(TASKS):
            mine = np.array([self.rows[number].task == task for number in numbers])
            some = [self.rows[number] for number in numbers[mine]]
            truth = np.array([self.labels[task].index(row.label) for row in some])
            names = sorted({row.source for row in some})
            sources = np.array([names.index(row.source) for row in some])
            found = answers(task, logits[place][mine])
            if task == "quality":
                truth = (truth == len(self.labels[task]) - 1).astype(np.int64)
            if task == "category" or 0 < truth.sum() < len(truth):
                yield Judged(model, task, fold, seed, truth, found, sources)


def answers(task: str, logits: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """A category's number; the log odds of a yes; the expected gain."""
    if task == "category":
        return np.asarray(logits.argmax(axis=1), dtype=np.float32)
    if task != "quality":
        return logits[:, 1] - logits[:, 0]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float32] = (powers[:, 2] - powers[:, 0]) / powers.sum(axis=1)
    return found


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the check on sources held out inside the first fold chose: HoME's variant, each linear head's penalty."""

    variant: Variant
    penalties: Mapping[str, float]


def choose(table: Table, plan: Plan, say: Callable[[str], None]) -> Chosen:
    """The variant of the best mean over tasks, and for each task the best penalty."""
    inside, _ = split(table.rows, folds(table.rows)[0])
    kept = [table.rows[number] for number in inside]
    within, checked = (inside[part] for part in split(kept, folds(kept)[0]))
    found: dict[str, dict[float, float]] = {task: {} for task in TASKS}
    for penalty in PENALTIES:
        logits = _linear(table, dict.fromkeys(TASKS, penalty), within, checked)
        for one in table.judge("linear", logits, checked, fold=0):
            found[one.task][penalty] = one.measure()
    penalties = {task: max(PENALTIES, key=lambda one: found[task].get(one, 0.0)) for task in TASKS}
    best = {task: round(found[task].get(penalties[task], 0.0), 3) for task in TASKS}
    say(f"linear: penalties {penalties}, {np.mean(list(best.values())):.4f} inside; {best}")
    inner = {}
    for variant in VARIANTS:
        network = _fitted(table, "home", variant, within, plan, seed=0)
        judged = list(table.judge("home", predict(network, table.inputs[checked]), checked, fold=0))
        inner[variant] = float(np.mean([one.measure() for one in judged]))
        say(f"{variant.name}: {inner[variant]:.4f} inside; { {one.task: round(one.measure(), 3) for one in judged} }")
    return Chosen(max(VARIANTS, key=inner.__getitem__), penalties)


def compare(
    table: Table, chosen: Chosen, *, seeds: Sequence[int], plan: Plan, say: Callable[[str], None]
) -> list[Judged]:
    """Every model on every fold."""
    found: list[Judged] = []
    for fold, held_out in enumerate(folds(table.rows)):
        inside, outside = split(table.rows, held_out)
        mine = list(table.judge("linear", _linear(table, chosen.penalties, inside, outside), outside, fold=fold))
        for kind in ("home", "plain"):
            for seed in seeds if kind == "home" else seeds[:1]:
                network = _fitted(table, kind, chosen.variant, inside, plan, seed)
                logits = predict(network, table.inputs[outside])
                mine += table.judge(kind, logits, outside, fold=fold, seed=seed)
        for one in mine:
            say(f"fold {fold} {one.model:<7} seed {one.seed} {one.task:<11} {one.measure():.4f} of {len(one.truth)}")
        found += mine
    return found


def difference(
    judged: Sequence[Judged], better: str, other: str, *, task: str, draws: int = DRAWS
) -> "NDArray[np.float64]":
    """Mean over folds and seeds of `better` less `other`: first as found, then for rows drawn again, [1 + draws].

    Both see the same rows in each draw; `interval` says what to make of it. Means over tasks are means of these.
    """
    draw = np.random.default_rng(TASKS.index(task))
    beside = {one.fold: one for one in judged if (one.model, one.task, one.seed) == (other, task, 0)}
    pairs = [(one, beside[one.fold]) for one in judged if (one.model, one.task) == (better, task)]
    found = [np.mean([one.measure() - base.measure() for one, base in pairs])]
    for _ in range(draws):
        rows = {fold: redrawn(one.sources, draw) for fold, one in beside.items()}
        again = {fold: one.measure(rows[fold]) for fold, one in beside.items()}
        found.append(np.nanmean([one.measure(rows[one.fold]) - again[one.fold] for one, _ in pairs]))
    return np.array(found)


def interval(found: "NDArray[np.float64]") -> tuple[float, float, float]:
    """What was found, and the ends of its 95 % interval."""
    low, high = np.quantile(found[1:], (0.025, 0.975))
    return float(found[0]), float(low), float(high)


def redrawn(sources: "NDArray[np.int64]", draw: np.random.Generator) -> "NDArray[np.int64]":
    """As many rows of each source as it has, with repetition."""
    order = np.argsort(sources, kind="stable")
    sizes = np.bincount(sources)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    drawn: NDArray[np.int64] = order[starts + (draw.random(len(order)) * np.repeat(sizes, sizes)).astype(np.int64)]
    return drawn


def _linear(
    table: Table, penalties: Mapping[str, float], learned: "NDArray[np.int64]", asked: "NDArray[np.int64]"
) -> list["NDArray[np.float32]"]:
    """Logits of one head a task."""
    found = []
    for task in TASKS:
        numbers = np.array([number for number in learned if table.rows[number].task == task])
        some = [table.rows[number] for number in numbers]
        labels = np.array([table.labels[task].index(row.label) for row in some])
        head = fit_head(
            table.inputs[numbers],
            labels,
            classes=len(table.labels[task]),
            penalty=penalties[task],
            weights=odds(some, source_power=0.5).astype(np.float32),
        )
        found.append(scores(head, table.inputs[asked]))
    return found


def _fitted(  # noqa: PLR0913, PLR0917  what, how, on which rows, and with which luck
    table: Table, kind: str, variant: Variant, numbers: "NDArray[np.int64]", plan: Plan, seed: int
) -> nn.Module:
    plan = replace(plan, decay=variant.decay, seed=seed)
    return learn(kind, table.shape(variant), table.learnable(numbers, variant), plan)
