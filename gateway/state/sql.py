"""The state database: SQLite by default, PostgreSQL by URL. It opens, migrates and hands out transactions.

It knows tables, not what they mean: tenants, keys and audit rows belong to the rooms that write them. Everything here
blocks; nothing here is called on the way of a call. Importing this module imports SQLAlchemy, so the gateway imports it
only when it starts.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import Connection, Table, create_engine, event, inspect, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from conclave.gateway.state.tables import REVISION, changes, metadata

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

BUSY_TIMEOUT_MS: Final = 5_000  # how long a writer waits for another process's writer
WAL_RETRY_MS: Final = 20
STATEMENT_ROWS: Final = (128, 64, 32, 16, 8, 4, 2, 1)  # of an insert: drivers keep what they compiled, 0.5 MB for 128
CONNECT_S: Final = 5  # for the host to answer and PostgreSQL to let us in; libpq would wait for ever
UNHEARD_MS: Final = 10_000  # what was sent and nobody acknowledged in this time: the host is gone (Linux: 15 minutes)
MIGRATION_LOCK: Final = 0x636F6E63  # PostgreSQL advisory lock: "conc"


class StateError(Exception):
    """The state database cannot be used; the message says what to do."""


class Database:
    """One engine. Connections are opened on first use; `close` gives them back."""

    def __init__(self, url: str) -> None:
        """Raises StateError if the URL names no kind of database that can be used here."""
        try:
            self._url = make_url(url)
            kind = self._url.get_backend_name()
            if kind not in {"sqlite", "postgresql"}:
                raise StateError(f"{kind} is not supported: SQLite and PostgreSQL are")
            self.is_sqlite = kind == "sqlite"
            self._engine = create_engine(self._url, pool_pre_ping=not self.is_sqlite, connect_args=limits_of(self._url))
        except ModuleNotFoundError as error:
            raise StateError(
                f"{error.name} is not installed: run `make install EXTRAS=postgres` in the repository"
            ) from error
        except ArgumentError as error:
            raise StateError(
                "server.database_url is no URL of a database (sqlite:///FILE, postgresql://...)"
            ) from error
        if self.is_sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    @classmethod
    def of(cls, url: str | None, state_dir: Path) -> Self:
        """The database that is configured; by default `conclave.db` in the state folder."""
        return cls(url if url is not None else f"sqlite:///{state_dir.resolve() / 'conclave.db'}")

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; rolled back at the end."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, committed at the end; on SQLite it takes the write lock at its start."""
        with self._engine.connect().execution_options(conclave_immediate=True) as connection, connection.begin():
            yield connection

    @property
    def is_there(self) -> bool:
        """Whether SQLite has a file to open; of a server only `open` can say."""
        path = self._url.database if self.is_sqlite else None
        return not path or path == ":memory:" or Path(path).exists()

    def revision(self) -> str | None:
        """The newest migration that was applied; None for an empty database."""
        with self.read() as connection:
            return _revision(connection)

    def open(self) -> Self:
        """Make it usable: SQLite is migrated, others must have been (`conclave migrate`). Raises StateError."""
        with self._explained():
            if self.is_sqlite:
                self._create_private_file()
            found = self.revision()
            self._refuse_newer(found)
            if found == REVISION:
                return self
            if not self.is_sqlite:
                raise StateError(
                    f"{self} is at migration {found}, this Conclave needs {REVISION}: run `conclave migrate`"
                )
            self.migrate()
        return self

    def migrate(self) -> str | None:
        """Apply the missing migrations; returns the revision before. Safe to run from several processes at once.

        Raises StateError.
        """
        with self._explained():
            if self.is_sqlite:
                self._create_private_file()
            with self.write() as connection:
                if not self.is_sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
                before = _revision(connection)
                self._refuse_newer(before)
                if before is None:
                    _create(connection)
                elif before != REVISION:
                    upgrade(connection)
        return before

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong inside, as a StateError of one line."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise StateError(f"cannot open the state database {self}: {' '.join(str(cause).split())}") from error

    def _refuse_newer(self, found: str | None) -> None:
        if found is not None and found > REVISION:
            raise StateError(f"{self} was written by a newer Conclave (migration {found}; this one knows {REVISION})")

    def close(self) -> None:
        self._engine.dispose()

    def _create_private_file(self) -> None:
        """The file and its folder, readable by this user alone (SQLite gives its side files the same mode).

        A file that is there is never opened: closing it would drop the locks that SQLite holds on it in this process
        (POSIX), and another process would then delete the write-ahead log under our connections.
        """
        if not self._url.database or self._url.database == ":memory:":
            return
        path = Path(self._url.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def keep_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose primary key is not there yet; a column that a row does not name is NULL.

    A statement takes many rows, because sqlite3 lets go of the interpreter's lock for each statement and must win it
    back from a busy event loop. There are few sizes, because each is another statement that the driver keeps.
    """
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    names = [column.name for column in table.columns]
    one = f"({', '.join([mark] * len(names))})"
    start = 0
    while start < len(rows):
        size = next(size for size in STATEMENT_ROWS if size <= len(rows) - start)
        part = rows[start : start + size]
        start += size
        into, values = f"{table.name} ({', '.join(names)})", ", ".join([one] * len(part))
        statement = f"INSERT INTO {into} VALUES {values} ON CONFLICT DO NOTHING"  # noqa: S608  our own names only
        connection.exec_driver_sql(statement, tuple(row.get(name) for row in part for name in names))


def insert_into(connection: Connection, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """An insert that can say what follows where the row is there already: each kind of database has its own."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  0.06 s, and not needed for SQLite

    return postgresql.insert(table)


def replace(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert the row, or overwrite the one with its primary key."""
    keys = [column.name for column in table.primary_key]
    rest = {name: value for name, value in row.items() if name not in keys}
    connection.execute(
        insert_into(connection, table).values(**row).on_conflict_do_update(index_elements=keys, set_=rest)
    )


def note_change(connection: Connection, topic: str) -> None:
    """Raise the topic's number, in the transaction that makes the change."""
    statement = insert_into(connection, changes).values(topic=topic, number=1)
    raised = {"number": changes.c.number + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=["topic"], set_=raised))


def change_number(connection: Connection, topic: str) -> int:
    """The topic's number; 0 before its first change."""
    return connection.execute(select(changes.c.number).where(changes.c.topic == topic)).scalar() or 0


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _create(connection: Connection) -> None:
    """A new database gets the tables as they are now, which is what the migrations build (a test compares them)."""
    metadata.create_all(connection)
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": REVISION})


def upgrade(connection: Connection) -> None:
    """Apply the migrations that the database has not seen."""
    from alembic import command  # noqa: PLC0415  0.4 s, and needed only when the schema is behind
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def limits_of(url: URL) -> dict[str, int]:
    """How long a PostgreSQL server may take, where the URL does not say it; for the drivers that are built on libpq."""
    if url.get_backend_name() != "postgresql" or url.get_driver_name() not in {"psycopg", "psycopg2"}:
        return {}
    limits = {"connect_timeout": CONNECT_S, "tcp_user_timeout": UNHEARD_MS}
    return {name: limit for name, limit in limits.items() if name not in url.query}


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """WAL: readers do not wait for the writer. sqlite3's own transaction handling is off; `_begin_sqlite` does it."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=NORMAL")  # the journal is what survives; a lost tail here is followed again
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Switch to WAL. Two that open a new file at once would lock each other: SQLite refuses one without waiting."""
    for tries_left in reversed(range(BUSY_TIMEOUT_MS // WAL_RETRY_MS)):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if not tries_left:
                raise
            time.sleep(WAL_RETRY_MS / 1000)


def _begin_sqlite(connection: Connection) -> None:
    """Writers lock at the start: a reader that becomes a writer may be refused at once, whatever the timeout."""
    immediate = connection.get_execution_options().get("conclave_immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
