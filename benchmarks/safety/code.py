"""How good the check of insecure code is: on labelled rows, on honest code, and how long it takes.

    python -m benchmarks.safety.code --data DIR            # DIR holds insecure_code.jsonl.gz
    python -m benchmarks.safety.code --honest 2000         # functions of the standard library and of what is installed

A row is found where a finding touches a line that is marked, of the same family of weaknesses. A finding is right where
it does. By default findings from medium on are held against the marks `insecure`; `--all` holds all of them against all
marks. Rows beyond the labelled ones have only the data's own single line, so for them only what is found is told.
"""

import argparse
import ast
import gzip
import json
import random
import statistics
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from conclave.safety.api import Finding, Severity
from conclave.safety.output.api import Excerpt
from conclave.safety.output.code.check import CodeCheck

LABELS: Final = Path(__file__).parents[2] / "tests/safety/output/code/labels.yaml"
FILE: Final = "insecure_code.jsonl.gz"
FAMILIES: Final = (  # weaknesses that are the same mistake by another name
    {119, 120, 121, 122, 242, 676, 787, 131},
    {190, 680, 131},
    {770, 121, 789, 590},
    {330, 335, 337, 338, 331},
    {327, 328, 916, 759, 326, 1240, 323, 347, 321, 329, 697, 760},
    {94, 95, 96},
    {77, 78, 88, 95},
    {798, 259, 312, 321, 522, 306},
    {346, 345},
    {377, 379, 807},
    {770, 908},
    {79, 80},
)
ROUNDS: Final = 41
LEAST: Final = 200  # characters of a function that is looked at


@dataclass(frozen=True, slots=True)
class Mark:
    """Lines of a row that a person marked."""

    insecure: bool
    cwe: int
    lines: frozenset[int]


@dataclass(slots=True)
class Tally:
    """Rows to be found and found, findings right and wrong."""

    rows: int = 0
    found: int = 0
    right: int = 0
    wrong: int = 0

    def __str__(self) -> str:
        recall = f"{self.found}/{self.rows} {self.found / self.rows:.1%}" if self.rows else "-"
        told = self.right + self.wrong
        return f"recall {recall:>16}   precision {f'{self.right}/{told} {self.right / told:.1%}' if told else '-':>16}"


def labels() -> Mapping[str, Sequence[Mark]]:
    """The marks of each labelled row."""
    rows = yaml.safe_load(LABELS.read_text())["rows"]
    return {row["id"]: [_mark(mark) for mark in row.get("marks", ())] for row in rows}


def _mark(said: Mapping[str, Any]) -> Mark:
    cwe = said.get("insecure") or said["minor"]
    return Mark("insecure" in said, int(cwe.removeprefix("CWE-")), frozenset(said["lines"]))


def rows_of(data: Path) -> Sequence[Mapping[str, Any]]:
    """All rows of the data."""
    with gzip.open(data / FILE, "rt") as lines:
        return [json.loads(line) for line in lines]


def akin(one: int, other: int) -> bool:
    """Whether two weaknesses are of a family."""
    return one == other or any(one in family and other in family for family in FAMILIES)


def cwe_of(finding: Finding) -> int:
    """The weakness that a finding names."""
    return int(finding.evidence.removeprefix("CWE-"))


def lines_of(text: str, finding: Finding) -> set[int]:
    """The lines that a finding touches."""
    first = text.count("\n", 0, finding.start) + 1
    return set(range(first, first + text.count("\n", finding.start, finding.end) + 1))


def measured(rows: Sequence[Mapping[str, Any]], check: CodeCheck, *, minor: bool, verbose: bool) -> dict[str, Tally]:
    """Recall and precision by language, and of all."""
    marked, tallies = labels(), {"all": Tally()}
    for row in rows:
        if row["id"] not in marked:
            continue
        marks = [mark for mark in marked[row["id"]] if minor or mark.insecure]
        found = check.inspect(Excerpt(row["code"], code=True, language=row["language"]))
        right = [one for one in found if any(_fits(row["code"], one, mark) for mark in marks)]
        for tally in (tallies["all"], tallies.setdefault(row["language"], Tally())):
            tally.rows += bool(marks)
            tally.found += bool(right)
            tally.right += len(right)
            tally.wrong += len(found) - len(right)
        if verbose:
            if marks and not right:
                print(f"missed {row['id']} {row['language']} {[(mark.cwe, *sorted(mark.lines)) for mark in marks]}")
            for one in found:
                if one not in right:
                    print(f"wrong  {row['id']} {row['language']} {one.kind} lines {sorted(lines_of(row['code'], one))}")
    return tallies


