"""Searching from many threads, while a library changes and snapshots are swapped; and an index elsewhere."""

import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from conclave.retrieval.api import OWNER, Encode, Near, Passage, Query, Rights, Search, Trust
from conclave.retrieval.index import ABOUT, CURRENT, SNAPSHOTS, SnapshotError, Snapshots
from conclave.retrieval.ingest import freshen
from conclave.retrieval.library import FILE, Entry, Library
from conclave.retrieval.search import Hybrid


def put(library: Library, encode: Encode, path: str, text: str, acl: tuple[str, ...] = ()) -> None:
    entry = Entry(
        "a", path, path, acl, "", 1, "b", "1", Trust.NORMAL, "", [Passage(text, path, "", 0, 9)], encode([text])
    )
    with library.writing():
        library.put(entry)


def test_threads_search_while_the_library_changes(library: Library, encode: Encode) -> None:
    """Eight threads search; documents are written, closed and deleted, and snapshots swapped, by another process's
    means: a library of its own on the same file. Nobody gets an error, a closed passage or one that was deleted."""
    for place in range(40):
        put(library, encode, f"open-{place}", f"river stone {place}")
        put(library, encode, f"closed-{place}", f"river stone cloud {place}", acl=("hr",))
    snapshots = Snapshots(library.folder)
    freshen(library, snapshots, encode)
    search = Hybrid(library, encode, snapshots)
    done = threading.Event()

    def ask() -> int:
        asked = 0
        while not done.is_set() or asked == 0:
            results = search.search(Query(f"river stone {asked % 40}", Rights(None, frozenset()), 5))
            assert results.found
            assert not any(one.passage.acl for one in results.found)
            assert not any(one.passage.source.startswith("closed") for one in results.found)
            asked += 1
        return asked

    writer = Library.open(library.folder)
    try:
        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(ask) for _ in range(8)]
            try:
                for turn in range(10):
                    put(writer, encode, f"late-{turn}", f"river stone delta {turn}")
                    (document,) = [one for one in writer.documents() if one.path == f"open-{turn}"]
                    with writer.writing():
                        writer.relabel(document, acl=("hr",), trust=document.trust, source=f"closed-now-{turn}")
                        writer.drop_documents([one.id for one in writer.documents() if one.path == f"closed-{turn}"])
                    if turn % 3 == 0:
                        freshen(writer, Snapshots(writer.folder), encode)
            finally:
                done.set()
            assert all(one.result() > 0 for one in asking)
    finally:
        writer.close()
    assert library.damage() == []


def test_nobody_waits_while_a_snapshot_is_opened(library: Library, encode: Encode) -> None:
    """A snapshot that takes long to read (a pipe that nobody writes to): one thread opens it, the others go on."""
    put(library, encode, "1", "river stone")
    snapshots = Snapshots(library.folder)
    freshen(library, snapshots, encode)
    search = Hybrid(library, encode, snapshots)
    assert len(search.search(Query("river", OWNER, 3)).found) == 1
    slow = library.folder / SNAPSHOTS / "slow"
    slow.mkdir()
    os.mkfifo(slow / ABOUT)
    pointer = library.folder / SNAPSHOTS / "new"
    pointer.write_text("slow")
    pointer.replace(library.folder / SNAPSHOTS / CURRENT)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(snapshots.current)
        pipe = os.open(slow / ABOUT, os.O_WRONLY)  # returns when the other thread reads: it is opening now
        try:
            assert not opening.done()
            assert len(search.search(Query("river", OWNER, 3)).found) == 1
        finally:
            os.close(pipe)
        with pytest.raises(SnapshotError, match="--rebuild"):
            opening.result(timeout=10)


@dataclass
class Elsewhere:
    """An index of vectors that is not ours: what Qdrant or pgvector would do, in a dictionary."""

    vectors: dict[int, tuple[int, NDArray[np.float32]]] = field(default_factory=dict)
    asked: list[frozenset[int] | None] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def fill(self, library: Library, dimensions: int) -> None:
        rows = library.rows()
        vectors = library.vectors([row for row, _ in rows], dimensions).astype(np.float32)
        self.vectors = {row: (audience, vector) for (row, audience), vector in zip(rows, vectors, strict=True)}

    def nearest(self, vector: NDArray[np.float32], *, audiences: frozenset[int] | None, limit: int) -> list[Near]:
        self.asked.append(audiences)
        self.meanwhile()
        allowed = ((row, v) for row, (who, v) in self.vectors.items() if audiences is None or who in audiences)
        return sorted((Near(row, float(v @ vector)) for row, v in allowed), key=lambda one: -one.similarity)[:limit]


