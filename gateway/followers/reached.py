"""How far a follower with a table of its own has read each chain, for those that keep something of few rows only.

A position that is not written yet costs reading some rows again, which keeps nothing twice; a write for each batch
would cost every call a share of a transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, select

from conclave.gateway.followers.api import Row
from conclave.gateway.state.sql import Database, replace
from conclave.gateway.state.tables import follower_positions

LAG_ROWS: Final = 500  # that were read and kept nothing, before the position is written all the same


class Reached:
    """The positions of the follower `name`."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._written: dict[str, int] = {}

    def read(self) -> Mapping[str, int]:
        at = follower_positions.c
        with self._database.read() as connection:
            found = connection.execute(select(at.chain, at.seq).where(at.follower == self._name))
            self._written = {row.chain: row.seq for row in found}
        return dict(self._written)

    def due(self, rows: Sequence[Row]) -> bool:
        """Whether the position should be written although nothing of these rows was kept."""
        last = rows[-1]
        return last.data["kind"] == "closed" or last.seq - self._written.get(last.chain, -1) >= LAG_ROWS

    def write(self, connection: Connection, rows: Sequence[Row]) -> None:
        """The position after these rows, in the transaction that keeps what is kept of them."""
        last = rows[-1]
        replace(connection, follower_positions, {"follower": self._name, "chain": last.chain, "seq": last.seq})
        self._written[last.chain] = last.seq
