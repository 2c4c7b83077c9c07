"""Calls as the record keeps them, read to learn from: by id or since a moment, with what was said of their answers.

The audit table is asked first, because it has an index; the journal has what the table has lost, and the texts, where
the policy keeps them. It verifies nothing: that is `conclave audit verify`. Importing this module imports SQLAlchemy.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Select, select

from conclave.gateway.policy.choosing import asked_turns
from conclave.gateway.state.sql import Database
from conclave.gateway.state.tables import audit_rows, feedback
from conclave.safety.api import Origin, Segment
from conclave.safety.audit.chain import segments
from conclave.safety.audit.read import Stored, rows_of

FETCH_ROWS: Final = 1_000
CALL: Final = audit_rows.c
WITH_FEEDBACK: Final = (
    select(CALL.row, feedback.c.score, CALL.chain, CALL.seq)
    .select_from(audit_rows.outerjoin(feedback, feedback.c.request_id == CALL.request_id))
    .where(CALL.kind == "call")
)

_row: Final = msgspec.json.Decoder(dict[str, Any])


class BrokenRow(ValueError):
    """The table holds something that is no row; the message says where."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A call's row, and what was said of its answer (0 to 1; None: nothing)."""

    row: dict[str, Any]
    said: float | None = None


class KeptCalls:
    """The calls of one state folder. `journal` is its folder with the chains."""

    def __init__(self, database: Database, journal: Path) -> None:
        self._database = database
        self._journal = journal

    def one(self, request_id: str) -> dict[str, Any] | None:
        """The row of a call."""
        statement = select(CALL.row).where(CALL.request_id == request_id, CALL.kind == "call").limit(1)
        with self._database.read() as connection:
            raw = connection.execute(statement).scalar()
        if raw is not None:
            with suppress(msgspec.DecodeError):  # somebody changed the table: the journal has it, too
                return _row.decode(raw)
        return self._in_journal(request_id)

    def since(self, moment: str) -> Iterator[Kept]:
        """All calls, the oldest first; `moment` is ISO 8601 in UTC. Raises BrokenRow, as the next two."""
        yield from self._found(WITH_FEEDBACK.where(CALL.time >= moment))

    def in_arms(self, moment: str) -> Iterator[Kept]:
        """As `since`, of the calls that an A/B test dealt."""
        yield from self._found(WITH_FEEDBACK.where(CALL.arm.is_not(None), CALL.time >= moment))

    def rated(self, moment: str) -> Iterator[Kept]:
        """As `since`, of the calls of which something was said since then."""
        yield from self._found(WITH_FEEDBACK.where(feedback.c.time >= moment))

    def _found(self, statement: Select[Any]) -> Iterator[Kept]:
        ordered = statement.order_by(CALL.time, CALL.chain, CALL.seq).execution_options(yield_per=FETCH_ROWS)
        with self._database.read() as connection:
            for raw, score, chain, seq in connection.execute(ordered):
                try:
                    row = _row.decode(raw)
                except msgspec.DecodeError:
                    raise BrokenRow(
                        f"row {seq} of the chain {chain} in the table audit_rows is not what Conclave wrote there: "
                        "`conclave audit verify --table` compares the table with the journal"
                    ) from None
                yield Kept(row, score)

    def _in_journal(self, request_id: str) -> dict[str, Any] | None:
        mark = f'"request_id":"{request_id}"'.encode()
        found = (one.data for one in self._stored() if mark in one.line and one.data.get("kind") == "call")
        return next(found, None)

    def questions(self, request_ids: frozenset[str]) -> dict[str, str]:
        """What was asked in these calls, where the journal holds the texts: that of the last user message, by id."""
        found: dict[str, str] = {}
        for data in (one.data for one in self._stored()):
            if data.get("kind") != "call" or data.get("request_id") not in request_ids:
                continue
            if asked := asked_turns(list(_texts(data)), 1):
                found[data["request_id"]] = asked[0]
        return found

    def _stored(self) -> Iterator[Stored]:
        """Every row of the journal; none where there is no journal."""
        if self._journal.is_dir():
            for parts in segments(self._journal).values():
                for part in parts:
                    yield from rows_of(part.path)


def _texts(row: dict[str, Any]) -> Iterator[Segment]:
    for segment in row.get("segments", ()):
        if "text" in segment:
            text = segment["text"]
            yield Segment(Origin(segment["origin"]), text, text, segment["place"])
