"""What each check of answers costs for an answer of 4 KB: CPU time of its own `inspect`, and of all through the guard.

    python -m benchmarks.safety.answers [--rounds N] [--json]

Answers of 4,096 characters: prose, prose with code, code, a README with links, commands, a table. Each check is
measured by itself, on the excerpts that the guard shows it, and all together through the guard, which cuts the text and
looks for their signs; rounds alternate. Medians of CPU time; findings are counted so that a silent check is seen. `p99
chunk` is of the words of the answer as they are streamed, with every check set to redact: the 99th percentile of all.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable, Sequence

from conclave.safety.api import Action, Finding
from conclave.safety.output.api import Excerpt, OutputCheck, OutputRule, Unit
from conclave.safety.output.checks import NAMES, make
from conclave.safety.output.judging import Judging
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import Channel, judged

CHARS = 4_096
PROSE = (
    "To read a file line by line, open it in a with statement and iterate over it: the file is closed for you, and "
    "only one line is in memory at a time. That is all there is to it, unless the file is compressed.\n\n"
)
CODE = (
    "```python\nimport gzip\nfrom pathlib import Path\n\n\ndef read(path: Path, *, limit: int = 10) -> list[str]:\n"
    '    """The first lines."""\n    with gzip.open(path, "rt") as lines:\n        return [line for _, line in '
    "zip(range(limit), lines)]\n\n\nclass Reader:\n    def __init__(self, path):\n        self.path = path\n```\n"
)
README = (
    "## Installing\n\nSee [the documentation](https://docs.python.org/3/library/json.html) and "
    "![build](https://img.shields.io/badge/build-passing-green.svg).\n\n- `pip install httpx` installs it\n"
    "- the source is at <https://github.com/encode/httpx>\n\n"
)
COMMANDS = (
    "```sh\nsudo apt-get update && sudo apt-get install -y curl\ncurl -fsSLO https://dl.k8s.io/release/v1.30.0/kubectl\n"
    "chmod +x kubectl\ndocker run --rm -it -v $PWD:/app -w /app python:3.12 bash\nrm -rf build dist\n"
    "git push origin main\n```\n"
)
TABLE = "| name | meaning |\n| --- | --- |\n| `ls` | lists a folder |\n| `cat` | shows a file |\n\n"
ANSWERS = {
    "prose": PROSE,
    "mixed": PROSE + CODE,
    "code": CODE,
    "links": README,
    "commands": COMMANDS,
    "table": TABLE,
}


class Watched:
    """A check that keeps what it is shown, so that it can be asked again without the guard."""

    def __init__(self, check: OutputCheck) -> None:
        self.check = check
        self.name = check.name
        self.unit: Unit = check.unit
        self.triggers: Sequence[str] = check.triggers
        self.shown: list[Excerpt] = []

    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        self.shown.append(excerpt)
        return self.check.inspect(excerpt)


def cpu_ms(function: Callable[[], object]) -> float:
    began_s = time.process_time()
    function()
    return 1e3 * (time.process_time() - began_s)


def streamed_ms(plan: Plan, text: str) -> list[float]:
    """What each word of the answer costs as it comes."""
    channel = Channel(plan, Judging(plan.rules))
    return [cpu_ms(lambda piece=piece: channel.feed(piece)) for piece in re.findall(r"\s*\S+\s?", text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    checks = [make(name) for name in NAMES]
    plan = Plan.of([OutputRule(check, timeout_s=60.0) for check in checks])
    redacting = Plan.of([OutputRule(check, Action.REDACT, timeout_s=60.0) for check in checks])
    empty = Plan.of(())
    rows: dict[str, dict[str, float]] = {}
    for name, piece in ANSWERS.items():
        text = (piece * (CHARS // len(piece) + 1))[:CHARS]
        watched = [Watched(check) for check in checks]
        findings = len(judged(Plan.of([OutputRule(one, timeout_s=60.0) for one in watched]), text)[0].verdict.findings)
        timed: dict[str, Callable[[], object]] = {
            one.name: (lambda one=one: [one.check.inspect(excerpt) for excerpt in one.shown]) for one in watched
        }
        timed["all, guarded"] = lambda text=text: judged(plan, text)
        timed["guard alone"] = lambda text=text: judged(empty, text)
        spent: dict[str, list[float]] = {which: [] for which in timed}
        chunks: list[float] = []
        for _ in range(asked.rounds):
            chunks += streamed_ms(redacting, text)
            for which, function in timed.items():
                spent[which].append(cpu_ms(function))
        rows[name] = {
            "findings": findings,
            **{which: round(statistics.median(all_), 3) for which, all_ in spent.items()},
            "p99 chunk": round(statistics.quantiles(chunks, n=100)[98], 3),
        }
    if asked.json:
        print(json.dumps({"chars": CHARS, "rounds": asked.rounds, "rows": rows}))
        return
    names = list(next(iter(rows.values())))
    print(f"{CHARS} characters, CPU ms, medians of {asked.rounds}")
    print(f"{'answer':10}" + "".join(f"{which:>14}" for which in names))
    for name, row in rows.items():
        print(f"{name:10}" + "".join(f"{row[which]:>14}" for which in names))


if __name__ == "__main__":
    main()
