"""Spans of calls, of their stages and of the experts that they asked, derived from the record.

Only this process's chain is followed, and each row of it once: after a restart no span is sent a second time.
"""

from collections.abc import Callable, Mapping, Sequence

from conclave.gateway.followers.api import Row
from conclave.gateway.telemetry.spans import Told, told


class Spans:
    """A Follower; `emit` takes a span and never waits. `providers`: `gen_ai.provider.name` by expert."""

    name = "spans"
    past = False

    def __init__(self, emit: Callable[[Told], None], *, providers: Mapping[str, str]) -> None:
        self._emit = emit
        self._providers = providers
        self._seen: dict[str, int] = {}

    def position(self) -> Mapping[str, int]:
        return dict(self._seen)

    def follow(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.seq > self._seen.get(row.chain, -1):
                self._seen[row.chain] = row.seq  # first: a row that cannot be told must not be told in part twice
                if row.data["kind"] == "call":
                    for span in told(row.data, self._providers, chain=row.chain, seq=row.seq):
                        self._emit(span)
