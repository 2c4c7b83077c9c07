"""What reads the journal after the fact: audit tables, metrics, ledgers. Never on the way of a call.

The journal is the spool. A follower gets every row of a chain at least once, in ascending order of `seq`; after a
crash or a failure it may get rows again, and is idempotent by (chain, seq).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a chain: `hash` is its SHA-256 in hex, `raw` the row itself as JSON, `data` what followers read of it.

    `data["kind"]` says what it is: `genesis`, `call`, `feedback`, `unauthenticated`, `lost`, `closed`, ...;
    `data["time"]` is when, ISO 8601 in UTC. docs/audit.md lists the fields.
    """

    chain: str
    seq: int
    hash: str
    data: "Noted"
    raw: bytes


class NotedDecision(TypedDict, total=False):
    """Of a row's decision, what followers read."""

    category: Any
    confidence: Any
    reason: Any
    unsure: Any
    row: Any
    runner_up: Any
    arm: Any
    steps: list[dict[str, Any]]
    look_up: dict[str, Any]


class Noted(TypedDict, total=False):
    """Of a row, what followers read: the rest (probabilities, segments) is most of it, and is not decoded for them."""

    kind: Any
    time: Any
    seq: Any
    count: Any
    request_id: Any
    tenant: Any
    key_id: Any
    ending: Any
    status: Any
    stream: Any
    tags: dict[str, Any]
    operation: Any
    code: Any
    policy: Any
    score: Any
    label: Any
    decision: NotedDecision | None
    attempts: list[dict[str, Any]]
    usage: dict[str, Any]
    finish_reason: Any
    answer_model: Any
    stages: dict[str, float]
    spans: dict[str, Any]
    verdict: dict[str, Any]
    guard: dict[str, Any]
    retrieval: dict[str, Any]
    standing: dict[str, Any]
    did: Any
    deed: Any
    attack: Any
    trace: dict[str, Any]
    duration_ms: Any
    escalated: Any
    kept: Any


class Follower(Protocol):
    """Something that keeps rows somewhere else. Called from one thread only, never from the event loop."""

    @property
    def name(self) -> str:
        """For logs."""
        ...

    @property
    def past(self) -> bool:
        """Whether rows of chains whose process has ended are wanted; a follower that only counts (metrics) says no."""
        ...

    def position(self) -> Mapping[str, int]:
        """By chain, the highest `seq` that is kept. Asked at start, and again after each failure of `follow`.

        A follower whose rows live in memory keeps this map itself. A chain that is not named begins at its first row.
        """
        ...

    def follow(self, rows: Sequence[Row]) -> None:
        """Keep the rows (all of one chain, ascending), all or none. Whatever it raises is logged and tried again."""
        ...
