"""Puts files into a library: found, read in a bounded process, cut, encoded, and written one by one.

A file whose bytes are those of last time is not read again; a run that was cut off goes on where it was. What cannot be
read is named with its reason and left out, and what stood at its place stays as it was. A document keeps its tags until
others are given: nothing that is left out of a command opens it to more readers.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conclave.retrieval.api import Encode, Passage, Trust
from conclave.retrieval.cut import Cut, Limits
from conclave.retrieval.index import Snapshots, build
from conclave.retrieval.library import Document, Entry, Library
from conclave.retrieval.postings import build as postings
from conclave.retrieval.subjects import Suppression
from conclave.retrieval.worker import Bounds, WorkerFailed, Workers

if TYPE_CHECKING:
    from conclave.retrieval.index import About

MOST_BYTES: Final = 50_000_000  # of one file
TOKENS: Final = 300  # a screenful; three of them make an answer
OVERLAP: Final = 40  # a sentence or two
TOKEN_RANGE: Final = range(20, 2001)
LIMIT_S: Final = 60.0  # for one file
BOUNDS: Final = Bounds(memory_bytes=2 * 2**30, cpu_s=45)
CUTTER: Final = "1"  # a document that another version cut is cut again
JOB: Final = "conclave.retrieval.cut:cut"
PROBES: Final = 256  # questions that the recall of an index is measured with
PROBE_WORDS: Final = 12
FAILURES: Final = {
    "died": f"reading it crashed, or took more than {BOUNDS.cpu_s} s of processor time",
    "late": f"reading it took more than {LIMIT_S:.0f} s",
    "memory": f"reading it takes more than {BOUNDS.memory_bytes // 2**20} MiB of memory",
    "broke": "it cannot be read",
}
Report = Callable[["Step"], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How files are added. `acl`, `trust` None: a known document keeps its own; a new one has no tags, normal trust."""

    collection: str = "default"
    acl: tuple[str, ...] | None = None
    trust: Trust | None = None
    tokens: int = TOKENS
    overlap: int = OVERLAP
    most_bytes: int = MOST_BYTES
    prune: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """One file is done, of so many."""

    source: str
    files: int


@dataclass(slots=True)
class Run:
    """What a run did: documents by what became of them, and passages written."""

    batch: str
    new: int = 0
    changed: int = 0
    relabelled: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    suppressed: int = 0
    unseen: int = 0
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be added: where it is, within what folder it must be, what it is called."""

    path: Path
    root: Path
    source: str


class LeftOut(Exception):
    """A file is not added; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Ingest:
    """Adds files to a library. Whoever calls it holds the pen."""

    library: Library
    encode: Encode
    workers: Workers
    now: Callable[[], datetime]

    def add(self, paths: Sequence[Path], options: Options, *, batch: str, report: Report = lambda _: None) -> Run:
        """Add files and folders; `report` hears of each file. Raises LibraryError."""
        run = Run(batch)
        candidates = list(self._candidates(paths, run))
        suppression = Suppression.of(self.library)
        for candidate in candidates:
            try:
                self._take(candidate, options, run, suppression)
            except LeftOut as reason:
                run.skipped.append(Skipped(str(candidate.path), str(reason)))
            report(Step(candidate.source, len(candidates)))
        if options.prune:
            self._prune(paths, options.collection, run)
        return run

    def _take(self, candidate: Candidate, options: Options, run: Run, suppression: Suppression) -> None:
        data = read(candidate, options.most_bytes)
        path = str(candidate.path)
        known = self.library.document(options.collection, path)
        made = f"{CUTTER}/{options.tokens}/{options.overlap}"
        digest = hashlib.sha256(data).hexdigest()
        acl = options.acl if options.acl is not None else known.acl if known else ()
        trust = options.trust if options.trust is not None else known.trust if known else Trust.NORMAL
        if known and (known.hash, known.cut) == (digest, made):
            self._relabel(known, acl, trust, candidate.source, run)
            return
        found = self._cut(data, candidate.source, options)
        passages = [one for one in map(_clean, found.passages) if not suppression.holds(f"{one.heading}\n{one.text}")]
        vectors = self.encode([f"{one.heading}\n{one.text}" for one in passages])
        entry = Entry(
            options.collection, path, candidate.source, acl, digest, len(data), run.batch, made, trust,
            self.now().isoformat(timespec="seconds"), passages, vectors,
        )  # fmt: skip
        with self.library.writing():
            self.library.put(entry)
        run.new, run.changed = run.new + (known is None), run.changed + (known is not None)
        run.passages += len(passages)
        run.suppressed += len(found.passages) - len(passages)
        run.unseen += found.unseen

    def _relabel(self, known: Document, acl: tuple[str, ...], trust: Trust, source: str, run: Run) -> None:
        if (known.acl, known.trust, known.source) == (acl, trust, source):
            run.unchanged += 1
            return
        with self.library.writing():
            self.library.relabel(known, acl=acl, trust=trust, source=source)
        run.relabelled += 1

    def _cut(self, data: bytes, source: str, options: Options) -> Cut:
        wanted = {"source": source, "tokens": options.tokens, "overlap": options.overlap, "limits": asdict(Limits())}
        try:
            return self.workers.run(JOB, data, wanted, returns=Cut, limit_s=LIMIT_S)
        except WorkerFailed as error:
            raise LeftOut(error.message if error.failure == "refused" else FAILURES[error.failure]) from error

    def _candidates(self, paths: Sequence[Path], run: Run) -> Iterator[Candidate]:
        seen: set[Path] = set()
        for path in paths:
            root = Path(os.path.abspath(path))  # a link stays the link that was named
            if root.is_dir():
                found = files_under(root, run.skipped, leave_out=self.library.folder.resolve())
            else:
                found = iter([Candidate(root, root.resolve().parent, root.name)])
            for candidate in found:
                if candidate.path not in seen:
                    seen.add(candidate.path)
                    yield candidate

    def _prune(self, paths: Sequence[Path], collection: str, run: Run) -> None:
        """Take out what was added from these folders and is no longer there."""
        roots = [Path(os.path.abspath(path)) for path in paths]
        gone = [
            one.id
            for one in self.library.documents(collection)
            if any(Path(one.path).is_relative_to(root) for root in roots) and not os.path.lexists(one.path)
        ]
        if gone:
            with self.library.writing():
                self.library.drop_documents(gone)
        run.removed += len(gone)


