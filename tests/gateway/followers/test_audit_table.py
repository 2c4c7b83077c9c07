from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, text

from conclave.gateway.followers.api import Row
from conclave.gateway.followers.audit_table import AuditTable, witnessed
from conclave.gateway.state.sql import Database, StateError
from conclave.gateway.state.tables import audit_rows
from conclave.safety.audit.witness import Witnessed

Data = Mapping[str, dict[str, Any]]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.of(None, tmp_path).open()
    yield database
    database.close()


def kept(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(audit_rows).order_by(audit_rows.c.chain, audit_rows.c.seq)))


def test_a_call_can_be_queried_by_what_became_of_it(database: Database, row: Callable[..., Row]) -> None:
    AuditTable(database).follow([row(4)])
    (found,) = kept(database)
    assert (found.chain, found.seq, found.hash, found.time) == ("c", 4, "hash4", "2026-11-22T07:30:00.500000Z")
    assert (found.request_id, found.tenant, found.key_id) == ("req_1", "acme", "0123456789ab")
    assert (found.ending, found.status, found.expert, found.category) == ("answered", 200, "coder", "code")
    assert (found.stream, found.prompt_tokens, found.completion_tokens, found.duration_ms) == (1, 11, 7, 500.0)
    assert msgspec.json.decode(found.row)["attempts"][0]["failure"] == "status"


def test_no_user_text_reaches_the_table(database: Database, row: Callable[..., Row]) -> None:
    """Even where the policy keeps it in the journal: only there is it pruned."""
    AuditTable(database).follow([row(0)])
    assert "my secret" not in kept(database)[0].row
    assert msgspec.json.decode(kept(database)[0].row)["segments"][0]["digest"] == "s1"


@pytest.mark.parametrize("kind", ["refused", "unauthenticated", "genesis"])
def test_rows_without_an_answer_are_kept_too(
    database: Database, row: Callable[..., Row], data: Data, kind: str
) -> None:
    AuditTable(database).follow([row(0, data[kind])])
    assert kept(database)[0].kind == data[kind]["kind"]


def test_rows_that_come_again_are_kept_once(database: Database, row: Callable[..., Row]) -> None:
    table = AuditTable(database)
    table.follow([row(0), row(1)])
    table.follow([row(1), row(2)])
    assert [one.seq for one in kept(database)] == [0, 1, 2]


def test_the_position_is_the_last_row_of_each_chain_and_survives(database: Database, row: Callable[..., Row]) -> None:
    AuditTable(database).follow([row(0), row(1)])
    AuditTable(database).follow([row(7, chain="d")])
    assert AuditTable(database).position() == {"c": 1, "d": 7}


def test_the_position_outlives_rows_that_were_deleted(database: Database, row: Callable[..., Row]) -> None:
    AuditTable(database).follow([row(0), row(1)])
    with database.write() as connection:
        connection.execute(text("DELETE FROM audit_rows"))
    assert AuditTable(database).position() == {"c": 1}


def test_a_batch_is_kept_whole_or_not_at_all(database: Database, row: Callable[..., Row]) -> None:
    with pytest.raises(KeyError):
        AuditTable(database).follow([row(0), row(1, {"kind": "call"})])
    assert (kept(database), AuditTable(database).position()) == ([], {})


def test_what_it_remembers_is_in_the_order_of_the_chains(
    database: Database, row: Callable[..., Row], tmp_path: Path
) -> None:
    AuditTable(database).follow([row(0, chain="d")])
    AuditTable(database).follow([row(0), row(1)])
    assert list(witnessed(f"sqlite:///{tmp_path / 'conclave.db'}")) == [
        Witnessed("c", 0, "hash0"),
        Witnessed("c", 1, "hash1"),
        Witnessed("d", 0, "hash0"),
    ]


def test_a_database_without_the_table_is_no_witness(tmp_path: Path) -> None:
    """It must not be taken for one that remembers nothing."""
    with pytest.raises(StateError, match="cannot read the audit table"):
        list(witnessed(f"sqlite:///{tmp_path / 'empty.db'}"))


def test_a_comment_stays_in_the_journal(database: Database, row: Callable[..., Row], data: Data) -> None:
    said = {"kind": "feedback", "time": data["call"]["time"], "request_id": "req_1", "score": 1, "comment": "my secret"}
    tagged = {**data["refused"], "tags": {"comment": "kept"}}
    AuditTable(database).follow([row(0, said), row(1, tagged)])
    feedback, refused = kept(database)
    assert "my secret" not in feedback.row
    assert msgspec.json.decode(feedback.row)["score"] == 1
    assert msgspec.json.decode(refused.row)["tags"] == {"comment": "kept"}


def test_the_arm_of_a_call_can_be_queried(database: Database, row: Callable[..., Row], data: Data) -> None:
    in_arm = {**data["call"], "decision": {**data["call"]["decision"], "arm": "thrifty"}}
    AuditTable(database).follow([row(0), row(1, in_arm)])
    assert [one.arm for one in kept(database)] == [None, "thrifty"]
