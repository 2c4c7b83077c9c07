"""Rows as the journal has them, for tests of what follows it."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from sqlalchemy import text

from conclave.gateway.followers.api import Noted, NotedDecision, Row
from conclave.gateway.state.sql import Database
from conclave.gateway.state.tables import metadata

CALL: dict[str, Any] = {
    "kind": "call",
    "time": "2026-11-22T07:30:00.500000Z",
    "request_id": "req_1",
    "tenant": "acme",
    "key_id": "0123456789ab",
    "source": "d1",
    "ending": "answered",
    "status": 200,
    "code": None,
    "model": "auto",
    "stream": True,
    "operation": "chat",
    "policy": "p1",
    "decision": {
        "row": "code",
        "reason": "category",
        "steps": [{"expert": "flaky", "reason": "category"}, {"expert": "coder", "reason": "fallback"}],
        "model_digest": "m1",
        "category": "code",
        "confidence": 0.83,
        "unsure": False,
    },
    "attempts": [
        {
            "expert": "flaky",
            "deployment": "flaky/0",
            "model": "small",
            "started_ms": 10.0,
            "first_byte_ms": None,
            "ended_ms": 60.0,
            "transport_retries": 2,
            "upstream_status": 500,
            "failure": "status",
            "usage": {"prompt_tokens": 9, "completion_tokens": 2, "estimated": True},
            "chunks": 0,
            "span_id": "00000000000000f1",
        },
        {
            "expert": "coder",
            "deployment": "coder/0",
            "model": "big",
            "started_ms": 60.0,
            "first_byte_ms": 160.0,
            "ended_ms": 460.0,
            "transport_retries": 0,
            "upstream_status": 200,
            "failure": None,
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "cached_tokens": None, "reasoning_tokens": 3},
            "chunks": 4,
            "span_id": "00000000000000f2",
        },
    ],
    "segments": [{"origin": "user", "place": "messages[0]", "chars": 9, "digest": "s1", "text": "my secret"}],
    "stages": {"admit": 1.0, "receive": 3.0, "boundary": 4.0, "route": 10.0},
    "trace": {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "parent_id": "b7ad6b7169203331",
        "sampled": True,
        "span_id": "00000000000000f0",
        "opened_ns": 1_795_332_600_000_000_000,
        "request": {"max_tokens": 100, "temperature": 1, "n": 1, "reasoning_effort": "low", "output": "json"},
        "response_id": "chatcmpl-1",
    },
    "duration_ms": 500.0,
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "cached_tokens": None, "reasoning_tokens": 3},
    "finish_reason": "stop",
    "answer_model": "big-2",
}
REFUSED: dict[str, Any] = {
    **CALL,
    "ending": "refused",
    "status": 400,
    "code": "unknown_model",
    "stages": {"admit": 0.2, "receive": 0.5, "boundary": 0.75},
    "stream": None,
    "decision": None,
    "attempts": [],
    "segments": [],
    "usage": None,
    "duration_ms": 1.5,
}
UNAUTHENTICATED: dict[str, Any] = {"kind": "unauthenticated", "time": CALL["time"], "source": "d2", "count": 40}
GENESIS: dict[str, Any] = {"kind": "genesis", "time": CALL["time"]}

Rows = Callable[..., Row]


def noted(data: Mapping[str, Any]) -> Noted:
    """What is decoded of a row."""
    read = {name: value for name, value in data.items() if name in Noted.__annotations__}
    if decision := read.get("decision"):
        read["decision"] = {name: decision[name] for name in decision if name in NotedDecision.__annotations__}
    return cast(Noted, read)


@pytest.fixture
def data() -> Mapping[str, dict[str, Any]]:
    """One row's content of each kind."""
    return {"call": CALL, "refused": REFUSED, "unauthenticated": UNAUTHENTICATED, "genesis": GENESIS}


@pytest.fixture
def row() -> Rows:
    """Makes a row of a chain, with what is read of it in the journal and nothing else."""

    def make(seq: int, data: Mapping[str, Any] = CALL, *, chain: str = "c") -> Row:
        return Row(chain, seq, f"hash{seq}", noted(data), msgspec.json.encode(data))

    return make


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty one of each kind."""
    if request.param == "sqlite":
        database = Database.of(None, tmp_path)
    else:
        url = os.environ.get("CONCLAVE_TEST_POSTGRES")
        if not url:
            pytest.skip("CONCLAVE_TEST_POSTGRES names no PostgreSQL database to test with")
        database = Database(url)
        with database.write() as connection:
            metadata.drop_all(connection)
            connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
        database.migrate()
    yield database.open()
    database.close()
