"""What is found when a conversation's turns are read together, and what that costs honest people and the clock.

    python -m benchmarks.safety.turns --data DIR        # of category_train.jsonl.gz; half a minute of one core

Honest conversations are drawn: three to eight short questions of real people (CLINC150, Banking77, Natural Questions)
in a row, which is harder than a conversation about one thing. Counted is what only the joined turns show. The written
cases are those of `tests/safety/detect/conversations.yaml` and `test_turns.py`.
"""

import gzip
import random
import statistics
import time
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import yaml

from conclave.router.encoder import StaticEncoder
from conclave.safety.api import Action, Origin, Segment
from conclave.safety.boundary.normalise import fold
from conclave.safety.boundary.views import views_of
from conclave.safety.detect.crescendo import Crescendo
from conclave.safety.detect.learned import Heads, LearnedCheck
from conclave.safety.detect.turns import TurnRunner, views_of_joined
from conclave.safety.runner import Memo, Rule, Runner

SOURCES: Final = frozenset({"clinc150", "banking77", "nq_open"})
CASES: Final = Path(__file__).parents[2] / "tests/safety/detect/conversations.yaml"
MOST_CHARS: Final = 200


def said(turns: list[str]) -> tuple[Segment, ...]:
    return tuple(
        Segment(Origin.USER, text, fold(text, max_chars=10**6), f"messages[{2 * at}].content")
        for at, text in enumerate(turns)
    )


def drawn(data: Path, count: int, seed: int) -> list[list[str]]:
    """Honest questions in a row."""
    with gzip.open(data / "category_train.jsonl.gz", "rb") as lines:
        rows = [msgspec.json.decode(line) for line in lines]
    short = [row["text"] for row in rows if row["source"] in SOURCES and len(row["text"]) < MOST_CHARS]
    draw = random.Random(seed)  # noqa: S311  drawn texts, no secret
    return [draw.sample(short, draw.randint(3, 8)) for _ in range(count)]


@click.command(help=__doc__.split("\n", maxsplit=1)[0])
@click.option("--data", envvar="CONCLAVE_DATA", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--draws", default=2_000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(data: Path, draws: int, seed: int) -> None:
    """Print what is found."""
    cases: dict[str, Any] = yaml.safe_load(CASES.read_text())
    encoder = StaticEncoder.load()
    heads = Heads.load(encoder.tokens.ids)
    rules = tuple(
        Rule(LearnedCheck(name, heads, heads.threshold(name)), Action.BLOCK) for name in ("override", "persona", "harm")
    )
    memo = Memo(b"k", size=1)  # nothing is remembered: each call is a first one
    runner = TurnRunner(
        Runner(rules, version="v", views_of=views_of, memo=memo),
        Runner(rules, version="t", views_of=views_of_joined, memo=memo),
    )
    crescendo = Crescendo(encoder.encode, cases["topics"])
    split = climbs = 0
    alone_ms, both_ms, course_ms = [], [], []
    for turns in drawn(data, draws, seed):
        segments = said(turns)
        heads.forget()
        started_s = time.process_time()
        runner.whole.screen(segments, tenant="t")
        heads.forget()
        middle_s = time.process_time()
        verdict = runner.screen(segments, tenant="t")
        done_s = time.process_time()
        climbs += bool(crescendo.inspect(segments))
        course_ms.append(1e3 * (time.process_time() - done_s))
        alone_ms.append(1e3 * (middle_s - started_s))
        both_ms.append(1e3 * (done_s - middle_s))
        split += any(one.kind.startswith("split.") for one in verdict.findings)
    click.echo(f"honest, drawn: {split} of {draws} found only in joined turns; {climbs} of {draws} climb")
    honest = [said(turns.split(" | ")) for turns in cases["honest"]]
    found = sum(
        any(one.kind.startswith("split.") for one in runner.screen(one_, tenant="t").findings) for one_ in honest
    )
    click.echo(
        f"honest, written: {found} of {len(honest)} joined; {sum(map(bool, map(crescendo.inspect, honest)))} climb"
    )
    rising = [said(turns.split(" | ")) for turns in cases["rising"]]
    click.echo(f"climbing, written: {sum(map(bool, map(crescendo.inspect, rising)))} of {len(rising)} found")
    medians = [statistics.median(times) for times in (alone_ms, both_ms, course_ms)]
    click.echo(
        "CPU, median ms a request: {:.2f} each turn, {:.2f} with joined turns, {:.2f} the climb".format(*medians)
    )


if __name__ == "__main__":
    main()