def _fits(text: str, finding: Finding, mark: Mark) -> bool:
    return akin(cwe_of(finding), mark.cwe) and not mark.lines.isdisjoint(lines_of(text, finding))


def by_weakness(rows: Sequence[Mapping[str, Any]], check: CodeCheck) -> Iterator[str]:
    """How many rows of each language and weakness have a finding of that family."""
    told, had = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in rows:
        key = (row["language"], row["cwe"])
        had[key] += 1
        found = check.inspect(Excerpt(row["code"], code=True, language=row["language"]))
        told[key] += any(akin(cwe_of(one), int(row["cwe"].removeprefix("CWE-"))) for one in found)
    for (language, cwe), number in sorted(had.items()):
        yield f"{language:11}{cwe:9} {told[language, cwe]:4}/{number}"


def honest(number: int, seed: int) -> Iterator[tuple[str, str]]:
    """Functions of the standard library and of what is installed, at random: where they are, and their text."""
    libraries = [Path(sysconfig.get_paths()[kind]) for kind in ("stdlib", "purelib")]
    files = sorted(path for folder in libraries for path in folder.rglob("*.py") if not _is_test(path))
    rng = random.Random(seed)  # noqa: S311  a sample that comes again
    rng.shuffle(files)
    for path in files:
        try:
            text = path.read_text()
            tree = ast.parse(text)
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for node in rng.sample(functions, min(2, len(functions))):
            code = ast.get_source_segment(text, node)
            if code is not None and len(code) > LEAST:
                yield f"{path.name}:{node.lineno}", code
                number -= 1
                if not number:
                    return


def _is_test(path: Path) -> bool:
    return any(part in ("test", "tests", "idlelib", "lib2to3", "turtledemo") for part in path.parts)


def speed(check: CodeCheck, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Milliseconds of CPU time for 4 KB of code, by language; the first call of each is not counted."""
    for language in sorted({row["language"] for row in rows}):
        text = "\n".join(row["code"] for row in rows if row["language"] == language)[:4_096]
        excerpt = Excerpt(text, code=True, language=language)
        yield f"{language:11} {_median_ms(check, excerpt):6.2f} ms  4 KB of insecure rows"
    for name, language, text in (("python, honest", "python", "\n\n".join(code for _, code in honest(12, 3))[:4_096]),):
        yield f"{name:11} {_median_ms(check, Excerpt(text, code=True, language=language)):6.2f} ms  4 KB"


def _median_ms(check: CodeCheck, excerpt: Excerpt) -> float:
    check.inspect(excerpt)
    spent: list[float] = []
    for _ in range(ROUNDS):
        started_s = time.process_time()
        check.inspect(excerpt)
        spent.append(1e3 * (time.process_time() - started_s))
    return statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"folder of {FILE}")
    parser.add_argument("--honest", type=int, default=0, metavar="N", help="functions of honest code to look at")
    parser.add_argument("--seed", type=int, default=1, help="of the honest sample")
    parser.add_argument("--all", action="store_true", help="findings of every severity against every mark")
    parser.add_argument("--verbose", action="store_true", help="what was missed and what is wrong")
    asked = parser.parse_args()
    check = CodeCheck(least=Severity.LOW if asked.all else Severity.MEDIUM)
    if asked.data is not None:
        rows = rows_of(asked.data)
        for language, tally in measured(rows, check, minor=asked.all, verbose=asked.verbose).items():
            print(f"{language:11}{tally}")
        print("\nrows with a finding of the data's own kind")
        print("\n".join(by_weakness(rows, check)))
        print("\n".join(speed(check, rows)))
    if asked.honest:
        flagged, kinds, number = 0, Counter[str](), 0
        for where, code in honest(asked.honest, asked.seed):
            number += 1
            found = check.inspect(Excerpt(code, code=True, language="python"))
            flagged += bool(found)
            kinds.update(one.kind for one in found)
            if asked.verbose:
                for one in found:
                    print(f"{where} {one.kind}: {code[one.start : one.end][:100]!r}")
        print(f"honest functions with a finding: {flagged}/{number} {flagged / max(1, number):.2%}", dict(kinds))


if __name__ == "__main__":
    sys.exit(main())
