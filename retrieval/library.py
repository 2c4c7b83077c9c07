"""The library of knowledge: documents, their passages, who may read them, their words and vectors, in one SQLite file.

A document is written in one transaction, with all that belongs to it, so whoever is killed leaves nothing half written.
One process writes at a time (`pen`); any number read while it does. Words (`words.py`) and vectors are kept here for
the snapshots (`index.py`), which make them quick to find; what changed since a snapshot was made is remembered.
"""

import fcntl
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from conclave.retrieval.acl import Audience
from conclave.retrieval.api import HEADING_SEPARATOR, Passage, Trust
from conclave.retrieval.stems import Stems
from conclave.retrieval.words import Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE: Final = "knowledge.db"
LOCK: Final = "lock"
SCHEMA_VERSION: Final = 2
CACHE: Final = "cache_size = -16000"  # 16 MB: of its own 2 MB hardly a passage is left when the next question comes
WAIT_MS: Final = 10_000  # for another writer's transaction: one document
ROWS_EACH: Final = 400  # in one statement
SCHEMA: Final = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE audiences (
    id INTEGER PRIMARY KEY, collection TEXT NOT NULL, tags TEXT NOT NULL, UNIQUE (collection, tags));
CREATE TABLE documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, collection TEXT NOT NULL, path TEXT NOT NULL, source TEXT NOT NULL,
    audience INTEGER NOT NULL REFERENCES audiences, hash TEXT NOT NULL, bytes INTEGER NOT NULL,
    batch TEXT NOT NULL, cut TEXT NOT NULL, trust INTEGER NOT NULL, added TEXT NOT NULL, UNIQUE (collection, path));
CREATE TABLE passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE, audience INTEGER NOT NULL,
    start INTEGER NOT NULL, stop INTEGER NOT NULL, page INTEGER NOT NULL);
