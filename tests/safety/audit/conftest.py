"""A journal as a gateway leaves it: one chain closed in order over two days, one whose process was killed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conclave.gateway.journal import Journal, JournalOptions
from conclave.safety.audit.findings import Report
from conclave.safety.audit.keys import SigningKey
from conclave.safety.audit.verify import verify

BEGIN = datetime(2026, 3, 1, 23, 59, 50, tzinfo=UTC)


@dataclass
class Wall:
    """A wall clock that is set by hand."""

    now: datetime = BEGIN

    def __call__(self) -> datetime:
        return self.now


def row(wall: Wall, i: int) -> dict[str, object]:
    """A row as the recorder's, four seconds after the last."""
    wall.now += timedelta(seconds=4)
    time = wall.now.isoformat(timespec="microseconds")[:-6] + "Z"
    return {"kind": "call", "time": time, "request_id": f"req_{i}", "status": 200, "probability": 1 / (i + 3)}


@dataclass
class Folder:
    """A state folder with its key."""

    path: Path
    key: SigningKey
    living: Journal | None = None  # held, as by a process

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    def open(self, wall: Wall, **options: object) -> Journal:
        return Journal.open(self.journal, self.key, JournalOptions(now=wall, **options))

    def verify(self, **options: object) -> Report:
        return verify(self.journal, frozenset({self.key.public}), **options)

    def copy(self, to: Path) -> "Folder":
        """The same files elsewhere: as if the processes that hold them had been killed."""
        folder = Folder(to, self.key)
        folder.journal.mkdir(parents=True)
        for file in self.journal.iterdir():
            (folder.journal / file.name).write_bytes(file.read_bytes())
        return folder

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.journal.iterdir())}


def write(folder: Folder) -> None:
    """Chain A: 8 rows over midnight, closed. Chain B, later: 5 rows, all signed, never closed."""
    wall = Wall()
    first = folder.open(wall)
    for i in range(4):
        first.append(row(wall, i))
    first.sign_head()
    for i in range(2):
        first.append(row(wall, i))
    first.close()
    wall.now += timedelta(seconds=60)
    second = folder.open(wall)
    for i in range(4):
        second.append(row(wall, i))
    second.sign_head()
    folder.living = second


@pytest.fixture
def new_folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "state", SigningKey.open(tmp_path / "state" / "keys" / "audit_ed25519"))


@pytest.fixture
def new_row() -> Callable[[Wall, int], dict[str, object]]:
    return row


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The journal described above; not to be changed: `copy` it."""
    path = tmp_path_factory.mktemp("written")
    folder = Folder(path, SigningKey.open(path / "keys" / "audit_ed25519"))
    write(folder)
    return folder
