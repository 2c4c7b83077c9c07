"""Finds the passages nearest to a question: FAISS over the library's vectors, in snapshots that are swapped whole.

A snapshot is a folder that is never changed: the index and the words (`postings.py`), memory-mapped, so that all
processes of a machine share one copy; the number and the audience of each passage; what it is (`about.json`). The file
`CURRENT` names the one in force and is replaced in one step; who holds another keeps it until the next question. Up to
`FLAT_PASSAGES` every vector is compared; above, cells (IVF) are searched, as many as it takes to find `RECALL` of what
comparing all would find, measured on the library itself. What a caller may not read is not compared.
"""

import json
import os
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from conclave.retrieval.api import Near
from conclave.retrieval.postings import FILES, Postings, Readable, Span, mapped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SNAPSHOTS: Final = "snapshots"
CURRENT: Final = "CURRENT"
VECTORS, ROWS, AUDIENCES, ABOUT = "vectors.faiss", "rows.npy", "audiences.npy", "about.json"
FLAT_PASSAGES: Final = 20_000  # comparing 100,000 took 9.5 ms on a busy core: 20,000 are 2 ms
RECALL: Final = 0.97  # at 10, on the probes: .95 is promised
NEIGHBOURS: Final = 10
CELLS_PER_ROOT: Final = 4  # cells = 4 * sqrt(passages), as FAISS's guidelines have it
TRAINED_ON: Final = 40  # passages for each cell
ADDED_EACH: Final = 20_000  # vectors at a time, in fp32
MASKS: Final = 64  # audiences' bitmaps kept: 125 KB each at a million passages
TRIES: Final = 5  # a snapshot may be replaced while it is opened
Progress = Callable[[int], None]


class SnapshotError(Exception):
    """A snapshot cannot be used."""


@dataclass(frozen=True, slots=True)
class About:
    """What a snapshot is. `recall` at 10, on `probes` questions; `cells` 0: all vectors are compared."""

    version: int
    passages: int
    dimensions: int
    cells: int
    looked_in: int
    recall: float
    probes: int
    files: dict[str, str]  # their SHA-256


