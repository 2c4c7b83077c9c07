"""Six made-up tasks on which the anomalies show: two with all labels, four with a label on two rows in a hundred.

The inputs are what raw logs look like: positive, skewed, of very different size. That is what locks a softmax gate: a
small change of its weights moves all rows alike. Each group of three tasks hangs on a common score, part of which is a
product that no linear model sees, and each sparse task adds a factor of its own.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from conclave.router.train.multigate.gauges import Gauges, gradient_ratio
from conclave.router.train.multigate.heads import fit_head, scores
from conclave.router.train.multigate.learn import UNKNOWN, Plan, Rows, gauge, learn, own_gradients, predict
from conclave.router.train.multigate.network import Shape
from conclave.router.train.multigate.roc import auc

FIELDS: Final = 32
TASKS: Final = ("dense a", "sparse a1", "sparse a2", "dense b", "sparse b1", "sparse b2")
GROUPS: Final = ((0, 1, 2), (3, 4, 5))
SPARSE: Final = (1, 2, 4, 5)
LABELLED: Final = 0.02  # of the rows, in each sparse task
SKEW: Final = 0.5  # of the fields' logarithms
SIZES: Final = 1.5  # spread of the logarithm of the fields' sizes
STRENGTH: Final = 4.0  # of the signal, in log odds
OWN: Final = 0.3  # of a sparse task's own factor, beside what its group shares
SHAPE: Final = Shape(inputs=FIELDS, classes=(2,) * len(TASKS), groups=GROUPS, width=16, shared=4)
PLAN: Final = Plan(steps=400, batch=512, rate=2e-2, decay=0.1)  # for both networks alike
HEAD_PENALTY: Final = 0.1  # on standardised fields; 0.001 and 0.01 give the same area to three digits


@dataclass(frozen=True, slots=True)
class SixTasks:
    """Rows to learn from, and rows with all labels to be judged on."""

    learned: Rows
    held_out: Rows


def six_tasks(seed: int, *, rows: int = 20_000, held_out: int = 3_000) -> SixTasks:
    """The set that belongs to a seed."""
    draw = np.random.default_rng(seed)
    sizes = np.exp(draw.normal(0, SIZES, FIELDS))
    directions = draw.normal(0, FIELDS**-0.5, (2, 3 + 3, FIELDS))
    fields = draw.normal(0, 1, (rows + held_out, FIELDS))
    labels = np.empty((rows + held_out, len(TASKS)), dtype=np.int64)
    for group, tasks in enumerate(GROUPS):
        plain, left, right, *own = np.tanh(1.5 * fields @ directions[group].T).T  # each [rows]
        common = plain + 2 * left * right
        for task, mine in zip(tasks, own, strict=True):
            score = STRENGTH * (common + OWN * (0 if task == tasks[0] else mine))
            labels[:, task] = draw.random(len(score)) < 1 / (1 + np.exp(-score))
    inputs = (np.exp(SKEW * fields) * sizes).astype(np.float32)
    known = labels[:rows].copy()
    for task in SPARSE:
        known[draw.random(rows) >= LABELLED, task] = UNKNOWN
    odds = np.ones(rows)
    return SixTasks(Rows(inputs[:rows], known, odds), Rows(inputs[rows:], labels[rows:], np.ones(held_out)))


@dataclass(frozen=True, slots=True)
class Shown:
    """What a network did with the set: the area under the ROC curve of each task, the gauges, sparse over dense."""

    areas: tuple[float, ...]
    gauges: Gauges
    gradient_ratio: float  # on own experts, of the sparse tasks over the dense ones, after learning


def show(kind: str, tasks: SixTasks, *, seed: int) -> Shown:
    """Train one network, and read its gauges on rows that it has not seen."""
    network = learn(kind, SHAPE, tasks.learned, replace(PLAN, seed=seed))
    found = predict(network, tasks.held_out.inputs)
    gradients = own_gradients(network, tasks.learned)
    areas = tuple(auc(one[:, 1] - one[:, 0], tasks.held_out.labels[:, task]) for task, one in enumerate(found))
    return Shown(areas, gauge(network, tasks.held_out.inputs), gradient_ratio(gradients, SPARSE))


def linear(tasks: SixTasks) -> tuple[float, ...]:
    """The areas of one logistic regression a task, which gets its fields standardised."""
    middle, spread = tasks.learned.inputs.mean(axis=0), tasks.learned.inputs.std(axis=0)
    learned, asked = ((rows.inputs - middle) / spread for rows in (tasks.learned, tasks.held_out))
    areas = []
    for task in range(len(TASKS)):
        known = tasks.learned.labels[:, task] != UNKNOWN
        head = fit_head(learned[known], tasks.learned.labels[known, task], classes=2, penalty=HEAD_PENALTY)
        found = scores(head, asked)
        areas.append(auc(found[:, 1] - found[:, 0], tasks.held_out.labels[:, task]))
    return tuple(areas)
