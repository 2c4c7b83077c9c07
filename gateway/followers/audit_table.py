"""The audit rows in the state database, to query: who asked what kind of thing, when, with which end.

A copy without user text, even where the policy keeps text in the journal. Its hashes are an independent witness for
`conclave audit verify --table`; the journal's chains are what proves anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from conclave.gateway.followers.api import Row
from conclave.gateway.state.sql import Database, StateError, keep_new, replace
from conclave.gateway.state.tables import audit_rows, follower_positions
from conclave.safety.audit.witness import Witnessed

NAME: Final = "audit_table"
FETCH_ROWS: Final = 1_000


class AuditTable:
    """A Follower: idempotent by primary key; its position moves in the transaction that keeps the rows."""

    name = NAME
    past = True

    def __init__(self, database: Database) -> None:
        self._database = database

    def position(self) -> Mapping[str, int]:
        at = follower_positions.c
        with self._database.read() as connection:
            found = connection.execute(select(at.chain, at.seq).where(at.follower == NAME))
            return {row.chain: row.seq for row in found}

    def follow(self, rows: Sequence[Row]) -> None:
        with self._database.write() as connection:
            keep_new(connection, audit_rows, [_kept(row) for row in rows])
            last = rows[-1]
            replace(connection, follower_positions, {"follower": NAME, "chain": last.chain, "seq": last.seq})


def witnessed(url: str) -> Iterator[Witnessed]:
    """What the table in this database remembers of the chains, in their order. Raises StateError."""
    database = Database(url)
    try:
        at = audit_rows.c
        statement = select(at.chain, at.seq, at.hash).order_by(at.chain, at.seq)
        with database.read() as connection:
            for row in connection.execute(statement.execution_options(yield_per=FETCH_ROWS)):
                yield Witnessed(row.chain, row.seq, row.hash)
    except SQLAlchemyError as error:
        raise StateError(f"cannot read the audit table in {database}") from error
    finally:
        database.close()


def _kept(row: Row) -> dict[str, Any]:
    data = row.data
    decision, usage = data.get("decision") or {}, data.get("usage") or {}
    attempts = data.get("attempts") or ()
    stream = data.get("stream")
    return {
        "chain": row.chain,
        "seq": row.seq,
        "hash": row.hash,
        "time": data["time"],
        "kind": data["kind"],
        "request_id": data.get("request_id"),
        "tenant": data.get("tenant"),
        "key_id": data.get("key_id"),
        "ending": data.get("ending"),
        "status": data.get("status"),
        "expert": data.get("kept") or (attempts[-1]["expert"] if attempts else None),
        "category": decision.get("category"),
        "stream": None if stream is None else int(stream),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "duration_ms": data.get("duration_ms"),
        "row": _without_text(row).decode(),
        "arm": decision.get("arm"),
    }


def _without_text(row: Row) -> bytes:
    """The row less what people wrote: retention of text is then the journal's alone.

    Within a JSON string a quote is escaped, so these bytes can only be a key.
    """
    raw = row.raw
    if row.data["kind"] == "feedback" and b'"comment":' in raw:
        return msgspec.json.encode({k: v for k, v in msgspec.json.decode(raw).items() if k != "comment"})
    if b'"text":' not in raw:
        return raw
    whole = msgspec.json.decode(raw)
    bare = [{name: value for name, value in segment.items() if name != "text"} for segment in whole["segments"]]
    return msgspec.json.encode({**whole, "segments": bare})
