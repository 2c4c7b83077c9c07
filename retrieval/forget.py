"""Takes knowledge out of a library so that nothing of it is left, and says so in a receipt.

Gone are the passages, their words, vectors and places in the snapshot; then the database is written anew, so that the
file holds no deleted text either. A subject is suppressed, too: what names it is not taken in again. What others made
of the passages (caches, backups, an expert's memory) is not here: they see from `version` that what they keep is out of
date.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from conclave.retrieval.api import Encode
from conclave.retrieval.index import Snapshots
from conclave.retrieval.ingest import freshen
from conclave.retrieval.library import Library
from conclave.retrieval.receipts import Signer, write_receipt
from conclave.retrieval.subjects import Subject

PENDING: Final = "purging"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be forgotten: every document and passage that one of these names."""

    places: tuple[str, ...] = ()  # paths or sources
    ids: tuple[str, ...] = ()
    batch: str | None = None
    collection: str | None = None
    subject: Subject | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What a library holds of it: whole documents, and passages of others. `missing` are names that fit nothing."""

    documents: frozenset[int]
    passages: frozenset[int]
    missing: tuple[str, ...]


def held(library: Library, wanted: Wanted) -> Held:
    documents: set[int] = set()
    passages: set[int] = set()
    missing: list[str] = []
    every = library.documents()
    if wanted.collection is not None:
        documents |= {one.id for one in every if one.collection == wanted.collection}
    if wanted.batch is not None:
        documents |= set(library.batch(wanted.batch))
    for place in wanted.places:
        path = str(Path(place).absolute())
        fits = {one.id for one in every if one.source == place or one.path == path or one.path.startswith(f"{path}/")}
        documents |= fits
        missing += [] if fits else [place]
    for name in wanted.ids:
        row = library.named(name)
        passages |= set() if row is None else {row}
        missing += [] if row is not None else [name]
    if wanted.subject is not None:
        documents |= {one.id for one in every if wanted.subject.inside(f"{one.source} {one.path}")}
        passages |= {row for row, text in library.texts() if wanted.subject.inside(text)}
    passages -= set(library.passages_of(documents))
    return Held(frozenset(documents), frozenset(passages), tuple(missing))


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Forgets, and writes receipts; they are signed if there is a `signer`. Whoever calls it holds the pen."""

    library: Library
    snapshots: Snapshots
    encode: Encode
    now: Callable[[], datetime]
    signer: Signer | None = None

    def forget(self, wanted: Wanted, found: Held) -> Mapping[str, Any]:
        """Take out what was found, and say what is left of it: nothing. Raises LibraryError."""
        library = self.library
        before = library.version()
        rows = sorted({*library.passages_of(found.documents), *found.passages})
        ids = sorted(kept.passage.id for kept in library.fetch(rows).values())
        key = library.fact("key") or b""
        with library.writing():
            library.drop_passages(found.passages)
            library.drop_documents(found.documents)
            if wanted.subject is not None:
                library.suppress(wanted.subject.hashed(key), wanted.subject.length)
            library.note(PENDING, b"1")
        emptied = self.settle()
        receipt = {
            "time": self.now().isoformat(timespec="seconds"),
            "wanted": _told(wanted, key),
            "documents": len(found.documents),
            "passages": len(rows),
            "ids": ids,
            "left": self._left(rows, wanted),
            "log_emptied": emptied,
            "version": {"before": before, "after": library.version()},
        }
        return write_receipt(library.folder, receipt, self.signer)

    def settle(self) -> bool:
        """Finish what a forgetting began: a new snapshot, and a file without what was deleted. True if all is done."""
        if self.library.fact(PENDING) is None:
            return True
        freshen(self.library, self.snapshots, self.encode)
        if not self.library.scrub():
            return False
        self.library.unnote(PENDING)
        return True

    def _left(self, rows: list[int], wanted: Wanted) -> dict[str, int]:
        """How many of these passages can still be found, by each way; and how many texts name the subject."""
        gone = set(rows)
        snapshot = Snapshots(self.snapshots.folder).current()  # opened anew: what others would find
        subject = wanted.subject
        return {
            "metadata": len(self.library.fetch(rows)),
            "words": sum(row in gone for row, _ in self.library.texts()),
            "vectors": 0 if snapshot is None else len(gone & set(snapshot.rows.tolist())),
            "naming_the_subject": sum(subject.inside(text) for _, text in self.library.texts()) if subject else 0,
        }


def _told(wanted: Wanted, key: bytes) -> dict[str, Any]:
    """What was asked for, without the subject's own words."""
    told: dict[str, Any] = {"places": wanted.places, "ids": wanted.ids, "batch": wanted.batch}
    told["collection"] = wanted.collection
    told["subject"] = hashed(wanted.subject, key) if wanted.subject else None
    return {name: value for name, value in told.items() if value}


def hashed(subject: Subject, key: bytes) -> str:
    """A subject in a receipt, by the library's key: who has not got that, cannot try names."""
    return f"hmac-sha256:{subject.hashed(key).hex()}"
