"""Does one network answer the router's six questions better than six linear models? After HoME (arXiv 2408.05430).

    OMP_NUM_THREADS=1 python -m benchmarks.router.multigate synthetic             # about 1 CPU minute
    OMP_NUM_THREADS=1 python -m benchmarks.router.multigate real --data DIR       # about 4 CPU minutes

`synthetic`: six made-up tasks, two with all labels, four with a label on 2 % of the rows. The plain ReLU mixture must
show all three anomalies, or the set proves nothing; HoME must show none (zero rate below .2, occupancy below .9, own
mass of the sparse tasks above .1) and have no smaller mean area than one logistic regression a task. `real`: the tasks
of router/train/multigate/tasks.py on whole sources that nobody has seen, HoME and the plain mixture less the linear
heads, with paired 95 % intervals. Needs the extras `train` and `moe`.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import torch

from conclave.router.encoder import StaticEncoder
from conclave.router.train.multigate.compare import Judged, Table, choose, compare, difference, interval
from conclave.router.train.multigate.inputs import inputs
from conclave.router.train.multigate.learn import Plan
from conclave.router.train.multigate.synthetic import SPARSE, TASKS, linear, show, six_tasks
from conclave.router.train.multigate.tasks import TASKS as QUESTIONS
from conclave.router.train.multigate.tasks import labelled_rows

RESULTS = Path(__file__).parent / "results"
SEED = 20261122  # of the rows that are drawn from each file
PLAN = Plan(steps=300, batch=320)


@click.group(help=__doc__)
def main() -> None:
    torch.set_num_threads(1)


@main.command()
@click.option("--seeds", default=3, show_default=True)
def synthetic(seeds: int) -> None:
    """The made-up tasks: do the anomalies show, and does HoME cure them?"""
    rows = []
    for seed in range(seeds):
        tasks = six_tasks(seed)
        rows.append({"model": "linear", "seed": seed, "area": f"{np.mean(linear(tasks)):.3f}"})
        for kind in ("plain", "home"):
            shown = show(kind, tasks, seed=seed)
            gauges = shown.gauges
            rows.append(
                {
                    "model": kind,
                    "seed": seed,
                    "area": f"{np.mean(shown.areas):.3f}",
                    "zero rate": f"{max(gauges.zero_rate):.2f}",
                    "std max/min": f"{gauges.spread_ratio:.1f}",
                    "top gate": f"{gauges.top_share:.2f}",
                    "occupancy": f"{max(gauges.occupancy):.2f}",
                    "entropy": f"{min(gauges.entropy):.2f}",
                    "own mass, sparse": f"{min(gauges.own_mass[task] for task in SPARSE):.3f}",
                    "gradient, sparse/dense": f"{shown.gradient_ratio:.2f}",
                    "alarms": " ".join(gauges.alarms(SPARSE)) or "none",
                }
            )
        print(f"seed {seed}: areas of {', '.join(TASKS)}")
    report("synthetic", rows)


@main.command()
@click.option("--data", required=True, envvar="CONCLAVE_DATA", type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", default=2, show_default=True, help="Trainings of HoME on each fold.")
def real(data: Path, seeds: int) -> None:
    """The router's six questions on sources held out whole."""
    encoder = StaticEncoder.load()
    labelled = labelled_rows(data, encoder, seed=SEED)
    table = Table.of(labelled, inputs(encoder, [row.text for row in labelled]))
    chosen = choose(table, PLAN, say=print)
    judged = compare(table, chosen, seeds=range(seeds), plan=PLAN, say=print)
    rows = []
    apart = {
        kind: {task: difference(judged, kind, "linear", task=task) for task in QUESTIONS} for kind in ("home", "plain")
    }
    for task in QUESTIONS:
        rows.append(
            {"task": task, "held-out rows": held_out(judged, task)}
            | {model: f"{mean(judged, model, task):.3f}" for model in ("linear", "home", "plain")}
            | {f"{kind} - linear": written(apart[kind][task]) for kind in apart}
        )
    together = {kind: np.mean([apart[kind][task] for task in QUESTIONS], axis=0) for kind in apart}
    rows.append(
        {"task": "mean", "held-out rows": sum(held_out(judged, task) for task in QUESTIONS)}
        | {
            model: f"{np.mean([mean(judged, model, task) for task in QUESTIONS]):.3f}"
            for model in ("linear", "home", "plain")
        }
        | {f"{kind} - linear": written(together[kind]) for kind in together}
    )
    print(f"HoME's variant: {chosen.variant.name}")
    report("real", rows)


def mean(judged: Sequence[Judged], model: str, task: str) -> float:
    """Over folds and seeds."""
    return float(np.mean([one.measure() for one in judged if (one.model, one.task) == (model, task)]))


def held_out(judged: Sequence[Judged], task: str) -> int:
    """Rows of all folds."""
    return sum(len(one.truth) for one in judged if (one.model, one.task, one.seed) == ("linear", task, 0))


def written(found: np.ndarray) -> str:
    """A difference and its interval."""
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(*interval(found))


def report(name: str, rows: Iterable[Mapping[str, object]]) -> None:
    """A Markdown table on stdout, and the same as CSV."""
    rows = list(rows)
    names = max((list(row) for row in rows), key=len)
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(str(row.get(one, "")) for one in names) + " |")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"multigate_{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