CREATE INDEX passages_of ON passages (document);
CREATE INDEX passages_for ON passages (audience);
CREATE TABLE vectors (id INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE common (term TEXT PRIMARY KEY, passages INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE suppressed (hash BLOB PRIMARY KEY, words INTEGER NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5(title, path, text, tokenize = 'porter unicode61');
CREATE VIRTUAL TABLE counts USING fts5vocab(words, row);
"""
# Since version 2: how many passages an audience has, and which passages a snapshot no longer has as they are.
MORE: Final = "UPDATE audiences SET passages = passages + 1 WHERE id = NEW.audience;"
LESS: Final = "UPDATE audiences SET passages = passages - 1 WHERE id = OLD.audience;"
NOTED: Final = "INSERT OR REPLACE INTO changed SELECT OLD.id, value + 1 FROM facts WHERE name = 'version';"
CHANGES: Final = (
    "ALTER TABLE audiences ADD COLUMN passages INTEGER NOT NULL DEFAULT 0",
    "UPDATE audiences SET passages = (SELECT count(*) FROM passages p WHERE p.audience = audiences.id)",
    "CREATE TABLE changed (passage INTEGER PRIMARY KEY, version INTEGER NOT NULL)",
    f"CREATE TRIGGER passage_in AFTER INSERT ON passages BEGIN {MORE} END",
    f"CREATE TRIGGER passage_out AFTER DELETE ON passages BEGIN {LESS} {NOTED} END",
    f"CREATE TRIGGER passage_moved AFTER UPDATE OF audience ON passages BEGIN {LESS} {MORE} {NOTED} END",
)
FETCH: Final = """SELECT p.id, w.c2, d.source, w.c1, w.c0, p.start, p.stop, p.name, d.collection, d.batch,
    a.tags, d.trust, p.page, p.audience, v.vector
    FROM passages p JOIN documents d ON d.id = p.document JOIN audiences a ON a.id = p.audience
    JOIN words_content w ON w.id = p.id JOIN vectors v ON v.id = p.id WHERE p.id IN (SELECT value FROM json_each(?))"""
COUNTED: Final = "SELECT passages, (SELECT count(*) FROM passages p WHERE p.audience = a.id) FROM audiences a"
DOCUMENT: Final = """SELECT d.id, d.collection, d.path, d.source, a.tags, d.hash, d.bytes, d.batch, d.cut, d.trust,
    d.added, (SELECT count(*) FROM passages p WHERE p.document = d.id)
    FROM documents d JOIN audiences a ON a.id = d.audience"""


class LibraryError(Exception):
    """The library cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the library holds it. `path` is where it was read, `hash` the SHA-256 of its bytes,
    `cut` how it was made into passages."""

    id: int
    collection: str
    path: str
    source: str
    acl: tuple[str, ...]
    hash: str
    bytes: int
    batch: str
    cut: str
    trust: Trust
    added: str
    passages: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A document on its way in, with its passages and the vector of each."""

    collection: str
    path: str
    source: str
    acl: tuple[str, ...]
    hash: str
    bytes: int
    batch: str
    cut: str
    trust: Trust
    added: str
    passages: Sequence[Passage]
    vectors: "NDArray[np.float32]"


@dataclass(frozen=True, slots=True)
class Kept:
    """A passage as it is kept: its number, its audience, its vector."""

    row: int
    audience: int
    passage: Passage
    vector: "NDArray[np.float32]"


@dataclass(slots=True)
class Library:
    """An open library in a folder. Its methods may be called from any thread: they take turns."""

    folder: Path
    _database: sqlite3.Connection
    _stems: Stems
    _lock: threading.RLock = field(default_factory=threading.RLock)
    words: Words = field(init=False)
    _counted: tuple[int, list[Audience]] | None = None
    _changed: tuple[int, int, list[int]] | None = None

    def __post_init__(self) -> None:
        self.words = Words(self._run, self._stems)

    @classmethod
    def open(cls, folder: Path, *, make: bool = False) -> Self:
        """The library in a folder. Raises LibraryError if there is none and it is not to be made, or it is damaged."""
        file = folder / FILE
        if not make and not file.is_file():
            raise LibraryError(f"there is no library in {folder}: `conclave knowledge add PATH` makes one")
        try:
            if make:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            database = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=WAIT_MS / 1e3)
            try:
                _prepare(database)
            except BaseException:
                database.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise LibraryError(f"the library in {folder} cannot be opened: {error}") from error
        return cls(folder, database, Stems())

    def close(self) -> None:
        with self._lock:
            self._database.close()
            self._stems.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read inside is of one moment, whatever is written meanwhile."""
        with self._lock, self._transaction("BEGIN"):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All that is written inside is written, or nothing; the version goes up by one."""
        with self._lock, self._transaction("BEGIN IMMEDIATE"):
            yield
            self._run("UPDATE facts SET value = value + 1 WHERE name = 'version'")

    def version(self) -> int:
        """Goes up with each change: what was made of the library at another version is out of date."""
        return int(self._one("SELECT value FROM facts WHERE name = 'version'")[0])

    def fact(self, name: str) -> bytes | None:
        row = self._run("SELECT value FROM facts WHERE name = ?", name).fetchone()
        return None if row is None else bytes(row[0])

    def unnote(self, name: str) -> None:
        self._run("DELETE FROM facts WHERE name = ?", name)

    def note(self, name: str, value: bytes) -> None:
        self._run("INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", name, value)

    def audiences(self) -> list[Audience]:
        """Every group of passages; read once for a version."""
        version = self.version()
        if self._counted is None or self._counted[0] != version:
            self._counted = version, self._audiences()
        return self._counted[1]

    def _audiences(self) -> list[Audience]:
        rows = self._run("SELECT id, collection, tags, passages FROM audiences")
        return [Audience(row, collection, tuple(json.loads(tags)), count) for row, collection, tags, count in rows]

    def documents(self, collection: str | None = None) -> list[Document]:
        where, args = (" WHERE d.collection = ?", [collection]) if collection is not None else ("", [])
        return [_document(row) for row in self._run(f"{DOCUMENT}{where} ORDER BY d.collection, d.path", *args)]

    def document(self, collection: str, path: str) -> Document | None:
        row = self._run(f"{DOCUMENT} WHERE d.collection = ? AND d.path = ?", collection, path).fetchone()
        return None if row is None else _document(row)

    def put(self, entry: Entry) -> None:
        """Write a document in place of what stood at its path. To be called while `writing`."""
        old = self.document(entry.collection, entry.path)
        if old is not None:
            self.drop_documents([old.id])
        audience = self._audience(entry.collection, entry.acl)
        document = self._run(
            """INSERT INTO documents (collection, path, source, audience, hash, bytes, batch, cut, trust, added)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            *(entry.collection, entry.path, entry.source, audience, entry.hash, entry.bytes, entry.batch),
            *(entry.cut, int(entry.trust), entry.added),
        ).lastrowid
        for passage, vector in zip(entry.passages, entry.vectors, strict=True):
            row = self._run(
                "INSERT INTO passages (name, document, audience, start, stop, page) VALUES (?, ?, ?, ?, ?, ?)",
                *(passage_name(entry, passage), document, audience, passage.start, passage.end, passage.page),
            ).lastrowid
            path, _, title = passage.heading.rpartition(HEADING_SEPARATOR)
            self._run(
                "INSERT INTO words (rowid, title, path, text) VALUES (?, ?, ?, ?)", row, title, path, passage.text
            )
            self._run("INSERT INTO vectors VALUES (?, ?)", row, vector.astype("<f2").tobytes())

    def relabel(self, document: Document, *, acl: tuple[str, ...], trust: Trust, source: str) -> None:
        """Give a document other tags, trust or source, its passages with it. To be called while `writing`."""
        audience = self._audience(document.collection, acl)
        self._run(
            "UPDATE documents SET audience = ?, trust = ?, source = ? WHERE id = ?",
            *(audience, int(trust), source, document.id),
        )
        self._run("UPDATE passages SET audience = ? WHERE document = ?", audience, document.id)

    def drop_documents(self, documents: Collection[int]) -> list[int]:
        """Take documents out with all that belongs to them; the numbers of their passages. While `writing`."""
        rows = []
        for document in documents:
            rows += [row for (row,) in self._run("SELECT id FROM passages WHERE document = ?", document)]
        self.drop_passages(rows)
        for document in documents:
            self._run("DELETE FROM documents WHERE id = ?", document)
        return rows

    def drop_passages(self, rows: Iterable[int]) -> None:
        """Take passages out, but not their documents. To be called while `writing`."""
        for row in rows:
            self._run("DELETE FROM words WHERE rowid = ?", row)
            self._run("DELETE FROM vectors WHERE id = ?", row)
            self._run("DELETE FROM passages WHERE id = ?", row)

    def fetch(
        self,
        rows: Collection[int],
        *,
        audiences: frozenset[int] | None = None,
        scores: Mapping[int, float] = MappingProxyType({}),
    ) -> dict[int, Kept]:
        """Passages by number; those that may not be read, or are no longer there, are left out."""
        import numpy as np  # noqa: PLC0415

        found: dict[int, Kept] = {}
        for row in self._run(FETCH, json.dumps(list(rows))):
            number, text, source, path, title, start, end, name, collection, batch, tags, trust, page, who, blob = row
            if audiences is None or who in audiences:
                heading = f"{path}{HEADING_SEPARATOR}{title}" if path else title
                acl = tuple(json.loads(tags))
                passage = Passage(
                    text,
                    source,
                    heading,
                    start,
                    end,
                    scores.get(number, 0.0),
                    name,
                    collection,
                    batch,
                    acl,
                    Trust(trust),
                    page,
                )
                found[number] = Kept(number, who, passage, np.frombuffer(blob, dtype="<f2").astype(np.float32))
        return found

    def rows(self) -> list[tuple[int, int]]:
        """Every passage's number and audience, in order."""
        return self._run("SELECT id, audience FROM passages ORDER BY id").fetchall()

    def vectors(self, rows: Sequence[int], dimensions: int) -> "NDArray[np.float16]":
        """Vectors by number, [rows, dimensions] fp16, in the order asked for."""
        import numpy as np  # noqa: PLC0415

        found = np.zeros((len(rows), dimensions), dtype="<f2")
        place = {row: at for at, row in enumerate(rows)}
        for start in range(0, len(rows), ROWS_EACH):
            ids = _listed(rows[start : start + ROWS_EACH])
            for row, blob in self._run(f"SELECT id, vector FROM vectors WHERE id IN ({ids})"):  # noqa: S608  numbers of our own
                found[place[row]] = np.frombuffer(blob, dtype="<f2")
        return found

    def passages_of(self, documents: Collection[int]) -> list[int]:
        return [
            row
            for one in documents
            for (row,) in self._run("SELECT id FROM passages WHERE document = ? ORDER BY id", one)
        ]

    def named(self, name: str) -> int | None:
        """The number of the passage with this id."""
        row = self._run("SELECT id FROM passages WHERE name = ?", name).fetchone()
        return None if row is None else int(row[0])

    def texts(self) -> Iterator[tuple[int, str]]:
        """Every passage's number, and its text with the headings above it."""
        return iter(self._run("SELECT rowid, path || char(10) || title || char(10) || text FROM words"))

    def batch(self, batch: str) -> list[int]:
        """The documents that a run added."""
        return [row for (row,) in self._run("SELECT id FROM documents WHERE batch = ?", batch)]

    def size(self) -> int:
        return int(self._one("SELECT count(*) FROM passages")[0])

    def last(self) -> int:
        """The number of the passage that was written last; 0 if there is none."""
        return int(self._one("SELECT coalesce(max(id), 0) FROM passages")[0])

    def changed(self, since: int) -> list[int]:
        """The passages that were taken out or given to others after this version; read once for a version."""
        now = self.version()
        if self._changed is None or self._changed[:2] != (now, since):
            rows = self._run("SELECT passage FROM changed WHERE version > ?", since)
            self._changed = now, since, [row for (row,) in rows]
        return self._changed[2]

    def forget_changes(self, until: int) -> None:
        """No snapshot of this version or an older one is asked any more. To be called while `writing`."""
        self._run("DELETE FROM changed WHERE version <= ?", until)

    def suppress(self, hash_: bytes, words: int) -> None:
        self._run("INSERT OR IGNORE INTO suppressed VALUES (?, ?)", hash_, words)

    def suppressed(self) -> Mapping[int, frozenset[bytes]]:
        """The hashes of what must not come back, by how many words it has."""
        found: dict[int, set[bytes]] = {}
        for hash_, words in self._run("SELECT hash, words FROM suppressed"):
            found.setdefault(words, set()).add(bytes(hash_))
        return {words: frozenset(hashes) for words, hashes in found.items()}

    def scrub(self) -> bool:
        """Leave nothing of what was deleted in the file: the word index is merged anew, the file written anew, its log
        emptied. False if a reader kept the log in use."""
        with self._lock:
            self._run("INSERT INTO words (words) VALUES ('optimize')")
            self._run("DELETE FROM audiences WHERE id NOT IN (SELECT audience FROM documents)")
            self._run("VACUUM")
            return int(self._one("PRAGMA wal_checkpoint(TRUNCATE)")[0]) == 0

    def damage(self) -> list[str]:
        """What is wrong with the file, and with how its tables fit each other; nothing, if it is whole."""
        wrong = [str(row[0]) for row in self._run("PRAGMA quick_check") if row[0] != "ok"]
        try:
            self._run("INSERT INTO words (words) VALUES ('integrity-check')")
        except sqlite3.DatabaseError:
            wrong.append("the index of words does not fit its passages")
        for table, column in (("words", "rowid"), ("vectors", "id")):
            here, there = (
                int(self._one(f"SELECT count(*) FROM {one} WHERE {key} NOT IN (SELECT {other} FROM {two})")[0])  # noqa: S608  names of our own
                for one, key, other, two in (("passages", "id", column, table), (table, column, "id", "passages"))
            )
            wrong += [f"{here} passages without {table}"] if here else []
            wrong += [f"{there} {table} without a passage"] if there else []
        if any(count != passages for count, passages in self._run(COUNTED)):
            wrong.append("the passages of an audience are not as many as was counted")
        return wrong

    def _audience(self, collection: str, acl: tuple[str, ...]) -> int:
        self._run("INSERT OR IGNORE INTO audiences (collection, tags) VALUES (?, ?)", collection, json.dumps(acl))
        found = self._one("SELECT id FROM audiences WHERE collection = ? AND tags = ?", collection, json.dumps(acl))
        return int(found[0])

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._database.execute(begin)
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _run(self, statement: str, *args: Any) -> sqlite3.Cursor:
        with self._lock:
            return self._database.execute(statement, args)

    def _one(self, statement: str, *args: Any) -> Any:
        return self._run(statement, *args).fetchone()


def _prepare(database: sqlite3.Connection) -> None:
    pragmas = ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "secure_delete = ON", CACHE)
    for pragma in pragmas:
        database.execute(f"PRAGMA {pragma}")
    found = int(database.execute("PRAGMA user_version").fetchone()[0])
    if found == SCHEMA_VERSION:
        return
    if found not in {0, 1}:
        raise LibraryError(f"the library is of version {found}, and this Conclave knows {SCHEMA_VERSION}")
    database.execute("BEGIN IMMEDIATE")
    found = int(database.execute("PRAGMA user_version").fetchone()[0])  # another may have been quicker
    if found == 0:
        for statement in SCHEMA.split(";\n"):
            database.execute(statement)
        database.execute("INSERT INTO facts VALUES ('version', 0), ('key', ?)", (os.urandom(32),))
    if found < SCHEMA_VERSION:
        for statement in CHANGES:
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.execute("COMMIT")


def passage_name(entry: Entry, passage: Passage) -> str:
    """A passage's id: the same text at the same place has the same."""
    said = f"{entry.collection}\0{entry.path}\0{passage.start}\0{passage.end}\0{passage.text}"
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _document(row: Sequence[Any]) -> Document:
    number, collection, path, source, tags, hash_, size, batch, cut, trust, added, passages = row
    acl = tuple(json.loads(tags))
    return Document(number, collection, path, source, acl, hash_, size, batch, cut, Trust(trust), added, passages)


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(str(int(number)) for number in numbers)


@contextmanager
def pen(folder: Path, *, make: bool = False) -> Iterator[None]:
    """The right to write in a library, for one process at a time. Raises LibraryError if another has it.

    The system takes it back from a process that was killed.
    """
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LibraryError(f"{folder} cannot be written to: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LibraryError(f"another command is changing the library in {folder}; try again when it is done") from error
    else:
        yield
    finally:
        os.close(lock)
