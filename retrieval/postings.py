"""Ranks passages by a question's words: BM25 from arrays that are mapped from a snapshot, term after term.

For each term the arrays hold the passages that it stands in and what it adds to their score there, computed when the
snapshot is built; FTS5 computes the same for each search. The rarest terms choose the candidates, as many as `POSTINGS`
pays for; all terms score the best of them. What may not be read is left out before the best are chosen. BM25 as FTS5
has it (Robertson and Zaragoza 2009, eq. 3.15, k1 = 1.2, b = .75), a heading's words counted as `WEIGHTS` says.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILES: Final = ("terms.npy", "spans.npy", "places.npy", "gains.npy")
WEIGHTS: Final = (3.0, 1.5, 1.0)  # of a word in the last heading, in those above it, in the text
K1: Final = 1.2
B: Final = 0.75
LEAST: Final = 1e-6  # what a term adds at least: one in most passages tells nothing, and is found all the same
POSTINGS: Final = 100_000  # that may choose candidates, the rarest terms' first: some 10 ns each
LEAST_TERMS: Final = 2  # choose candidates, however common
RESCORED: Final = 1_000  # candidates that the terms beyond `POSTINGS` are looked up for
AT_ONCE: Final = 2_000_000  # occurrences, while building: 20 MB of text
# From one term to another, both included: each occurrence as its passage's number * 3 + its column (as in `WEIGHTS`), by
# term, then by passage.
Readable: TypeAlias = "Callable[[NDArray[np.int32]], NDArray[np.bool_]]"  # of some places: which may be ranked
Occurrences: TypeAlias = "Callable[[bytes, bytes], NDArray[np.int64]]"


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage's place in the snapshot, and its BM25."""

    place: int
    score: float


