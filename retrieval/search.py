"""Answers a query from a library: by meaning and by words, fused by rank, over what the caller may read alone.

Both rankings look only at the caller's audiences. Words are ranked by the snapshot, and by the library where a passage
was written or given to others since. Nothing that is read waits for a lock while an index is searched: the library is
asked before, for who may read what, and after, for the passages themselves, and only what may be read then is given
out, so that what was deleted or closed to the caller meanwhile is not. Reciprocal-rank fusion: Cormack, Clarke and
Buettcher 2009 (SIGIR), k = 60.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from conclave.retrieval.acl import Readable, readable
from conclave.retrieval.api import Encode, Found, Nearest, Query, Results
from conclave.retrieval.coverage import covered
from conclave.retrieval.index import Snapshot, Snapshots
from conclave.retrieval.library import Kept, Library, LibraryError
from conclave.retrieval.words import Since

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

RANK_OFFSET: Final = 60  # k of the paper
CANDIDATES: Final = 50  # of each ranking
MOST: Final = 100  # results of one query
SENTENCE: Final = "The library answers from what it was given."  # its vector says which encoder made the others
SAME: Final = 0.999  # cosine, of that sentence's vectors by one encoder, one of them kept in fp16

Way: TypeAlias = Literal["hybrid", "meaning", "words"]


@dataclass(frozen=True, slots=True)
class Hybrid:
    """A `Search` (api.py) over a library and its snapshots, or an index of vectors elsewhere."""

    library: Library
    encode: Encode
    vectors: Snapshots | Nearest
    way: Way = "hybrid"

    def search(self, query: Query) -> Results:
        """The best passages for a query, best first; the same query to the same library gives the same."""
        limit = max(0, min(query.limit, MOST))
        depth = max(CANDIDATES, limit)
        vector = query.vector if query.vector is not None else self.encode([query.text])[0]
        index = self.vectors.current() if isinstance(self.vectors, Snapshots) else self.vectors
        library, snapshot = self.library, index if isinstance(index, Snapshot) else None
        stems = library.words.stems(query.text)
        spans = snapshot.words.spans(stems) if snapshot and snapshot.words else None
        with library.reading():
            allowed = readable(library.audiences(), query.rights)
            late = self._late(query.text, allowed, None if spans is None else snapshot, depth)
        words, near = late.found, dict[int, float]()
        if snapshot and spans and allowed.passages and self.way != "meaning":
            known = snapshot.by_words(spans.values(), audiences=allowed.audiences, but=late.changed, limit=depth)
            words = dict(sorted([*words.items(), *known], key=lambda one: (-one[1], one[0]))[:depth])
        if index is not None and allowed.passages and self.way != "words" and vector.any():
            near = {one.row: one.similarity for one in index.nearest(vector, audiences=allowed.audiences, limit=depth)}
        scores = fused([list(words), list(near)])
        with library.reading():
            audiences = library.audiences()
            allowed = readable(audiences, query.rights)
            best = self._best(scores, allowed.audiences, limit)
            version = library.version()
            held = library.words.holders(stems) if spans is None else {stem: at.passages for stem, at in spans.items()}
        coverage = covered(held, [one.passage.text for one in best], passages=sum(one.passages for one in audiences))
        found = (
            Found(one.passage, near[one.row] if one.row in near else float(one.vector @ vector), words.get(one.row))
            for one in best
        )
        return Results(tuple(found), version, allowed.passages, coverage)

    def _late(self, text: str, allowed: Readable, snapshot: Snapshot | None, limit: int) -> "Late":
        """What is found by words where the snapshot does not know them; without one, all."""
        library, since = self.library, None
        changed: list[int] = []
        if not allowed.passages or self.way == "meaning":
            return Late({}, [])
        if snapshot is not None:
            since = Since(int(snapshot.rows[-1]) if len(snapshot.rows) else 0, snapshot.about.version)
            changed = library.changed(since.version) if library.version() != since.version else []
            if not changed and (library.version() == since.version or library.last() == since.last):
                return Late({}, [])
        return Late(dict(library.words.best(text, audiences=allowed.audiences, limit=limit, since=since)), changed)

    def _best(self, scores: Mapping[int, float], audiences: frozenset[int] | None, limit: int) -> list[Kept]:
        """The first passages that are still there and may still be read: an older snapshot may hold others."""
        ranked = sorted(scores, key=lambda row: (-scores[row], row))
        best: list[Kept] = []
        for at in range(0, len(ranked), max(1, limit)):
            if len(best) >= limit:
                break
            rows = ranked[at : at + limit]
            kept = self.library.fetch(rows, audiences=audiences, scores=scores)
            best += [kept[row] for row in rows if row in kept]
        return best[:limit]


@dataclass(frozen=True, slots=True)
class Late:
    """Passages that were written or changed since the snapshot, by BM25; and the numbers of those that changed."""

    found: dict[int, float]
    changed: list[int]


def fused(rankings: Sequence[Sequence[int]]) -> dict[int, float]:
    """Reciprocal-rank fusion: what stands high in several rankings stands highest."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (RANK_OFFSET + rank)
    return scores


def check_encoder(library: Library, encode: Encode, *, write: bool = False) -> None:
    """That the library's vectors are of this encoder; with `write`, a new one is from now on. Raises LibraryError."""
    import numpy as np  # noqa: PLC0415

    mine: NDArray[float32] = encode([SENTENCE])[0]
    kept = library.fact("encoder")
    if kept is None:
        if write:
            with library.writing():
                library.note("encoder", mine.astype("<f2").tobytes())
        return
    theirs = np.frombuffer(kept, dtype="<f2").astype(np.float32)
    if len(theirs) != len(mine) or float(theirs @ mine) < SAME:
        raise LibraryError(
            f"the library in {library.folder} was made with another encoder: its vectors mean nothing to this one. "
            "Make a new library in another folder"
        )
