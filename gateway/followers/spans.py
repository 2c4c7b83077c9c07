"""Spans of calls and of the experts that they asked, derived from the record. Only where tracing is switched on."""

from collections.abc import Mapping, Sequence

from opentelemetry.trace import Tracer

from conclave.gateway.followers.api import Row
from conclave.gateway.telemetry.spans import emit


class Spans:
    """A Follower; `tracer` is `opentelemetry.trace.get_tracer("conclave")` outside of tests."""

    name = "spans"
    past = False

    def __init__(self, tracer: Tracer, *, providers: Mapping[str, str]) -> None:
        self._tracer = tracer
        self._providers = providers
        self._seen: dict[str, int] = {}

    def position(self) -> Mapping[str, int]:
        return dict(self._seen)

    def follow(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.seq > self._seen.get(row.chain, -1):
                self._seen[row.chain] = row.seq
                if row.data["kind"] == "call":
                    emit(self._tracer, row.data, self._providers)