@dataclass(frozen=True, slots=True)
class Postings:
    """Terms by hash, [terms] in order, and where the postings of each begin and end, [terms, 2].

    A posting is a passage's place, in order, and a gain: what the term adds to that passage's score.
    """

    terms: "NDArray[np.uint64]"
    spans: "NDArray[np.int64]"
    places: "NDArray[np.int32]"
    gains: "NDArray[np.float16]"

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map them. Raises FileNotFoundError, ValueError, EOFError."""
        import numpy as np  # noqa: PLC0415  loaded when first needed

        opened = cls(*(np.load(folder / file, mmap_mode="r", allow_pickle=False) for file in FILES))
        if opened.spans.shape != (len(opened.terms), 2) or len(opened.places) != len(opened.gains):
            raise ValueError("the postings do not fit each other")
        return opened

    def save(self, folder: Path) -> None:
        import numpy as np  # noqa: PLC0415  loaded when first needed

        for file, array in zip(FILES, (self.terms, self.spans, self.places, self.gains), strict=True):
            np.save(folder / file, array)

    def best(
        self, stems: Iterable[str], *, passages: int, readable: "Readable | None", limit: int
    ) -> list[Ranked]:
        """The best of `passages` by these stems, the best first; of those that are not `readable`, none."""
        import numpy as np  # noqa: PLC0415  loaded when first needed

        spans = self._spans(stems)
        choosing = _affordable([stop - start for start, stop in spans])
        scores = np.zeros(passages, dtype=np.float32)
        chosen: list[NDArray[np.int32]] = []
        for start, stop in spans[:choosing]:
            places = self.places[start:stop]
            before = scores[places]
            chosen.append(places[before == 0])  # each once
            scores[places] = before + self.gains[start:stop]
        if not chosen or not limit:
            return []
        found = np.concatenate(chosen)
        if readable is not None:
            found = found[readable(found)]
        if choosing < len(spans):
            found = np.sort(_top(found, scores[found], RESCORED))
            for start, stop in spans[choosing:]:
                self._add(scores, found, start, stop)
        best = _top(found, scores[found], limit)
        order = np.lexsort((best, -scores[best]))
        return [Ranked(int(place), float(scores[place])) for place in best[order]]

    def holders(self, stems: Sequence[str]) -> dict[str, int]:
        """How many passages hold each stem."""
        found: dict[str, int] = {}
        for stem in stems:
            spans = self._spans([stem])
            found[stem] = spans[0][1] - spans[0][0] if spans else 0
        return found

    def _spans(self, stems: Iterable[str]) -> list[tuple[int, int]]:
        """Where the postings of each known stem are, the rarest first."""
        import numpy as np  # noqa: PLC0415  loaded when first needed

        wanted = np.array(sorted({hashed(stem.encode()) for stem in stems}), dtype=np.uint64)
        if not len(wanted) or not len(self.terms):
            return []
        at = np.minimum(np.searchsorted(self.terms, wanted), len(self.terms) - 1)
        known = self.spans[at[self.terms[at] == wanted]]
        return sorted(((start, stop) for start, stop in known.tolist()), key=lambda span: (span[1] - span[0], span[0]))

    def _add(self, scores: "NDArray[np.float32]", found: "NDArray[np.int32]", start: int, stop: int) -> None:
        """Add what one term adds to some passages, which are in order."""
        import numpy as np  # noqa: PLC0415  loaded when first needed

        places = self.places[start:stop]
        at = np.minimum(np.searchsorted(places, found), stop - start - 1)
        held = places[at] == found
        scores[found[held]] += self.gains[start:stop][at[held]]


def _affordable(postings: Sequence[int]) -> int:
    """How many terms, the rarest first, may choose candidates."""
    left = POSTINGS
    for count, of_term in enumerate(postings):
        left -= of_term
        if left < 0 and count >= LEAST_TERMS:
            return count
    return len(postings)


def _top(found: "NDArray[np.int32]", scores: "NDArray[np.float32]", limit: int) -> "NDArray[np.int32]":
    import numpy as np  # noqa: PLC0415  loaded when first needed

    if len(found) <= limit:
        return found
    return found[np.argpartition(scores, len(found) - limit)[-limit:]]


def hashed(term: bytes) -> int:
    """64 bits: two of a million terms share one once in 37 million libraries."""
    return int.from_bytes(blake2b(term, digest_size=8).digest(), "little")


def build(
    rows: Sequence[int], terms: Sequence[bytes], occurring: Sequence[int], occurrences: Occurrences
) -> Postings:
    """Postings of the passages with these numbers, in order.

    `terms` are in order, `occurring` says how often each occurs. Raises ValueError where occurrences do not fit them.
    """
    import numpy as np  # noqa: PLC0415  loaded when first needed

    numbers = np.asarray(rows, dtype=np.int64)
    lengths = np.zeros(len(numbers), dtype=np.int64)
    counts = np.zeros(len(terms), dtype=np.int64)
    places, weights = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.float16)]
    for first, last in _parts(occurring):
        passage, column = np.divmod(occurrences(terms[first], terms[last - 1]), len(WEIGHTS))
        term = np.repeat(np.arange(first, last), occurring[first:last])
        place = np.searchsorted(numbers, passage)
        if len(term) != len(passage) or not np.array_equal(numbers[np.minimum(place, len(numbers) - 1)], passage):
            raise ValueError("the words do not fit the passages")
        lengths += np.bincount(place, minlength=len(numbers))
        new = np.flatnonzero((np.diff(place, prepend=-1) != 0) | (np.diff(term, prepend=-1) != 0))
        counts[first:last] = np.bincount(term[new] - first, minlength=last - first)
        places.append(place[new].astype(np.int32))
        weights.append(np.add.reduceat(np.array(WEIGHTS, dtype=np.float32)[column], new).astype(np.float16))
    every = np.concatenate(places)
    places.clear()
    stops = np.cumsum(counts)
    spans = np.stack([stops - counts, stops], axis=1)
    hashes = np.array([hashed(term) for term in terms], dtype=np.uint64)
    order = np.argsort(hashes)
    return Postings(hashes[order], spans[order], every, _gains(every, np.concatenate(weights), counts, lengths))


def _gains(
    places: "NDArray[np.int32]",
    weights: "NDArray[np.float16]",
    counts: "NDArray[np.int64]",
    lengths: "NDArray[np.int64]",
) -> "NDArray[np.float16]":
    """What each posting adds to its passage's score; postings by term, `counts` of each."""
    import numpy as np  # noqa: PLC0415  loaded when first needed

    idf = np.maximum(LEAST, np.log((len(lengths) - counts + 0.5) / (counts + 0.5))).astype(np.float32)
    mean = max(1.0, float(lengths.mean())) if len(lengths) else 1.0
    damping = (K1 * (1 - B + B * lengths / mean)).astype(np.float32)
    gains = np.empty(len(places), dtype=np.float16)
    start = 0
    for first, last in _parts(counts.tolist()):
        stop = start + int(counts[first:last].sum())
        weight = weights[start:stop].astype(np.float32)
        saturated = weight * (K1 + 1) / (weight + damping[places[start:stop]])
        gains[start:stop] = np.maximum(LEAST, np.repeat(idf[first:last], counts[first:last]) * saturated)
        start = stop
    return gains


def _parts(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of terms, from one to before another, of some `AT_ONCE` together."""
    first = total = 0
    for last, count in enumerate(counts, start=1):
        total += count
        if total >= AT_ONCE or last == len(counts):
            yield first, last
            first, total = last, 0
