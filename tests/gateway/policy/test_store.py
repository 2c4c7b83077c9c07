"""The versions in the state database: numbered without a gap, never changed, the newest in force."""

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from conclave.gateway.policy.canonical import UnreadableError, canonical, digest_of_bytes
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.store import PolicyStore
from conclave.gateway.state.sql import Database
from conclave.gateway.state.tables import metadata, policy_versions

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        found = Database.of(None, tmp_path).open()
    else:
        url = os.environ.get("CONCLAVE_TEST_POSTGRES")
        if not url:
            pytest.skip("CONCLAVE_TEST_POSTGRES names no PostgreSQL database to test with")
        found = Database(url)
        with found.write() as connection:
            metadata.drop_all(connection)
            connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
        found.migrate()
    yield found
    found.close()


@pytest.fixture
def store(database: Database) -> PolicyStore:
    return PolicyStore(database, now=lambda: NOON)


def document(name: str, **parts: Any) -> PolicyDocument:
    return complete(PolicyDocument.model_validate({"name": name, **parts}), {})


def hear(store: PolicyStore, name: str) -> int:
    """What version is in force after a file has said this."""
    return store.hear_file(document(name), source="conclave.yaml").number


def roll_back(store: PolicyStore, number: int) -> int:
    version = store.get(number)
    assert version is not None
    return store.add(version.read(), origin="rollback", source=f"version {number}", author="ann").number


def test_a_database_without_versions_has_none_in_force(store: PolicyStore) -> None:
    assert (len(store.last(100)), store.newest(), store.get(1), store.last(5)) == (0, None, None, [])


def test_a_version_keeps_its_document_and_who_brought_it(store: PolicyStore) -> None:
    made = store.add(document("a"), origin="publish", source="dashboard", author="ann")
    assert (made.number, made.origin, made.source, made.author, made.time) == (
        1,
        "publish",
        "dashboard",
        "ann",
        "2026-06-01T12:00:00+00:00",
    )
    assert store.newest() == store.get(1) == made
    assert made.read() == document("a")
    assert digest_of_bytes(made.document.encode()) == made.digest


def test_the_same_document_again_is_no_new_version(store: PolicyStore) -> None:
    assert [hear(store, "a"), hear(store, "a"), hear(store, "b"), hear(store, "b")] == [1, 1, 2, 2]
    assert store.add(document("b"), origin="publish", source="x", author=None).number == 2


def test_going_back_is_a_new_version_with_an_old_document(store: PolicyStore) -> None:
    hear(store, "a"), hear(store, "b")
    assert roll_back(store, 1) == 3
    newest = store.newest()
    assert newest is not None
    assert (newest.read().name, newest.origin, newest.source, newest.author) == ("a", "rollback", "version 1", "ann")
    assert [version.number for version in store.last(2)] == [2, 3]


def test_a_rollback_stays_in_force_while_the_file_says_what_it_said(store: PolicyStore) -> None:
    """So it does after a restart, and while other replicas notice the file's last change."""
    hear(store, "a"), hear(store, "b")
    assert (roll_back(store, 1), hear(store, "b"), hear(store, "b")) == (3, 3, 3)
    assert hear(store, "c") == 4


def test_a_file_that_agrees_with_a_rollback_is_heard_when_it_changes_again(store: PolicyStore) -> None:
    hear(store, "a"), hear(store, "b")
    roll_back(store, 1)
    assert hear(store, "a") == 3
    assert hear(store, "b") == 4


def test_a_file_may_go_back_and_forth(store: PolicyStore) -> None:
    assert [hear(store, name) for name in "abab"] == [1, 2, 3, 4]


def test_a_newer_conclave_that_writes_more_defaults_out_finds_the_policy_unchanged(
    store: PolicyStore, database: Database
) -> None:
    """The older one's bytes lack a setting that the newer one knows, so their digests differ."""
    hear(store, "a")
    raw = canonical(document("a")).replace(b'"aliases":{},', b"")
    assert raw != canonical(document("a"))
    with database.write() as connection:
        row = {"document": raw.decode(), "digest": digest_of_bytes(raw)}
        connection.execute(update(policy_versions).values(**row))
    roll = store.add(document("z"), origin="rollback", source="x", author=None)
    assert hear(store, "a") == roll.number


def test_a_version_that_somebody_changed_in_the_table_is_not_believed(store: PolicyStore, database: Database) -> None:
    hear(store, "a")
    with database.write() as connection:
        changed = canonical(document("a", limits={"nesting": 500})).decode()
        connection.execute(update(policy_versions).values(document=changed))
    version = store.newest()
    assert version is not None
    with pytest.raises(UnreadableError, match="somebody changed the table"):
        version.read()


def test_writers_at_the_same_time_leave_no_gap_and_no_double(store: PolicyStore) -> None:
    made: list[int] = []

    def write(writer: int) -> None:
        for turn in range(5):
            made.append(hear(store, f"{writer}-{turn}"))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(made) == list(range(1, 21))
    assert [version.number for version in store.last(100)] == list(range(1, 21))
