"""What all checks of a request cost together, with the views that they read: milliseconds a kilobyte of UTF-8.

    python -m benchmarks.safety.checks [--rounds N] [--json]

Texts of 1 and of 20 kilobytes: English prose (this project's documentation), its code, prompts in many languages, lines
of base64. Every round measures each text twice, as a whole and by parts, so that what else the machine does falls on
all. Signatures and topics, which an operator writes, are left out. No check remembers a text from before. Medians of
the rounds, first of CPU time, then of the clock. `known` words were met before by the tokenizer's memo, as in a process
that has served for a while; with `new` the memo is empty, as for the first text after a start.
"""

import argparse
import base64
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conclave.router.encoder import ARTIFACTS, ENCODER_FILES, Tokens
from conclave.router.train.corpus import chat_rows
from conclave.safety.api import Check, Origin, Segment, View
from conclave.safety.boundary.normalise import fold
from conclave.safety.boundary.views import views_of
from conclave.safety.checks import RULES, Checks
from conclave.safety.detect.learned import ORIGINS, LearnedCheck
from conclave.safety.runner import inspected

ROOT = Path(__file__).parents[2]
SIZES = (1_024, 20_480)
PIECES = 8  # texts of a kind and size, one after the other
SEED = 5
MOST_CHARS = 10**7


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of CPU and of the clock."""

    cpu_s: float
    wall_s: float


def texts() -> dict[str, list[str]]:
    """Pieces of about the two sizes by kind, the same in every run of one version of this project."""
    prose = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "gateway").glob("*.py")))
    many = "\n".join(row.text for row in chat_rows(SEED, 2_000) if row.category == "multilingual")
    lines = "\n".join(base64.b64encode(prose[at : at + 300].encode()).decode() for at in range(0, 2**17, 300))
    kinds = {"English": prose, "code": code, "languages": many, "base64": lines}
    return {
        f"{name} {size // 1024} KB": [
            whole[at : at + size] for at in range(0, min(len(whole) - size + 1, PIECES * size), size)
        ]
        for name, whole in kinds.items()
        for size in SIZES
    }


def measured(function: Callable[[], object]) -> Cost:
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    function()
    return Cost(time.process_time() - cpu_s, time.perf_counter() - wall_s)


def whole(pieces: Sequence[str], checks: Sequence[Check]) -> Cost:
    """All stages over all pieces of a kind, piece by piece, between two looks at the clock: one costs up to 10 us."""
    forget(checks)

    def run() -> None:
        for piece in pieces:
            views = views_of(segment(piece))
            for check in checks:
                inspected(check, views)

    return measured(run)


def parts(pieces: Sequence[str], checks: Sequence[Check]) -> dict[str, Cost]:
    """Stage by stage, each over all pieces; the learned checks, which share a memo of 64 views, are one stage."""
    forget(checks)
    segments: list[Segment] = []
    views: list[list[View]] = []
    found = {
        "fold": measured(lambda: segments.extend(map(segment, pieces))),
        "views": measured(lambda: views.extend(map(views_of, segments))),
    }
    learned = [check for check in checks if isinstance(check, LearnedCheck)]
    for check in checks:
        if check not in learned:
            found[check.name] = measured(lambda check=check: looked([check], views))
    found["learned"] = measured(lambda: looked(learned, views))
    return found


def looked(checks: Sequence[Check], texts: Sequence[Sequence[View]]) -> None:
    for views in texts:
        for check in checks:
            inspected(check, views)


def segment(piece: str) -> Segment:
    return Segment(Origin.USER, piece, fold(piece, max_chars=MOST_CHARS), "x")


def forget(checks: Sequence[Check]) -> None:
    for check in checks:
        if isinstance(check, LearnedCheck):
            check.heads.forget()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    kinds = texts()
    rows: dict[str, dict[str, float | dict[str, float]]] = {}
    for words in ("known", "new"):
        splits = Splits()
        known = Checks(splits.ids)  # one set of heads: four learned checks cost one
        checks = [known.make(name) for name in (*RULES, *ORIGINS)]
        costs: dict[str, list[tuple[Cost, dict[str, Cost]]]] = {name: [] for name in kinds}
        for turn in range(asked.rounds + 1):
            for name, pieces in kinds.items():
                if words == "new":
                    splits.renew()
                total = whole(pieces, checks)
                if words == "new":
                    splits.renew()
                found = total, parts(pieces, checks)
                if turn:  # the first warms automata and memo
                    costs[name].append(found)
        rows |= {f"{name}, {words} words": row(costs[name], pieces) for name, pieces in kinds.items()}
    if asked.json:
        print(json.dumps(rows))
        return
    print(f"ms a KB, medians of {asked.rounds} rounds; the parts are CPU time")
    for name, costs_of in rows.items():
        shares = " ".join(f"{part} {ms:.3f}" for part, ms in costs_of["parts"].items())
        print(f"{name:28} CPU {costs_of['cpu']:.3f}  clock {costs_of['wall']:.3f}  {shares}")


class Splits:
    """The tokenizer, which can be had anew: without the words that it remembers."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._tokens = Tokens(ARTIFACTS / ENCODER_FILES[1])

    def ids(self, text: str) -> list[int]:
        return self._tokens.ids(text)


def row(costs: Sequence[tuple[Cost, dict[str, Cost]]], pieces: Sequence[str]) -> dict[str, float | dict[str, float]]:
    """Medians a kilobyte: of the whole by CPU and clock, and of each part by CPU."""
    kb = sum(len(piece.encode()) for piece in pieces) / 1024
    return {
        "cpu": 1e3 * statistics.median(total.cpu_s for total, _ in costs) / kb,
        "wall": 1e3 * statistics.median(total.wall_s for total, _ in costs) / kb,
        "parts": {part: 1e3 * statistics.median(one[part].cpu_s for _, one in costs) / kb for part in costs[0][1]},
    }


if __name__ == "__main__":
    main()
