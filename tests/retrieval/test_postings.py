"""Words in a snapshot: ranked as the library itself would rank them, and never more than that."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conclave.retrieval.api import OWNER, Encode, Passage, Query, Rights, Trust
from conclave.retrieval.index import CURRENT, SNAPSHOTS, Snapshot, SnapshotError, Snapshots
from conclave.retrieval.ingest import freshen
from conclave.retrieval.library import Entry, Library
from conclave.retrieval.postings import FILES, Postings, build
from conclave.retrieval.search import Hybrid

WORDS = ["alpha", "beta", "gamma", "running", "runs", "stone", "a_b", "été", "日本語"]


def put(library: Library, encode: Encode, path: str, text: str, heading: str = "") -> None:
    passage = Passage(text, path, heading, 0, len(text))
    entry = Entry("a", path, path, (), "", 1, "b", "1", Trust.NORMAL, "", [passage], encode([text]))
    with library.writing():
        library.put(entry)


def made(library: Library, encode: Encode) -> Snapshot:
    snapshots = Snapshots(library.folder)
    freshen(library, snapshots, encode)
    snapshot = snapshots.current()
    assert snapshot is not None
    return snapshot


def words_of(snapshot: Snapshot) -> Postings:
    assert snapshot.words is not None
    return snapshot.words


@given(
    texts=st.lists(st.tuples(*[st.lists(st.sampled_from(WORDS), max_size=8)] * 2), min_size=1, max_size=12),
    query=st.lists(st.sampled_from(["alpha", "beta", "gamma", "running", "stone", "été", "missing"]), max_size=5),
)
@settings(deadline=None, max_examples=60)
def test_a_snapshot_ranks_as_fts5_does(
    encode: Encode, texts: list[tuple[list[str], list[str]]], query: list[str]
) -> None:
    """The same passages with the same BM25, to what 16 bits can say."""
    with tempfile.TemporaryDirectory() as folder:
        library = Library.open(Path(folder), make=True)
        for place, (heading, text) in enumerate(texts):
            put(library, encode, f"{place}", " ".join(text), " > ".join(heading))
        snapshot = made(library, encode)
        spans = words_of(snapshot).spans(library.words.stems(" ".join(query)))
        mine = dict(snapshot.by_words(spans.values(), audiences=None, but=(), limit=50))
        theirs = dict(library.words.best(" ".join(query), audiences=None, limit=50))
        holders = library.words.holders(list(spans))
        library.close()
    assert mine == pytest.approx(theirs, rel=5e-3, abs=5e-6)
    assert {stem: span.passages for stem, span in spans.items()} == holders


def test_common_words_do_not_choose_but_they_rank(library: Library, encode: Encode) -> None:
    """With postings for two terms, the third decides among what those found, and adds nothing else."""
    for place in range(20):
        rare = "quartz " if place < 2 else ""
        uncommon = "opal " if place < 4 else ""
        put(library, encode, f"{place}", f"{rare}{uncommon}{'river' if place != 0 else 'stone'} and {'x ' * 5}")
    snapshot = made(library, encode)
    spans = words_of(snapshot).spans(["quartz", "opal", "river"])
    assert list(spans) == ["quartz", "opal", "river"], "the rarest first"
    best = words_of(snapshot).best(spans.values(), passages=20, readable=None, limit=10, postings=1)
    assert [one.place for one in best] == [1, 0, 2, 3]
    every = words_of(snapshot).best(spans.values(), passages=20, readable=None, limit=10)
    assert [one.place for one in every[:4]] == [1, 0, 2, 3]
    assert len(every) == 10


def test_ties_are_broken_by_the_order_of_the_passages(library: Library, encode: Encode) -> None:
    for place in range(30):
        put(library, encode, f"{place}", "river stone" if place % 2 else "cloud")
    snapshot = made(library, encode)
    spans = words_of(snapshot).spans(["river"])
    found = words_of(snapshot).best(spans.values(), passages=30, readable=None, limit=4)
    assert [one.place for one in found] == [1, 3, 5, 7]


@pytest.mark.parametrize("query", ["", "the of and", "\ud800", "'\" OR *", "x" * 10_000, "\0river", "日" * 500])
def test_a_hostile_question_is_answered(library: Library, encode: Encode, query: str) -> None:
    put(library, encode, "1", "river stone")
    snapshots = Snapshots(library.folder)
    freshen(library, snapshots, encode)
    assert Hybrid(library, encode, snapshots, "words").search(Query(query, OWNER, 3)).among == 1


def test_an_empty_library_has_no_words(library: Library, encode: Encode) -> None:
    snapshot = made(library, encode)
    spans = words_of(snapshot).spans(["river"])
    assert spans["river"].passages == 0
    assert snapshot.by_words(spans.values(), audiences=None, but=(), limit=5) == []


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["empty", "short", "gone", "objects"])
def test_damaged_words_are_an_error_that_says_what_to_do(
    library: Library, encode: Encode, file: str, damage: str
) -> None:
    put(library, encode, "1", "river stone")
    made(library, encode)
    folder = library.folder / SNAPSHOTS / (library.folder / SNAPSHOTS / CURRENT).read_text()
    if damage == "empty":
        (folder / file).write_bytes(b"")
    elif damage == "gone":
        (folder / file).unlink()
    elif damage == "objects":
        np.save(folder / file, np.array([{}], dtype=object), allow_pickle=True)
    else:
        np.save(folder / file, np.zeros(7, dtype=np.int32))
    with pytest.raises(SnapshotError, match="--rebuild"):
        Snapshots(library.folder).current()


def test_a_changed_word_is_found_by_its_hash(library: Library, encode: Encode) -> None:
    put(library, encode, "1", "river stone")
    made(library, encode)
    file = library.folder / SNAPSHOTS / (library.folder / SNAPSHOTS / CURRENT).read_text() / "gains.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert Snapshots(library.folder).damage() == ["gains.npy of the snapshot was changed"]


def test_words_of_a_passage_that_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        build([1, 2], [b"river"], [1], lambda _first, _last: np.array([3 * 7 + 2]))
    with pytest.raises(ValueError, match="do not fit"):
        build([1, 2], [b"river"], [2], lambda _first, _last: np.array([3 * 1 + 2]))


@pytest.mark.parametrize("change", ["written", "deleted", "closed", "opened", "rewritten"])
def test_what_changed_after_the_snapshot_is_ranked_as_it_is_now(library: Library, encode: Encode, change: str) -> None:
    """Fifty closed or deleted passages stand first in the snapshot; the one that may be read is found all the same."""
    for place in range(60):
        put(library, encode, f"{place}", "river river stone")
    put(library, encode, "last", "river cloud delta alpha")
    snapshots = Snapshots(library.folder)
    freshen(library, snapshots, encode)
    crowd = [one for one in library.documents() if one.path != "last"]
    (last,) = [one for one in library.documents() if one.path == "last"]
    with library.writing():
        if change in {"deleted", "written"}:
            library.drop_documents([one.id for one in crowd])
        else:
            for one in crowd:
                library.relabel(one, acl=("hr",), trust=one.trust, source=one.source)
        if change == "opened":
            library.relabel(last, acl=("hr",), trust=last.trust, source=last.source)
    if change == "opened":
        with library.writing():
            library.relabel(last, acl=(), trust=last.trust, source=last.source)
    if change == "written":
        put(library, encode, "new", "river river river")
    if change == "rewritten":
        put(library, encode, "last", "a river again")
    search = Hybrid(library, encode, snapshots, "words")
    found = search.search(Query("river", Rights(None, frozenset()), 5)).found
    assert [one.passage.source for one in found] == (["new", "last"] if change == "written" else ["last"])
    if change == "rewritten":
        assert found[0].passage.text == "a river again"
    freshen(library, snapshots, encode)
    again = search.search(Query("river", Rights(None, frozenset()), 5)).found
    assert [one.passage.id for one in again] == [one.passage.id for one in found]
