"""Answers a query from a library: by meaning and by words, fused by rank, over what the caller may read alone.

Both rankings look only at the caller's audiences, found in the same moment of the library as the passages themselves; a
passage that is in the snapshot, and was deleted or closed to the caller since, is not given out. Reciprocal-rank
fusion: Cormack, Clarke and Buettcher 2009 (SIGIR), k = 60.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from conclave.retrieval.acl import readable
from conclave.retrieval.api import Encode, Found, Nearest, Query, Results
from conclave.retrieval.coverage import covered
from conclave.retrieval.index import Snapshots
from conclave.retrieval.library import Kept, Library, LibraryError

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
        vector = query.vector if query.vector is not None else self.encode([query.text])[0]
        nearest = self.vectors.current() if isinstance(self.vectors, Snapshots) else self.vectors
        library = self.library
        with library.reading():
            allowed = readable(library.audiences(), query.rights)
            depth = max(CANDIDATES, limit)
            words, near = dict[int, float](), dict[int, float]()
            if allowed.passages and self.way != "meaning":
                words = dict(library.by_words(query.text, audiences=allowed.audiences, limit=depth))
            if allowed.passages and self.way != "words" and nearest is not None and vector.any():
                neighbours = nearest.nearest(vector, audiences=allowed.audiences, limit=depth)
                near = {one.row: one.similarity for one in neighbours}
            scores = fused([list(words), list(near)])
            best = self._best(scores, allowed.audiences, limit)
            version = library.version()
            coverage = covered(
                library.holders(query.text), [one.passage.text for one in best], passages=library.size()
            )
        found = (
            Found(
                replace(one.passage, score=scores[one.row]),
                near[one.row] if one.row in near else float(one.vector @ vector),
                words.get(one.row),
            )
            for one in best
        )
        return Results(tuple(found), version, allowed.passages, coverage)

    def _best(self, scores: Mapping[int, float], audiences: frozenset[int] | None, limit: int) -> list[Kept]:
        """The first passages that are still there and may still be read: an older snapshot may hold others."""
        ranked = sorted(scores, key=lambda row: (-scores[row], row))
        best: list[Kept] = []
        for at in range(0, len(ranked), max(1, limit)):
            if len(best) >= limit:
                break
            rows = ranked[at : at + limit]
            kept = self.library.fetch(rows, audiences=audiences)
            best += [kept[row] for row in rows if row in kept]
        return best[:limit]


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
