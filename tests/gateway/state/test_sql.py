import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select, text
from sqlalchemy.engine import make_url

import conclave.gateway.state
from conclave.gateway.state.sql import (
    Database,
    StateError,
    change_number,
    keep_new,
    limits_of,
    note_change,
    replace,
    upgrade,
)
from conclave.gateway.state.tables import REVISION, audit_rows, changes, follower_positions, metadata

MIGRATIONS = Path(conclave.gateway.state.__path__[0]) / "migrations"


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of each kind, not yet migrated."""
    if request.param == "sqlite":
        found = Database.of(None, tmp_path / "state")
    else:
        url = os.environ.get("CONCLAVE_TEST_POSTGRES")
        if not url:
            pytest.skip("CONCLAVE_TEST_POSTGRES names no PostgreSQL database to test with")
        found = Database(url)
        with found.write() as connection:
            metadata.drop_all(connection)
            connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
    yield found
    found.close()


def test_the_migrations_build_exactly_the_tables(database: Database) -> None:
    """Alembic's own comparison of a database that all migrations built with the metadata finds nothing to do."""
    database.migrate()
    with database.write() as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
        upgrade(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert database.migrate() == REVISION


def test_a_new_database_is_taken_by_alembic_as_the_newest(database: Database) -> None:
    database.migrate()
    with database.write() as connection:
        upgrade(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert database.revision() == REVISION


def test_the_newest_migration_is_the_one_named_in_tables() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_migrating_again_changes_nothing(database: Database) -> None:
    assert database.migrate() is None
    with database.write() as connection:
        connection.execute(insert(changes).values(topic="kept", number=7))
    assert database.migrate() == REVISION
    with database.read() as connection:
        assert change_number(connection, "kept") == 7


def test_sqlite_is_migrated_when_it_is_opened(tmp_path: Path) -> None:
    database = Database.of(None, tmp_path)
    assert database.open().revision() == REVISION
    database.close()


@pytest.mark.postgres
def test_postgresql_is_not_migrated_by_itself() -> None:
    url = os.environ.get("CONCLAVE_TEST_POSTGRES")
    if not url:
        pytest.skip("CONCLAVE_TEST_POSTGRES names no PostgreSQL database to test with")
    database = Database(url)
    with database.write() as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
    with pytest.raises(StateError, match="conclave migrate"):
        database.open()
    database.close()


def test_a_database_of_a_newer_conclave_is_refused(tmp_path: Path) -> None:
    database = Database.of(None, tmp_path).open()
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StateError, match="newer Conclave"):
        database.open()
    with pytest.raises(StateError, match="newer Conclave"):
        database.migrate()
    assert database.revision() == "9999"
    database.close()


def test_a_server_that_is_not_there_is_one_line_without_the_password() -> None:
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    database = Database("postgresql+psycopg://user:hunter2@127.0.0.1:1/x")
    for use in (database.open, database.migrate):
        with pytest.raises(StateError, match="cannot open the state database") as caught:
            use()
        assert "\n" not in str(caught.value)
        assert "hunter2" not in str(caught.value)
    database.close()


def test_a_file_that_is_no_database_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "conclave.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StateError, match=r"conclave\.db"):
        Database.of(None, tmp_path).open()


@pytest.mark.parametrize(
    ("url", "said"),
    [("mysql://x/y", "mysql is not supported"), ("nonsense", "no URL"), ("oracle://x/y", "oracle is not supported")],
    ids=["mysql", "text", "oracle"],
)
def test_a_url_that_cannot_be_used_is_refused_in_a_sentence(url: str, said: str) -> None:
    with pytest.raises(StateError, match=said):
        Database(url)


@pytest.mark.postgres
def test_the_error_does_not_show_the_password() -> None:
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    assert "hunter2" not in str(Database("postgresql+psycopg://user:hunter2@localhost/x"))


def test_the_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    """The side files of SQLite included."""
    database = Database.of(None, tmp_path / "state").open()
    with database.write() as connection:
        note_change(connection, "x")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert set(modes.values()) == {0o600}
    assert "conclave.db" in modes
    database.close()


def test_two_processes_may_migrate_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from conclave.gateway.state.sql import Database; print(Database(sys.argv[1]).open().revision())"
    )
    url = f"sqlite:///{tmp_path / 'conclave.db'}"
    both = [
        subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert (out.strip(), process.returncode) == (REVISION, 0), err


def test_what_other_processes_write_is_seen_from_the_first_start_on(tmp_path: Path) -> None:
    """Once, the first start lost its file locks: the next process took the write-ahead log away from under it."""
    script = (
        "import sys; from conclave.gateway.state.sql import Database, note_change\n"
        "database = Database(sys.argv[1]).open()\n"
        "with database.write() as connection: note_change(connection, 'a')\n"
        "database.close()"
    )
    database = Database.of(None, tmp_path).open()
    seen = []
    for _ in range(3):
        with database.read() as connection:
            seen.append(change_number(connection, "a"))
        subprocess.run([sys.executable, "-c", script, f"sqlite:///{tmp_path / 'conclave.db'}"], timeout=60, check=True)
    assert seen == [0, 1, 2]
    database.close()


def test_a_row_that_is_there_already_is_left_as_it_is(database: Database) -> None:
    database.migrate()
    row = {"chain": "c", "seq": 1, "hash": "h", "time": "t", "kind": "call", "row": "first"}
    with database.write() as connection:
        keep_new(connection, audit_rows, [row])
        keep_new(connection, audit_rows, [{**row, "row": "second"}, {**row, "seq": 2}])
        kept = connection.execute(select(audit_rows.c.seq, audit_rows.c.row).order_by(audit_rows.c.seq)).all()
    assert [tuple(one) for one in kept] == [(1, "first"), (2, "first")]


def test_replace_overwrites_the_row_of_its_key(database: Database) -> None:
    database.migrate()
    with database.write() as connection:
        for seq in (1, 5):
            replace(connection, follower_positions, {"follower": "f", "chain": "c", "seq": seq})
        assert connection.execute(select(follower_positions.c.seq)).scalars().all() == [5]


def test_a_change_raises_its_topics_number_and_no_others(database: Database) -> None:
    database.migrate()
    with database.write() as connection:
        note_change(connection, "a")
        note_change(connection, "a")
        assert (change_number(connection, "a"), change_number(connection, "b")) == (2, 0)


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    database.migrate()
    with contextlib.suppress(ZeroDivisionError), database.write() as connection:
        note_change(connection, "a")
        _ = 1 // 0
    with database.read() as connection:
        assert change_number(connection, "a") == 0


@pytest.mark.parametrize(
    ("url", "limits"),
    [
        ("postgresql+psycopg://h/d", {"connect_timeout": 5, "tcp_user_timeout": 10_000}),
        ("postgresql+psycopg://h/d?connect_timeout=60", {"tcp_user_timeout": 10_000}),
        ("postgresql+pg8000://h/d", {}),
        ("sqlite:///f", {}),
    ],
    ids=["postgresql", "what-the-url-says-counts", "a-driver-without-libpq", "sqlite"],
)
def test_a_server_that_says_nothing_is_not_waited_for_for_ever(url: str, limits: dict[str, int]) -> None:
    assert limits_of(make_url(url)) == limits
