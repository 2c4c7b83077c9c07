"""What a caller may not read is not found: not by meaning, not by words, not from an older snapshot."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conclave.retrieval.acl import checked_name, checked_tags
from conclave.retrieval.api import OWNER, Encode, Passage, Query, Rights, Trust
from conclave.retrieval.index import Snapshots, build
from conclave.retrieval.ingest import freshen
from conclave.retrieval.library import Entry, Library
from conclave.retrieval.search import Hybrid

WORDS = ["alpha", "beta", "gamma", "delta", "river", "stone", "cloud"]
TAGS = st.sets(st.sampled_from(["red", "blue", "hr", "legal"]), max_size=3)
DOCUMENTS = st.lists(
    st.tuples(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), TAGS, st.sampled_from(["a", "b", "c"])),
    min_size=1,
    max_size=12,
)


def put(  # noqa: PLR0913  a document, and who may read it
    library: Library, encode: Encode, path: str, text: str, *, acl: tuple[str, ...] = (), collection: str = "a"
) -> None:
    passage = Passage(text, path, "", 0, len(text))
    entry = Entry(
        collection, path, path, acl, "", len(text), "b", "1", Trust.NORMAL, "", [passage], encode([text])
    )  # fmt: skip
    with library.writing():
        library.put(entry)


@given(
    documents=DOCUMENTS,
    query=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    tags=TAGS,
    collections=st.none() | st.sets(st.sampled_from(["a", "b", "c"])),
    limit=st.integers(1, 20),
    way=st.sampled_from(["hybrid", "meaning", "words"]),
    change=st.sampled_from(["nothing", "closed", "opened", "deleted", "rewritten", "added"]),
)
@settings(deadline=None, max_examples=150)
def test_nothing_that_a_caller_may_not_read_is_ever_found(  # noqa: PLR0913, PLR0917  what is drawn
    encode: Encode,
    documents: list[tuple[list[str], set[str], str]],
    query: list[str],
    tags: set[str],
    collections: set[str] | None,
    limit: int,
    way: str,
    change: str,
) -> None:
    """Random corpora, tags and queries, and what may happen to a document after the snapshot was made."""
    rights = Rights(None if collections is None else frozenset(collections), frozenset(tags))
    with tempfile.TemporaryDirectory() as folder:
        library = Library.open(Path(folder), make=True)
        acls = {}
        for place, (words, acl, collection) in enumerate(documents):
            put(library, encode, f"{place}", " ".join(words), acl=tuple(sorted(acl)), collection=collection)
            acls[f"{place}"] = (collection, acl, set(words))
        snapshots = Snapshots(library.folder)
        freshen(library, snapshots, encode)
        _change(library, encode, acls, change)
        results = Hybrid(library, encode, snapshots, way).search(Query(" ".join(query), rights, limit))  # type: ignore[arg-type]  # drawn from its words
        library.close()
    readable = {path for path, (collection, acl, _) in acls.items() if rights.allows(collection, acl)}
    assert {one.passage.source for one in results.found} <= readable
    assert results.among == len(readable)
    if way != "meaning":  # found by words, as they are now; by meaning, as the snapshot has them
        holding = {path for path in readable if acls[path][2] & set(query)}
        assert len(results.found) >= min(limit, len(holding)), "filtered before ranking, so none of its own is lost"


def _change(library: Library, encode: Encode, acls: dict[str, tuple[str, set[str], set[str]]], change: str) -> None:
    """Do something to the first document, and keep `acls` (collection, tags and words by path) as it is then."""
    first = library.documents()[0]
    collection, _, words = acls[first.path]
    if change in {"closed", "opened"}:
        acl = {"nobody"} if change == "closed" else set()
        with library.writing():
            library.relabel(first, acl=tuple(acl), trust=first.trust, source=first.source)
        acls[first.path] = (collection, acl, words)
    elif change == "deleted":
        with library.writing():
            library.drop_documents([first.id])
        del acls[first.path]
    elif change in {"rewritten", "added"}:
        path = first.path if change == "rewritten" else "added"
        put(library, encode, path, "river delta", acl=("hr",), collection=collection)
        acls[path] = (collection, {"hr"}, {"river", "delta"})


def test_rights_are_applied_before_ranking(library: Library, encode: Encode) -> None:
    """A hundred better passages that the caller may not read leave no gap."""
    for place in range(100):
        put(library, encode, f"secret-{place}", "river stone river", acl=("hr",))
    put(library, encode, "open", "river cloud delta beta alpha gamma one two three")
    snapshots = Snapshots(library.folder)
    freshen(library, snapshots, encode)
    for way in ("hybrid", "meaning", "words"):
        anyone = Query("river stone", Rights(None, frozenset()), 3)
        results = Hybrid(library, encode, snapshots, way).search(anyone)  # type: ignore[arg-type]  # a literal
        assert [one.passage.source for one in results.found] == ["open"]
        assert results.among == 1


@pytest.mark.parametrize(
    ("rights", "collection", "acl", "allowed"),
    [
        (OWNER, "a", ("hr",), True),
        (Rights(None, frozenset()), "a", (), True),
        (Rights(None, frozenset()), "a", ("hr",), False),
        (Rights(None, frozenset({"legal"})), "a", ("hr", "legal"), True),
        (Rights(frozenset({"b"}), frozenset({"hr"})), "a", ("hr",), False),
        (Rights(frozenset(), None), "a", (), False),
    ],
)
def test_one_tag_is_enough_and_the_collection_must_fit(
    rights: Rights, collection: str, acl: tuple[str, ...], *, allowed: bool
) -> None:
    assert rights.allows(collection, acl) is allowed


def test_a_filter_on_cells_finds_what_may_be_read(library: Library, encode: Encode) -> None:
    """An index of cells, made small, and a caller who may read one passage in fifty: as good as comparing all."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(25_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [(number + 1, number % 50) for number in range(len(vectors))]
    made = build(vectors.astype(np.float16), rows, version=0, probes=vectors[:64])
    assert made.cells > 0
    snapshots = Snapshots(library.folder)
    about = snapshots.write(made)
    assert about.recall >= 0.95
    snapshot = snapshots.current()
    assert snapshot is not None
    for question in vectors[100:110]:
        found = snapshot.nearest(question, audiences=frozenset({7}), limit=10)
        mine = list(range(7, len(vectors), 50))
        best = sorted(mine, key=lambda number: -float(vectors[number] @ question))[:10]
        assert len({one.row - 1 for one in found} & set(best)) >= 9
        assert all((one.row - 1) % 50 == 7 for one in found)


@pytest.mark.parametrize("tag", ["", " ", "a b", "-x", "x" * 101, "ü", "a,b", "a\n"])
def test_a_tag_that_could_be_mistaken_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="cannot be a tag"):
        checked_name(tag, what="a tag")
    with pytest.raises(ValueError, match="at most 32"):
        checked_tags(f"t{i}" for i in range(33))
