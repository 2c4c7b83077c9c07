"""Says whether a library is whole, and whether it still is what its files say. It changes nothing."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from conclave.retrieval.forget import PENDING
from conclave.retrieval.index import Snapshots
from conclave.retrieval.library import Library
from conclave.retrieval.receipts import broken_receipts


@dataclass(frozen=True, slots=True)
class Checked:
    """`damage` makes a library wrong; `behind` says what a command would bring up to date."""

    documents: int
    passages: int
    damage: list[str]
    behind: list[str]


def verify(library: Library, snapshots: Snapshots, *, files: bool = True) -> Checked:
    """Look at the database, the snapshot and the receipts; with `files`, also at the files that were added."""
    damage = [*library.damage(), *snapshots.damage(), *broken_receipts(library.folder)]
    behind = []
    snapshot = None if damage else snapshots.current()
    if snapshot is not None and snapshot.about.version != library.version():
        behind.append("the snapshot is older than the documents: `conclave knowledge verify --rebuild`")
    if library.fact(PENDING) is not None:
        behind.append("a forgetting is not finished: `conclave knowledge verify --rebuild`")
    documents = library.documents()
    if files:
        for one in documents:
            try:
                with Path(one.path).open("rb") as file:
                    same = hashlib.file_digest(file, "sha256").hexdigest() == one.hash
            except OSError as error:
                behind.append(f"{one.path}: {error.strerror}")
                continue
            if not same:
                behind.append(f"{one.path}: changed since it was added")
    return Checked(len(documents), library.size(), damage, behind)