@dataclass(slots=True)
class Snapshot:
    """One snapshot, open. A `Nearest` (api.py); any thread may ask."""

    about: About
    rows: "NDArray[np.int64]"
    audiences: "NDArray[np.int32]"
    words: Postings | None  # of snapshots that were made before words were in them
    _index: Any
    _masks: "OrderedDict[frozenset[int], tuple[Any, int]]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a snapshot. Raises FileNotFoundError, SnapshotError."""
        import faiss  # noqa: PLC0415  60 MB of libraries

        try:
            about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
            rows, audiences = mapped(folder / ROWS), mapped(folder / AUDIENCES)
            if not (folder / VECTORS).is_file():
                raise FileNotFoundError(folder / VECTORS)
            words = Postings.open(folder) if FILES[0] in about.files else None
            index = faiss.read_index(str(folder / VECTORS), faiss.IO_FLAG_MMAP_IFC)
        except (msgspec.MsgspecError, ValueError, EOFError, RuntimeError) as error:
            raise SnapshotError(
                f"the snapshot {folder.name} is damaged: run `conclave knowledge verify --rebuild`"
            ) from error
        if not len(rows) == len(audiences) == index.ntotal == about.passages:
            raise SnapshotError(f"the snapshot {folder.name} is damaged: run `conclave knowledge verify --rebuild`")
        return cls(about, rows, audiences, words, index)

    def nearest(self, vector: "NDArray[np.float32]", *, audiences: frozenset[int] | None, limit: int) -> list[Near]:
        """The passages nearest to a vector among those of these audiences, the nearest first."""
        import faiss  # noqa: PLC0415  60 MB of libraries

        faiss.omp_set_num_threads(1)  # of this thread: one question is one core's work
        selector, allowed = (None, len(self.rows)) if audiences is None else self._mask(audiences)
        limit = min(limit, allowed)
        if not limit:
            return []
        cells = self.about.cells
        if not cells:
            return self._asked(vector, limit, faiss.SearchParameters(sel=selector))
        share = allowed / len(self.rows)
        looked_in = min(cells, round(self.about.looked_in / share))
        found = self._asked(vector, limit, faiss.SearchParametersIVF(sel=selector, nprobe=looked_in))
        if len(found) < limit and looked_in < cells:  # what may be read lies elsewhere
            found = self._asked(vector, limit, faiss.SearchParametersIVF(sel=selector, nprobe=cells))
        return found

    def by_words(
        self, spans: Iterable[Span], *, audiences: frozenset[int] | None, but: Collection[int], limit: int
    ) -> list[tuple[int, float]]:
        """The best passages by BM25 among those of these audiences, without some that changed: numbers and scores."""
        if self.words is None:
            return []
        found = self.words.best(spans, passages=len(self.rows), readable=self._filter(audiences, but), limit=limit)
        rows = self.rows[[one.place for one in found]].tolist()
        return [(row, one.score) for row, one in zip(rows, found, strict=True)]

    def _filter(self, audiences: frozenset[int] | None, but: Collection[int]) -> "Readable | None":
        """Which of some places may be ranked."""
        import numpy as np  # noqa: PLC0415  loaded when first needed

        if audiences is None and not but:
            return None
        gone = np.zeros(len(self.rows), dtype=np.bool_)
        if but:
            changed = np.fromiter(but, dtype=np.int64, count=len(but))
            at = np.minimum(np.searchsorted(self.rows, changed), len(self.rows) - 1)
            gone[at[self.rows[at] == changed]] = True
        if audiences is None:
            return lambda places: ~gone[places]
        allowed = np.zeros(max(audiences, default=0) + 2, dtype=np.bool_)  # the last one: any that is not asked for
        allowed[list(audiences)] = True
        return lambda places: allowed[np.minimum(self.audiences[places], len(allowed) - 1)] & ~gone[places]

    def _asked(self, vector: "NDArray[np.float32]", limit: int, parameters: Any) -> list[Near]:
        similarities, places = self._index.search(vector.reshape(1, -1), limit, params=parameters)
        found = places[0] >= 0
        rows = self.rows[places[0][found]].tolist()
        return [Near(row, similarity) for row, similarity in zip(rows, similarities[0][found].tolist(), strict=True)]

    def _mask(self, audiences: frozenset[int]) -> tuple[Any, int]:
        """FAISS's selector of these audiences' passages, and how many they are."""
        import faiss  # noqa: PLC0415  60 MB of libraries
        import numpy as np  # noqa: PLC0415

        with self._lock:
            found = self._masks.get(audiences)
            if found is not None:
                self._masks.move_to_end(audiences)
                return found
        chosen = np.isin(self.audiences, np.fromiter(audiences, dtype=np.int32, count=len(audiences)))
        made = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little")), int(chosen.sum())
        with self._lock:
            self._masks[audiences] = made
            if len(self._masks) > MASKS:
                self._masks.popitem(last=False)
        return made


@dataclass(slots=True)
class Snapshots:
    """The snapshots of a library's folder, and the one in force."""

    folder: Path
    _held: tuple[tuple[int, int], Snapshot] | None = None  # replaced whole, so that it is read without a lock
    _opening: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> Snapshot | None:
        """The one in force, opened if it is another than last time; None if there is none. Raises SnapshotError.

        While a thread opens one, the others go on with the one before it.
        """
        for _ in range(TRIES):
            try:
                status = os.stat(f"{self.folder}/{SNAPSHOTS}/{CURRENT}")
                mark, held = (status.st_mtime_ns, status.st_ino), self._held
                if held is not None and held[0] == mark:
                    return held[1]
                if not self._opening.acquire(blocking=held is None):
                    return held[1] if held else None
                try:
                    if self._held is None or self._held[0] != mark:
                        name = (self.folder / SNAPSHOTS / CURRENT).read_text().strip()
                        self._held = mark, Snapshot.open(self.folder / SNAPSHOTS / Path(name).name)
                    return self._held[1]
                finally:
                    self._opening.release()
            except FileNotFoundError:
                if not (self.folder / SNAPSHOTS / CURRENT).is_file():
                    return None
        raise SnapshotError("the snapshot in force is not there: run `conclave knowledge verify --rebuild`")

    def damage(self) -> list[str]:
        """What is wrong with the files of the snapshot in force."""
        try:
            snapshot = self.current()
            if snapshot is None:
                return ["no snapshot was made"]
            name = (self.folder / SNAPSHOTS / CURRENT).read_text().strip()
            folder = self.folder / SNAPSHOTS / Path(name).name
            return [
                f"{file} of the snapshot was changed"
                for file, digest in snapshot.about.files.items()
                if _digest(folder / file) != digest
            ]
        except (SnapshotError, OSError) as error:
            return [str(error)]

    def write(self, made: "Made", words: Postings | None = None) -> About:
        """Put a snapshot in force, and remove all others. One process at a time."""
        import faiss  # noqa: PLC0415  60 MB of libraries
        import numpy as np  # noqa: PLC0415

        place = self.folder / SNAPSHOTS
        name = f"{made.version}-{secrets.token_hex(4)}"
        folder = place / name
        folder.mkdir(parents=True, mode=0o700)
        try:
            faiss.write_index(made.index, str(folder / VECTORS))
            np.save(folder / ROWS, made.rows)
            np.save(folder / AUDIENCES, made.audiences)
            if words is not None:
                words.save(folder)
            files = (VECTORS, ROWS, AUDIENCES, *(FILES if words is not None else ()))
            about = About(
                made.version, len(made.rows), made.index.d, made.cells, made.looked_in, made.recall, made.probes,
                {file: _digest(folder / file) for file in files},
            )  # fmt: skip
            (folder / ABOUT).write_text(json.dumps(asdict(about), indent=1))
            for file in (*files, ABOUT):
                _synced(folder / file)
            fresh = place / f"{CURRENT}.new"
            fresh.write_text(name)
            _synced(fresh)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        fresh.replace(place / CURRENT)
        _synced(place)
        for other in place.iterdir():
            if other.is_dir() and other.name != name:
                shutil.rmtree(other, ignore_errors=True)
        return about