def test_an_index_elsewhere_stands_in(library: Library, encode: Encode) -> None:
    """It is asked with the caller's audiences; what it still holds of deleted and closed passages is not given out."""
    for place in range(12):
        put(library, encode, f"{place}", f"river stone {place}", acl=("hr",) if place % 2 else ())
    elsewhere = Elsewhere()
    elsewhere.fill(library, encode([""]).shape[1])
    search: Search = Hybrid(library, encode, elsewhere)
    found = search.search(Query("river stone 4", Rights(None, frozenset()), 4)).found
    assert len(found) == 4
    assert "4" in {one.passage.source for one in found}
    assert not any(one.passage.acl for one in found)
    assert elsewhere.asked[0] is not None
    assert len(elsewhere.asked[0]) == 1
    with library.writing():
        library.drop_documents([one.id for one in library.documents() if one.path == "4"])
        (six,) = [one for one in library.documents() if one.path == "6"]
        library.relabel(six, acl=("hr",), trust=six.trust, source=six.source)
    for way in ("hybrid", "meaning"):
        left = Hybrid(library, encode, elsewhere, way).search(  # type: ignore[arg-type]  # a literal
            Query("river stone 4", Rights(None, frozenset()), 4)
        )
        assert {one.passage.source for one in left.found} <= {"0", "2", "8", "10"}


def test_what_is_closed_while_an_index_is_searched_is_not_given_out(library: Library, encode: Encode) -> None:
    """The caller might read all there was when the search began, so nothing was left out of the ranking."""
    put(library, encode, "1", "river stone")
    put(library, encode, "2", "river cloud")
    writer = Library.open(library.folder)

    def close() -> None:
        (one,) = [one for one in writer.documents() if one.path == "1"]
        with writer.writing():
            writer.relabel(one, acl=("hr",), trust=one.trust, source=one.source)

    elsewhere = Elsewhere(meanwhile=close)
    elsewhere.fill(library, encode([""]).shape[1])
    results = Hybrid(library, encode, elsewhere).search(Query("river stone", Rights(None, frozenset()), 4))
    writer.close()
    assert elsewhere.asked == [None]
    assert [one.passage.source for one in results.found] == ["2"]
    assert results.among == 1


def test_a_library_of_the_first_version_is_brought_up_to_date(library: Library, encode: Encode) -> None:
    """Its audiences are counted, and what changes from then on is noted."""
    put(library, encode, "1", "river stone")
    put(library, encode, "2", "river stone", acl=("hr",))
    library.close()
    database = sqlite3.connect(library.folder / FILE)
    for trigger in ("passage_in", "passage_out", "passage_moved"):
        database.execute(f"DROP TRIGGER {trigger}")
    database.execute("DROP TABLE changed")
    database.execute("ALTER TABLE audiences DROP COLUMN passages")
    database.execute("PRAGMA user_version = 1")
    database.close()
    again = Library.open(library.folder)
    assert [one.passages for one in again.audiences()] == [1, 1]
    version = again.version()
    with again.writing():
        again.drop_documents([again.documents()[0].id])
    assert [one.passages for one in again.audiences()] == [0, 1]
    assert again.changed(version) == [1]
    assert again.damage() == []
    again.close()


def test_a_wrong_count_of_an_audience_is_damage(library: Library, encode: Encode) -> None:
    put(library, encode, "1", "river stone")
    with sqlite3.connect(library.folder / FILE) as database:
        database.execute("UPDATE audiences SET passages = 7")
    database.close()
    assert library.damage() == ["the passages of an audience are not as many as was counted"]


def test_changes_are_kept_for_whoever_still_holds_the_snapshot_before(library: Library, encode: Encode) -> None:
    put(library, encode, "1", "river stone")
    snapshots = Snapshots(library.folder)
    first = freshen(library, snapshots, encode)
    with library.writing():
        library.drop_documents([library.documents()[0].id])
    second = freshen(library, snapshots, encode)
    assert library.changed(first.version) == [1]
    put(library, encode, "2", "river stone")
    freshen(library, snapshots, encode)
    assert second.version > first.version
    assert library.changed(0) == []
