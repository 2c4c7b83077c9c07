"""A bench's CSV: one row a measurement, on disk at once, each with the device, the versions and the commit."""

import csv
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

PACKAGES = ("torch", "transformers", "triton", "numba")
ROOT = Path(__file__).parents[2]


class Write(Protocol):
    def __call__(self, **row: Any) -> None: ...


@contextmanager
def csv_rows(folder: Path, *, name: str, device: str) -> Iterator[Write]:
    """A function that appends a row; the first one's names make the head. The file is `<name>-<commit>.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"measured": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "device": device}
    about |= {package: _version(package) for package in PACKAGES}
    with (folder / f"{name}-{about['commit']}.csv").open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None

        def write(**row: Any) -> None:
            nonlocal writer
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=[*about, *row])
                writer.writeheader()
            writer.writerow(about | row)
            file.flush()

        yield write


def commit() -> str:
    """Of the tree that is measured; `unknown` where there is no repository."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603  our git
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
