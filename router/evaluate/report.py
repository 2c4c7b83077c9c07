"""How good a router is on rows it was not trained on: accuracy, calibration, coverage, confusions, damage, speed."""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from conclave.router.api import Classification
from conclave.router.classify import Router
from conclave.router.train.rows import DEV_FILE, Row, read_rows
from conclave.router.train.vary import typos

BINS: Final = 15
TYPO_RATE: Final = 0.04  # letters disturbed: about one word in five
CONFUSIONS: Final = 12
WRAPPERS: Final = (  # words around a request that say nothing about it
    "Hi there! {}",
    "You are a helpful assistant. Answer as well as you can.\n\n{}\n\nTake a deep breath and think step by step.",
    "### Instruction:\n{}\n\n### Response:",
    "I have one more question before I go: {} Thanks a lot in advance!",
)
PROMPT_BYTES: Final = range(400, 481)  # the size that the speed is quoted for


@dataclass(frozen=True, slots=True)
class Share:
    """How many of `rows` were right."""

    rows: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows of `category` that were taken for `taken_for`."""

    category: str
    taken_for: str
    rows: int


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds for one prompt of 400 to 480 bytes, and rows of the file per second on one core."""

    p50_ms: float
    p99_ms: float
    rows_per_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """All measures of one run; `data_sha256` and `model_digest` say of what."""

    rows: int
    accuracy: float
    accuracy_by_source: dict[str, Share]
    accuracy_by_category: dict[str, Share]
    calibration_error: float
    coverage_when_sure: float
    accuracy_when_sure: float
    accuracy_with_typos: float
    accuracy_in_lower_case: float
    accuracy_in_capitals: float
    accuracy_in_wrappers: float
    set_coverage: float
    set_size: float
    set_coverage_by_source: dict[str, Share]
    confusions: tuple[Confusion, ...]
    speed: Speed
    model_digest: str
    data_sha256: str


def evaluate(router: Router, data: Path, *, clock: Callable[[], float] = time.perf_counter) -> Report:
    """Measure on the folder's category_dev; raises FileNotFoundError."""
    rows = list(read_rows(data / DEV_FILE))
    started = clock()
    found = router.classify_batch(row.text for row in rows)
    rows_per_s = len(rows) / max(clock() - started, 1e-9)
    right = [one.category == row.category for one, row in zip(found, rows, strict=True)]
    sure = [ok for ok, one in zip(right, found, strict=True) if not one.unsure]
    draw = Random(0)  # noqa: S311  the same typos each time
    credible = [router.credible(one) for one in found]
    covered = [row.category in names for names, row in zip(credible, rows, strict=True)]

    def damaged(change: Callable[[str], str]) -> float:
        changed = router.classify_batch(change(row.text) for row in rows)
        return _mean([one.category == row.category for one, row in zip(changed, rows, strict=True)])

    wrong = Counter(
        (row.category, one.category) for row, one in zip(rows, found, strict=True) if row.category != one.category
    )
    return Report(
        rows=len(rows),
        accuracy=_mean(right),
        accuracy_by_source=_shares((row.source for row in rows), right),
        accuracy_by_category=_shares((row.category for row in rows), right),
        calibration_error=calibration_error(found, right),
        coverage_when_sure=len(sure) / len(rows),
        accuracy_when_sure=_mean(sure),
        accuracy_with_typos=damaged(lambda text: typos(text, draw, rate=TYPO_RATE)),
        accuracy_in_lower_case=damaged(str.lower),
        accuracy_in_capitals=damaged(str.upper),
        accuracy_in_wrappers=damaged(lambda text: draw.choice(WRAPPERS).format(text)),
        set_coverage=_mean(covered),
        set_size=sum(map(len, credible)) / len(credible),
        set_coverage_by_source=_shares((row.source for row in rows), covered),
        confusions=tuple(Confusion(*pair, count) for pair, count in wrong.most_common(CONFUSIONS)),
        speed=measure_speed(router, rows, rows_per_s=rows_per_s, clock=clock),
        model_digest=router.digest,
        data_sha256=hashlib.sha256((data / DEV_FILE).read_bytes()).hexdigest(),
    )


def calibration_error(found: Sequence[Classification], right: Sequence[bool]) -> float:
    """Expected calibration error over equally wide bins (Guo et al. 2017, arXiv 1706.04599, eq. 3)."""
    bins: defaultdict[int, list[tuple[float, bool]]] = defaultdict(list)
    for one, ok in zip(found, right, strict=True):
        bins[min(int(one.confidence * BINS), BINS - 1)].append((one.confidence, ok))
    gaps = (abs(sum(ok for _, ok in held) - sum(confidence for confidence, _ in held)) for held in bins.values())
    return sum(gaps) / len(found)


def measure_speed(router: Router, rows: Sequence[Row], *, rows_per_s: float, clock: Callable[[], float]) -> Speed:
    """Time single prompts of the quoted size, each alone."""
    spent = []
    for text in [row.text for row in rows if len(row.text.encode()) in PROMPT_BYTES] or [rows[0].text]:
        started = clock()
        router.classify(text)
        spent.append((clock() - started) * 1000)
    spent.sort()
    return Speed(p50_ms=spent[len(spent) // 2], p99_ms=spent[int(len(spent) * 0.99)], rows_per_s=rows_per_s)


def _mean(right: Sequence[bool]) -> float:
    return sum(right) / len(right) if right else 0.0


def _shares(names: Iterable[str], right: Iterable[bool]) -> dict[str, Share]:
    held: defaultdict[str, list[bool]] = defaultdict(list)
    for name, ok in zip(names, right, strict=True):
        held[name].append(ok)
    return {name: Share(len(oks), _mean(oks)) for name, oks in sorted(held.items())}
