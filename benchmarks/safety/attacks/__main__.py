"""How many of the suite's attacks get through, what is wrongly refused, and what each layer adds.

    python -m benchmarks.safety.attacks                  # the tables of docs/threat-model.md; minutes of one core
    python -m benchmarks.safety.attacks --brief          # without the ablation
    python -m benchmarks.safety.attacks --data DIR       # and honest texts of category_dev.jsonl.gz

Attack success is the share of a class's cases after which the client is given the words. `none` is the gateway with its
defences off, `default` its policy when nothing is configured, `strict` config/recipes/strict-safety.yaml.
"""

import gzip
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from benchmarks.safety.attacks.cases import Case, body_of, honest, load
from benchmarks.safety.attacks.house import NONE, Ended, House, Undecoding, checks, layers, strict
from conclave.gateway.policy.screening import MakeCheck

KINDS: Final = ("structural", "semantic", "not-text")
DRAWN: Final = 1_000  # honest texts of the data


def run(policy: Mapping[str, Any], make: MakeCheck, cases: Sequence[Case]) -> list[Ended]:
    """How the cases end under a policy."""
    house = House(policy, make)
    try:
        return house.ends(case.body for case in cases)
    finally:
        house.close()


def share(hits: Iterable[bool]) -> str:
    """`3 of 6`."""
    found = list(hits)
    return f"{sum(found)} of {len(found)}"


def by_class(cases: Sequence[Case], ends: Mapping[str, Sequence[Ended]]) -> str:
    """A row for each class, and one for each kind."""
    rows = [f"| class | kind | {' | '.join(ends)} |", f"|---|---|{'---|' * len(ends)}"]
    for kind in KINDS:
        for name in dict.fromkeys(case.about for case in cases if case.kind == kind):
            at = [number for number, case in enumerate(cases) if case.about == name]
            found = (share(ended[number].obeyed for number in at) for ended in ends.values())
            rows.append(f"| {name} | {kind} | {' | '.join(found)} |")
        at = [number for number, case in enumerate(cases) if case.kind == kind]
        cells = []
        for ended in ends.values():
            hits = sum(ended[number].obeyed for number in at)
            cells.append(f"**{hits} of {len(at)} ({100 * hits / len(at):.1f} %)**")
        rows.append(f"| **all of them** | {kind} | {' | '.join(cells)} |")
    return "\n".join(rows)


def by_kind(cases: Sequence[Case], ends: Mapping[str, Sequence[Ended]]) -> str:
    """Honest requests that were refused, and by what."""
    rows = [
        f"| honest requests | {' | '.join(f'refused by {name}' for name in ends)} | by |",
        f"|---|{'---|' * len(ends)}---|",
    ]
    for kind in (*dict.fromkeys(case.about for case in cases), "all"):
        at = [number for number, case in enumerate(cases) if kind in {case.about, "all"}]
        refused = [[ended[number] for number in at if ended[number].refused] for ended in ends.values()]
        why = sorted({finding for ended in refused for one in ended for finding in one.findings})
        cells = (f"{len(one)} of {len(at)} ({100 * len(one) / len(at):.1f} %)" for one in refused)
        rows.append(f"| {kind} | {' | '.join(cells)} | {', '.join(why)} |")
    return "\n".join(rows)


def latency(ends: Sequence[Ended]) -> str:
    """Milliseconds of each stage and check."""
    spent: dict[str, list[float]] = defaultdict(list)
    for ended in ends:
        for name, ms in ended.stages_ms.items():
            spent[f"stage {name}"].append(ms)
        for name, ms in ended.checks_ms.items():
            spent[f"check {name}"].append(ms)
        spent["all stages before the expert"].append(sum(ended.stages_ms.values()))
    rows = ["| layer | p50 ms | p95 ms |", "|---|---|---|"]
    for name, taken in spent.items():
        p95 = statistics.quantiles(taken, n=20)[-1] if len(taken) > 1 else taken[0]
        rows.append(f"| {name} | {statistics.median(taken):.3f} | {p95:.3f} |")
    return "\n".join(rows)


def ablation(cases: Sequence[Case], make: MakeCheck) -> Iterator[str]:
    """What gets through without one layer, a row at a time."""
    yield "| strict without | structural | semantic | not-text |\n|---|---|---|---|"
    for name, less in layers().items():
        yield _ablated(name, cases, run(less(strict()), make, cases))
    yield _ablated("views (decoding)", cases, run(strict(), Undecoding(make), cases))


def _ablated(name: str, cases: Sequence[Case], ended: Sequence[Ended]) -> str:
    cells = (share(one.obeyed for case, one in zip(cases, ended, strict=True) if case.kind == kind) for kind in KINDS)
    return f"| {name} | {' | '.join(cells)} |"


def drawn(data: Path) -> tuple[Case, ...]:
    """Honest questions of strangers."""
    with gzip.open(data / "category_dev.jsonl.gz", "rb") as lines:
        rows = [msgspec.json.decode(line) for line in lines]
    picked = random.Random(1).sample(rows, min(DRAWN, len(rows)))  # noqa: S311  drawn texts, no secret
    return tuple(Case("category_dev", "structural", body_of([{"user": row["text"]}], "You help.")) for row in picked)


@click.command(help=(__doc__ or "").split("\n", maxsplit=1)[0])
@click.option("--brief", is_flag=True, help="Leave the ablation out.")
@click.option("--data", envvar="CONCLAVE_DATA", type=click.Path(exists=True, path_type=Path))
def main(*, brief: bool, data: Path | None) -> None:
    """Print the tables."""
    suite, make = load(), checks()
    policies: dict[str, Mapping[str, Any]] = {"none": NONE, "default": {}, "strict": strict()}
    cases = suite.cases
    click.echo(by_class(cases, {name: run(policy, make, cases) for name, policy in policies.items()}))
    plain = run(strict(), make, suite.plain)
    click.echo(
        f"\nThe {len(plain)} orders as they are, under strict: {share(one.obeyed for one in plain)} get through.\n"
    )
    good = (*honest(), *(drawn(data) if data else ()))
    ends = {name: run(policies[name], make, good) for name in ("default", "strict")}
    click.echo(by_kind(good, ends))
    click.echo(f"\n{latency(ends['strict'])}")
    if not brief:
        click.echo()
        for row in ablation(cases, make):
            click.echo(row)


if __name__ == "__main__":
    main()
