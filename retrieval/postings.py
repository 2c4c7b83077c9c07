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
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILES: Final = ("terms.npy", "spans.npy", "places.npy", "gains.npy")
WEIGHTS: Final = (3.0, 1.5, 1.0)  # of a word in the last heading, in those above it, in the text
K1: Final = 1.2
B: Final = 0.75
LEAST: Final = 1e-6  # what a term adds at least: one in most passages tells nothing, and is found all the same
POSTINGS: Final = 50_000  # that choose candidates, the rarest terms' first: at a million passages 1.4 ms of CPU, and
# 997 of 1,000 among the ten best are those that all postings would choose (20,000: 1.1 ms and 953; all: 2.3 ms)
LEAST_TERMS: Final = 2  # choose candidates, however common
RESCORED: Final = 1_000  # candidates that the terms beyond `POSTINGS` are looked up for
AT_ONCE: Final = 2_000_000  # occurrences, while building: 20 MB of text
Readable: TypeAlias = "Callable[[NDArray[np.int32]], NDArray[np.bool_]]"  # of some places: which may be ranked
# From one term to another, both included: each occurrence as its passage's number * 3 + its column (as in `WEIGHTS`),
# by term, then by passage.
Occurrences: TypeAlias = "Callable[[bytes, bytes], NDArray[np.int64]]"


@dataclass(frozen=True, slots=True)
class Span:
    """The postings of one term: from where to before where."""

    start: int
    stop: int

    @property
    def passages(self) -> int:
        return self.stop - self.start


NOWHERE: Final = Span(0, 0)


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
    places_of: "NDArray[np.int64]"
    places: "NDArray[np.int32]"
    gains: "NDArray[np.float16]"

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map them. Raises FileNotFoundError, ValueError, EOFError."""
        opened = cls(*(mapped(folder / file) for file in FILES))
        if opened.places_of.shape != (len(opened.terms), 2) or len(opened.places) != len(opened.gains):
            raise ValueError("the postings do not fit each other")
        return opened

    def save(self, folder: Path) -> None:
        import numpy as np  # noqa: PLC0415  loaded when first needed

        arrays: list[NDArray[Any]] = [self.terms, self.places_of, self.places, self.gains]
        for file, array in zip(FILES, arrays, strict=True):
            np.save(folder / file, array)

    def spans(self, stems: Iterable[str]) -> dict[str, Span]:
        """Where the postings of each stem are, the rarest first; of one that no passage holds, nowhere."""
        import numpy as np  # noqa: PLC0415  loaded when first needed

        names = list(dict.fromkeys(stems))
        if not names or not len(self.terms):
            return dict.fromkeys(names, NOWHERE)
        wanted = np.array([hashed(name.encode()) for name in names], dtype=np.uint64)
        at = np.minimum(np.searchsorted(self.terms, wanted), len(self.terms) - 1)
        held = (self.terms[at] == wanted).tolist()
        where = zip(names, self.places_of[at].tolist(), held, strict=True)
        found = ((name, Span(start, stop) if is_held else NOWHERE) for name, (start, stop), is_held in where)
        return dict(sorted(found, key=lambda one: (one[1].passages, one[1].start)))

    def best(
        self,
        spans: Iterable[Span],
        *,
        passages: int,
        readable: "Readable | None",
        limit: int,
        postings: int = POSTINGS,
    ) -> list[Ranked]:
        """The best of `passages` by these terms, the rarest first; of those that are not `readable`, none."""
        import numpy as np  # noqa: PLC0415  loaded when first needed

        held = [span for span in spans if span.passages]
        choosing = _affordable([span.passages for span in held], postings)
        scores = np.zeros(passages, dtype=np.float32)
        chosen: list[NDArray[np.int32]] = []
        for span in held[:choosing]:
            places = self.places[span.start : span.stop]
            before = scores[places]
            chosen.append(places[before == 0])  # each once
            scores[places] = before + self.gains[span.start : span.stop]
        if not chosen or not limit:
            return []
        found = np.concatenate(chosen)
        if readable is not None:
            found = found[readable(found)]
        if choosing < len(held):
            found = np.sort(_top(found, scores[found], RESCORED))
            for span in held[choosing:]:
                self._add(scores, found, span)
        best = _top(found, scores[found], limit)
        order = np.lexsort((best, -scores[best]))
        return [Ranked(int(place), float(scores[place])) for place in best[order]]

    def _add(self, scores: "NDArray[np.float32]", found: "NDArray[np.int32]", span: Span) -> None:
        """Add what one term adds to some passages, which are in order."""
        import numpy as np  # noqa: PLC0415  loaded when first needed

        places = self.places[span.start : span.stop]
        at = np.minimum(np.searchsorted(places, found), span.passages - 1)
        held = places[at] == found
        scores[found[held]] += self.gains[span.start : span.stop][at[held]]


def _affordable(passages: Sequence[int], postings: int) -> int:
    """How many terms, the rarest first, may choose candidates."""
    left = postings
    for count, of_term in enumerate(passages):
        left -= of_term
        if left < 0 and count >= LEAST_TERMS:
            return count
    return len(passages)


def _top(found: "NDArray[np.int32]", scores: "NDArray[np.float32]", limit: int) -> "NDArray[np.int32]":
    """The best so many, in no order; of those that are as good, the first places."""
    import numpy as np  # noqa: PLC0415  loaded when first needed

    if len(found) <= limit:
        return found
    last = np.partition(scores, len(found) - limit)[len(found) - limit]
    better, as_good = found[scores > last], found[scores == last]
    return np.concatenate([better, np.sort(as_good)[: limit - len(better)]])


def hashed(term: bytes) -> int:
    """64 bits: two of a million terms share one once in 37 million libraries."""
    return int.from_bytes(blake2b(term, digest_size=8).digest(), "little")


def mapped(file: Path) -> "NDArray[Any]":
    """An array in a file, mapped; a plain view, for numpy's own class of mapped arrays makes each slice dear."""
    import numpy as np  # noqa: PLC0415  loaded when first needed

    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def build(rows: Sequence[int], terms: Sequence[bytes], occurring: Sequence[int], occurrences: Occurrences) -> Postings:
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
