"""What a verification says: faults (the record was changed) and notes (normal, but worth knowing)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conclave.safety.audit.heads import Dropped

MOST_FAULTS: Final = 1_000  # one cause can touch every row; beyond this they are only counted


@dataclass(frozen=True, slots=True)
class Fault:
    """Something is wrong in `file`; `row` is the row's number in its chain, or the entry's in heads.jsonl."""

    file: str
    row: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}" if self.row is None else f"{self.file}: row {self.row}: {self.what}"


@dataclass(frozen=True, slots=True)
class Part:
    """One verified segment: its file, its rows, the last one's hash, the newest time in it."""

    path: Path
    chain: str
    first: int
    last: int
    hash: str
    newest: str


@dataclass(slots=True)
class Report:
    """Everything that was found. `parts` are the segments that hold rows, in order."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    dropped: tuple[Dropped, ...] = ()
    chains: int = 0
    rows: int = 0
    entries: int = 0
    witnessed_rows: int = 0
    more_faults: int = 0

    @property
    def intact(self) -> bool:
        return not self.faults

    def fault(self, file: str, row: int | None, what: str) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(file, row, what))
        else:
            self.more_faults += 1

    def note(self, what: str) -> None:
        self.notes.append(what)


def span(first: int, last: int) -> str:
    return f"row {first}" if first == last else f"rows {first} to {last}"
