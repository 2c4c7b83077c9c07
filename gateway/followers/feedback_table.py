"""What callers said of the answers they got, by call: of several words the last counts. Never what they wrote."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, or_

from conclave.gateway.followers.api import Row
from conclave.gateway.followers.reached import Reached
from conclave.gateway.state.sql import Database, insert_into
from conclave.gateway.state.tables import feedback

NAME: Final = "feedback"


class FeedbackTable:
    """A Follower: idempotent, because a row replaces only what an earlier row said."""

    name = NAME
    past = True

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reached = Reached(database, NAME)

    def position(self) -> Mapping[str, int]:
        return self._reached.read()

    def follow(self, rows: Sequence[Row]) -> None:
        said = [_kept(row) for row in rows if row.data["kind"] == "feedback"]
        if not said and not self._reached.due(rows):
            return
        with self._database.write() as connection:
            for one in said:
                _keep(connection, one)
            self._reached.write(connection, rows)


def _kept(row: Row) -> dict[str, Any]:
    data = row.data
    return {
        "request_id": data["request_id"],
        "tenant": data["tenant"],
        "key_id": data.get("key_id"),
        "time": data["time"],
        "score": data["score"],
        "label": data.get("label"),
        "chain": row.chain,
        "seq": row.seq,
    }


def _keep(connection: Connection, said: Mapping[str, Any]) -> None:
    """Put it in, unless what is there was said later, by any replica."""
    statement = insert_into(connection, feedback).values(**said)
    at, new = feedback.c, statement.excluded
    same_time = at.time == new.time
    later = or_(
        at.time < new.time,
        and_(same_time, at.chain < new.chain),
        and_(same_time, at.chain == new.chain, at.seq < new.seq),
    )
    rest = {name: new[name] for name in said if name != "request_id"}
    connection.execute(statement.on_conflict_do_update(index_elements=["request_id"], set_=rest, where=later))