@dataclass(frozen=True, slots=True)
class Made:
    """An index that was built, not yet written."""

    index: Any
    rows: "NDArray[np.int64]"
    audiences: "NDArray[np.int32]"
    version: int
    cells: int
    looked_in: int
    recall: float
    probes: int


def build(
    vectors: "NDArray[np.float16]",
    rows: Sequence[tuple[int, int]],
    *,
    version: int,
    probes: "NDArray[np.float32]",
    progress: Progress = lambda _: None,
) -> Made:
    """An index of these vectors, [passages, dimensions]; `rows` are their numbers and audiences, `probes` questions."""
    import faiss  # noqa: PLC0415  60 MB of libraries
    import numpy as np  # noqa: PLC0415

    count, dimensions = vectors.shape
    half, product = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    flat = faiss.IndexScalarQuantizer(dimensions, half, product)
    flat.train(np.zeros((1, dimensions), dtype=np.float32))  # fp16 has nothing to learn
    cells = 0 if count <= FLAT_PASSAGES else int(CELLS_PER_ROOT * count**0.5)
    index: Any = flat
    if cells:
        index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(dimensions), dimensions, cells, half, product, False)
        sample = np.random.default_rng(0).choice(count, min(count, cells * TRAINED_ON), replace=False)
        index.train(vectors[np.sort(sample)].astype(np.float32))
    for start in range(0, count, ADDED_EACH):
        index.add(vectors[start : start + ADDED_EACH].astype(np.float32))
        progress(min(ADDED_EACH, count - start))
    looked_in, recall = _tuned(index, probes) if cells else (0, 1.0)
    numbers = np.array([row for row, _ in rows], dtype=np.int64)
    audiences = np.array([audience for _, audience in rows], dtype=np.int32)
    return Made(index, numbers, audiences, version, cells, looked_in, recall, len(probes) if cells else 0)


def _tuned(index: Any, probes: "NDArray[np.float32]") -> tuple[int, float]:
    """In how many cells to look: as few as find `RECALL` of what all would find; and what they find."""
    import numpy as np  # noqa: PLC0415

    def looked(cells: int) -> "NDArray[np.int64]":
        index.nprobe = cells
        places: NDArray[np.int64] = index.search(probes, NEIGHBOURS)[1]
        return places

    def recall(cells: int) -> float:
        pairs = zip(looked(cells), exact, strict=True)
        return float(np.mean([len(set(one.tolist()) & set(all_.tolist())) / NEIGHBOURS for one, all_ in pairs]))

    exact = looked(index.nlist)
    low, high = 0, 1
    while high < index.nlist and recall(high) < RECALL:
        low, high = high, min(index.nlist, high * 2)
    while high - low > max(1, high // 8):
        middle = (low + high) // 2
        low, high = (low, middle) if recall(middle) >= RECALL else (middle, high)
    return high, recall(high)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        found = sha256()
        while block := opened.read(2**20):
            found.update(block)
    return found.hexdigest()


def _synced(file: Path) -> None:
    """Wait until the disk has it."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
