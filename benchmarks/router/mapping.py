"""How long does the best table take to find? Random experts and scores, by size and by which limits hold.

    python -m benchmarks.router.mapping [--instances N] [--json]

A model's size, price and scores hang together as they do among real ones (a larger one is better, dearer and slower,
with noise), which is harder than independent numbers. Times are CPU seconds of one process, after one
solve that imports the solver. Writes benchmarks/router/results/mapping.csv. Some minutes with the default of 20
instances a row.
"""

import argparse
import csv
import json
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from conclave.router.budget import Infeasible, Problem
from conclave.router.mapping import frontier, solve

RESULTS = Path(__file__).parent / "results"
SIZES_B = (1, 2, 3, 4, 7, 8, 9, 13, 14, 20, 27, 32, 34, 70, 72)
SHAPES = ((4, 14), (8, 14), (20, 14), (20, 30), (30, 20))  # experts, categories
LIMITS = {
    "none": {},
    "hosted": {"hosted_b": 90.0},
    "money": {"usd_per_call": 0.002},
    "hosted + money": {"hosted_b": 90.0, "usd_per_call": 0.002},
    "hosted + money + latency": {"hosted_b": 90.0, "usd_per_call": 0.002, "latency_ms": 1000.0},
}


@dataclass(frozen=True)
class Known:
    score: float
    error: float = 0.02


def instance(chance: random.Random, experts: int, categories: int) -> Problem:
    """One problem without limits."""
    facts, scores = {}, {f"c{number}": {} for number in range(categories)}
    for number in range(experts):
        size_b = chance.choice(SIZES_B)
        facts[f"e{number}"] = {
            "hosted_b": size_b,
            "usd_per_call": size_b * chance.uniform(2e-5, 8e-5),
            "latency_ms": 200 + size_b * chance.uniform(15, 40),
        }
        for row in scores.values():
            row[f"e{number}"] = Known(min(1.0, max(0.0, 0.3 + 0.05 * size_b**0.5 + chance.gauss(0, 0.1))))
    return Problem(facts, scores)


def measured(experts: int, categories: int, limits: dict[str, float], instances: int) -> dict[str, float | int]:
    """CPU milliseconds of `instances` problems of a shape."""
    times = []
    unsolved = proven = 0
    for seed in range(instances):
        problem = instance(random.Random(seed), experts, categories)  # noqa: S311  so that a run can be had again
        problem = Problem(problem.experts, problem.scores, limits=limits)
        began = time.process_time()
        try:
            gap = solve(problem).gap
        except Infeasible:
            unsolved += 1
            continue
        times.append((time.process_time() - began) * 1000)
        proven += gap == 0
    times.sort()
    return {
        "solved": len(times),
        "proven": proven,
        "infeasible": unsolved,
        "median_ms": round(statistics.median(times), 1),
        "p90_ms": round(times[int(0.9 * (len(times) - 1))], 1),
        "worst_ms": round(times[-1], 1),
        "within_1_s": sum(one < 1000 for one in times),  # noqa: PLR2004  the claim
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    solve(instance(random.Random(0), 2, 2))  # noqa: S311  as above; it imports scipy
    found = []
    for experts, categories in SHAPES:
        for name, limits in LIMITS.items():
            row = {"experts": experts, "categories": categories, "limits": name}
            row |= measured(experts, categories, limits, options.instances)
            found.append(row)
            if not options.json:
                times = f"{row['median_ms']:>9} {row['p90_ms']:>9} {row['worst_ms']:>9}"
                print(
                    f"{experts:>3} x {categories:<3} {name:<26} {times} ms, {row['proven']} of {row['solved']} proven",
                    flush=True,
                )
    with (RESULTS / "mapping.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    began = time.process_time()
    steps = frontier(instance(random.Random(0), 8, 14), "hosted_b")  # noqa: S311  as above
    took_ms = round((time.process_time() - began) * 1000, 1)
    if options.json:
        print(json.dumps({"solve": found, "frontier": {"steps": len(steps), "ms": took_ms}}))
    else:
        print(f"frontier of 8 x 14 by hosted_b: {len(steps)} steps, {took_ms} ms")


if __name__ == "__main__":
    main()
