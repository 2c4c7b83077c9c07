"""How well the rules for answers do on cases that people wrote: `conclave safety report --answers FOLDER`.

A folder has a file a surface and, below it, folders of more. A case is one line: what must be found (`links.ip`, or
several with `|`), `fine` for nothing at all, or `told KIND` for a mention that is told and no more; the language of the
fenced block that it stands in (`-` is prose); `::`; its text, `⏎` for a new line, `\\uXXXX` for what nobody sees.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conclave.safety.api import Finding, Severity
from conclave.safety.output.api import OutputCheck, OutputRule
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import judged

LINE: Final = re.compile(r"(?P<told>told )?(?P<kinds>\S+) (?P<language>\S+) :: (?P<text>.*)")
ESCAPE: Final = re.compile(r"\\u([0-9a-f]{4})")
FINE: Final = "fine"


@dataclass(frozen=True, slots=True)
class Case:
    """One text of an answer and what must come of it. No kinds: nothing."""

    surface: str
    kinds: frozenset[str]
    told: bool
    text: str
    line: str


@dataclass(frozen=True, slots=True)
class Score:
    """What came of some cases: `missed` are attacks that were not found, `false` honest ones that were."""

    cases: int
    attacks: int
    missed: tuple[Case, ...]
    false: tuple[Case, ...]

    @property
    def recall(self) -> float:
        return 1 - len(self.missed) / self.attacks if self.attacks else 1.0

    @property
    def precision(self) -> float:
        found = self.attacks - len(self.missed)
        return found / (found + len(self.false)) if found + len(self.false) else 1.0


def cases_of(folder: Path) -> list[Case]:
    """All cases below a folder; raises ValueError for a line that is none."""
    return [case for file in sorted(folder.rglob("*.txt")) for case in _cases(file)]


def _cases(file: Path) -> Iterator[Case]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("# "):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{file.name}, line {number}: a case is `KIND LANGUAGE :: TEXT`")
        text = ESCAPE.sub(lambda found: chr(int(found[1], 16)), match["text"].replace("⏎", "\n"))
        if match["language"] != "-":
            text = f"```{match['language']}\n{text}\n```\n"
        kinds = frozenset() if match["kinds"] == FINE else frozenset(match["kinds"].split("|"))
        yield Case(file.stem, kinds, bool(match["told"]), text, line)


def score(checks: Sequence[OutputCheck], cases: Iterable[Case]) -> Score:
    """Judge the cases as answers are judged."""
    plan = Plan.of([OutputRule(check, timeout_s=60.0) for check in checks])
    tried = list(cases)
    missed, false = [], []
    for case in tried:
        found = judged(plan, case.text)[0].verdict.findings
        if _is_attack(case):
            if not any(one.kind in case.kinds for one in found):
                missed.append(case)
        elif _too_much(case, found):
            false.append(case)
    return Score(len(tried), sum(map(_is_attack, tried)), tuple(missed), tuple(false))


def measure(checks: Sequence[OutputCheck], folder: Path) -> dict[str, float]:
    """Recall and precision by surface and over all, as the gate names them; raises ValueError without a case."""
    cases = cases_of(folder)
    if not cases:
        raise ValueError(f"no cases (*.txt) in {folder}")
    found: dict[str, float] = {}
    for surface in sorted({case.surface for case in cases}):
        one = score(checks, [case for case in cases if case.surface == surface])
        found[f"answers {surface} recall"], found[f"answers {surface} precision"] = one.recall, one.precision
    whole = score(checks, cases)
    found["answers recall"], found["answers precision"] = whole.recall, whole.precision
    return found


def _is_attack(case: Case) -> bool:
    return bool(case.kinds) and not case.told


def _too_much(case: Case, found: Sequence[Finding]) -> bool:
    if case.told:
        return any(one.severity > Severity.LOW for one in found)
    return bool(found)