def files_under(root: Path, skipped: list[Skipped], *, leave_out: Path) -> Iterator[Candidate]:
    """Every file under a folder in a fixed order; hidden folders and files, and the library itself, are passed over."""

    def unread(error: OSError) -> None:
        skipped.append(Skipped(str(error.filename), f"the folder cannot be read: {error.strerror}"))

    inside = root.resolve()
    for folder, folders, names in os.walk(root, onerror=unread):
        here = Path(folder)
        for name in list(folders):
            if name.startswith(".") or (here / name).resolve() == leave_out:
                folders.remove(name)
            elif (here / name).is_symlink():
                folders.remove(name)
                skipped.append(Skipped(str(here / name), "a link to a folder: name that folder itself"))
        folders.sort()
        for name in sorted(names):
            if not name.startswith("."):
                yield Candidate(here / name, inside, f"{root.name}/{(here / name).relative_to(root).as_posix()}")


def read(candidate: Candidate, most_bytes: int) -> bytes:
    """The bytes of a file. Raises LeftOut."""
    if not str(candidate.path).isprintable():
        raise LeftOut("its name does not print")
    target = Path(os.path.realpath(candidate.path))
    if not target.is_relative_to(candidate.root):
        raise LeftOut("a link out of the folder")
    try:
        handle = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)  # a pipe would wait
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise LeftOut("not a file")
            if status.st_size > most_bytes:
                raise LeftOut(f"larger than {most_bytes / 1e6:g} MB (--max-mb)")
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise LeftOut(
            "a link that leads nowhere" if candidate.path.is_symlink() else error.strerror or "not readable"
        ) from error
    if not data:
        raise LeftOut("it is empty")
    if len(data) > most_bytes:
        raise LeftOut(f"larger than {most_bytes / 1e6:g} MB (--max-mb)")
    return data


def freshen(
    library: Library, snapshots: Snapshots, encode: Encode, *, progress: Callable[[int], None] = lambda _: None
) -> "About":
    """The snapshot in force, built if it is not of the library as it is now. Whoever calls it holds the pen."""
    current = snapshots.current()
    if current is not None and current.words is not None and current.about.version == library.version():
        return current.about
    with library.writing():
        library.words.count_common()
        library.forget_changes(current.about.version if current is not None else library.version())
    rows = library.rows()
    dimensions = encode([""]).shape[1]
    vectors = library.vectors([row for row, _ in rows], dimensions)
    made = build(vectors, rows, version=library.version(), probes=encode(_probes(library, rows)), progress=progress)
    del vectors
    words = postings([row for row, _ in rows], *library.words.vocabulary(), library.words.occurrences)
    return snapshots.write(made, words)


def _probes(library: Library, rows: Sequence[tuple[int, int]]) -> list[str]:
    """Questions to measure an index with: a few words from inside passages all over the library."""
    every = max(1, len(rows) // PROBES)
    chosen = [row for row, _ in rows[::every]][:PROBES]
    texts = [kept.passage.text.split() for kept in library.fetch(chosen).values()]
    return [" ".join(words[len(words) // 3 : len(words) // 3 + PROBE_WORDS]) for words in texts]


def _clean(passage: Passage) -> Passage:
    """As SQLite can keep it: a file's own bytes may say NUL, its text may not."""
    return replace(passage, text=passage.text.replace("\0", " ")) if "\0" in passage.text else passage
