"""What was measured: one value per target, metric and round, where it was measured, and the CSV that keeps it."""

import csv
import os
import platform
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks.gateway.targets import DIRECT, REFERENCE, ROOT

PACKAGES: Final = ("aiohttp", "fastapi", "msgspec", "starlette", "uvicorn", "uvloop")
BUSY: Final = "machine.busy_percent"  # what others used of the cores just before a round
LOOP: Final = "machine.loop_ms"  # a million additions in Python: how fast the machine was
FIELDS: Final = ("date", "commit", "cores", "machine", "versions", "target", "metric", "median", "to_f", "samples")


@dataclass(frozen=True, slots=True)
class Place:
    """Where and when a run was made."""

    date: str
    commit: str
    cores: str
    machine: str
    versions: str

    @classmethod
    def here(cls, now: datetime | None = None) -> "Place":
        """This machine, this tree; a commit with `+` has uncommitted changes."""
        versions = [f"python {platform.python_version()}", *(f"{name} {_version(name)}" for name in PACKAGES)]
        return cls(
            date=(now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
            commit=_git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
            cores=str(len(os.sched_getaffinity(0))),
            machine=_cpu_model(),
            versions="; ".join(versions),
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _git(*words: str) -> str:
    command = ["git", *words]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return finished.stdout.strip()


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@dataclass(slots=True)
class Results:
    """Samples by (target, metric), one a round, in the order of the rounds."""

    place: Place
    samples: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, target: str, metric: str, value: float) -> None:
        self.samples[target, metric].append(value)

    @property
    def targets(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(target for target, _ in self.samples))

    def median(self, target: str, metric: str) -> float | None:
        """The median over the rounds; None if it was not measured."""
        values = self.samples.get((target, metric))
        return statistics.median(values) if values else None

    def to_reference(self, target: str, metric: str) -> float | None:
        """The median over the rounds of this target's value by F's in the same round: drift drops out."""
        pairs = self._paired(target, REFERENCE, metric)
        ratios = [mine / its for mine, its in pairs if mine > 0 and its > 0]  # an added time below 0 is noise
        return statistics.median(ratios) if ratios else None

    def subtract_direct(self, metric: str, added: str) -> None:
        """Derive what each target adds to the mock's own time, round by round."""
        for target in self.targets:
            if target != DIRECT:
                for mine, its in self._paired(target, DIRECT, metric):
                    self.add(target, added, mine - its)

    def _paired(self, target: str, other: str, metric: str) -> list[tuple[float, float]]:
        mine, its = self.samples.get((target, metric), []), self.samples.get((other, metric), [])
        return list(zip(mine, its, strict=True)) if mine and its else []


def write_csv(results: Results, file: Path) -> None:
    """One row per target and metric: the median, its ratio to F, and the rounds it comes from."""
    file.parent.mkdir(parents=True, exist_ok=True)
    place = results.place
    with file.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(FIELDS)
        for (target, metric), values in results.samples.items():
            ratio = results.to_reference(target, metric)
            shown = [_short(statistics.median(values)), "" if ratio is None else _short(ratio), _joined(values)]
            writer.writerow(
                [place.date, place.commit, place.cores, place.machine, place.versions, target, metric, *shown]
            )


def read_csv(file: Path) -> Results:
    """What `write_csv` wrote. Raises ValueError if the file holds no rows."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows:
        raise ValueError(f"{file} holds no measurements")
    results = Results(Place(*(rows[0][name] for name in ("date", "commit", "cores", "machine", "versions"))))
    for row in rows:
        for value in row["samples"].split():
            results.add(row["target"], row["metric"], float(value))
    return results


def _joined(values: Sequence[float]) -> str:
    return " ".join(_short(value) for value in values)


def _short(value: float) -> str:
    return f"{value:.6g}"
