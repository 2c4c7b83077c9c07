"""The table of policy versions: every document that was ever in force, who brought it, and which one is the newest.

The newest version is the one in force, in every replica of this database: the last one wins. Versions are added, never
changed. It blocks; nothing here is called on the way of a call. Importing this module imports SQLAlchemy.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, get_args

from sqlalchemy import Connection, func, insert, or_, select, update

from conclave.gateway.policy.canonical import UnreadableError, canonical, digest_of, digest_of_bytes, document_of
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.state.sql import Database, note_change
from conclave.gateway.state.tables import policy_versions

TOPIC: Final = "policy"
Origin: TypeAlias = Literal["file", "rollback", "publish"]
ORIGINS: Final = get_args(Origin)


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One row. `document` is canonical JSON, `digest` its SHA-256, `source` the file or the version that it came from.

    `time` is ISO 8601 in UTC; `author` is None where a file changed.
    """

    number: int
    digest: str
    document: str
    origin: str
    source: str
    author: str | None
    time: str

    def read(self) -> PolicyDocument:
        """The document. Raises UnreadableError, also if the row is not what was stored."""
        if digest_of_bytes(self.document.encode()) != self.digest:
            raise UnreadableError("does not match its digest: somebody changed the table")
        return document_of(self.document)


class PolicyStore:
    """The versions in the state database. Writers wait for each other, so numbers have no gap and no double."""

    def __init__(self, database: Database, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._now = now

    def newest_but(self, known: StoredVersion) -> StoredVersion | None:
        """The newest version, if there is one and it is another than this. Cheap, to ask every few seconds."""
        at = policy_versions.c
        with self._database.read() as connection:
            newest = connection.execute(select(at.number, at.digest).order_by(at.number.desc()).limit(1)).first()
        if newest is None or (newest.number, newest.digest) == (known.number, known.digest):
            return None
        return self.newest()

    def newest(self) -> StoredVersion | None:
        with self._database.read() as connection:
            return _newest(connection)[0]

    def get(self, number: int) -> StoredVersion | None:
        with self._database.read() as connection:
            row = connection.execute(select(policy_versions).where(policy_versions.c.number == number)).first()
            return None if row is None else _stored(row)

    def with_digest(self, digest: str) -> StoredVersion | None:
        """The newest version whose document has this digest, as rows of the record name it."""
        at = policy_versions.c
        with self._database.read() as connection:
            newest_first = select(policy_versions).where(at.digest == digest).order_by(at.number.desc()).limit(1)
            row = connection.execute(newest_first).first()
            return None if row is None else _stored(row)

    def last(self, limit: int) -> list[StoredVersion]:
        """The newest so many, oldest first."""
        with self._database.read() as connection:
            newest_first = select(policy_versions).order_by(policy_versions.c.number.desc()).limit(limit)
            return [_stored(row) for row in connection.execute(newest_first)][::-1]

    def add(self, document: PolicyDocument, *, origin: Origin, source: str, author: str | None) -> StoredVersion:
        """The document as the newest version; if it is the newest already, that one."""
        with self._writing() as connection:
            newest, _ = _newest(connection)
            if newest is not None and newest.digest == digest_of(document):
                return newest
            return self._insert(connection, document, newest, _About(origin, source, author))

    def hear_file(self, document: PolicyDocument, *, source: str) -> StoredVersion:
        """The version in force, now that a file says this: what it said last is not said again.

        So a rollback stays in force until the file says something else, and replicas that see the same change of a
        shared file at different times make one version of it.
        """
        digest = digest_of(document)
        with self._writing() as connection:
            newest, filed = _newest(connection)
            if newest is not None and newest.digest == digest:
                statement = update(policy_versions).where(policy_versions.c.number == newest.number)
                connection.execute(statement.values(filed=1))
                return newest
            if newest is not None and filed is not None and digest in {filed.digest, _digest_now(filed)}:
                return newest
            return self._insert(connection, document, newest, _About("file", source, None))

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that no other writer of versions is in: SQLite has one writer, PostgreSQL queues at a row."""
        with self._database.write() as connection:
            if not self._database.is_sqlite:
                note_change(connection, TOPIC)
            yield connection

    def _insert(
        self, connection: Connection, document: PolicyDocument, newest: StoredVersion | None, about: "_About"
    ) -> StoredVersion:
        raw = canonical(document)
        version = StoredVersion(
            number=newest.number + 1 if newest is not None else 1,
            digest=digest_of_bytes(raw),
            document=raw.decode(),
            origin=about.origin,
            source=about.source,
            author=about.author,
            time=self._now().astimezone(UTC).isoformat(timespec="seconds"),
        )
        row = {name: getattr(version, name) for name in StoredVersion.__slots__}
        connection.execute(insert(policy_versions).values(**row, filed=1 if about.origin == "file" else None))
        return version


@dataclass(frozen=True, slots=True)
class _About:
    origin: Origin
    source: str
    author: str | None


def _newest(connection: Connection) -> tuple[StoredVersion | None, StoredVersion | None]:
    """The newest of all, and the newest of those that a file said; in one statement, because each one costs a thread
    the interpreter's lock, which it must win back from a busy event loop.
    """
    at = policy_versions.c
    newest = select(func.max(at.number)).scalar_subquery()
    newest_filed = select(func.max(at.number)).where(at.filed == 1).scalar_subquery()
    found = connection.execute(
        select(policy_versions).where(or_(at.number == newest, at.number == newest_filed)).order_by(at.number.desc())
    ).all()
    filed = next((row for row in found if row.filed == 1), None)
    return _stored(found[0]) if found else None, _stored(filed) if filed is not None else None


def _digest_now(version: StoredVersion) -> str | None:
    """The digest that this Conclave gives it: a newer one writes out more of what goes without saying."""
    try:
        return digest_of(complete(version.read(), {}))
    except UnreadableError:
        return None


def _stored(row: Any) -> StoredVersion:
    return StoredVersion(**{name: getattr(row, name) for name in StoredVersion.__slots__})
