"""What a client sees when its expert fails: each fault at each moment, before a fallback that is well.

docs/reliability.md shows MATRIX as a table; a test holds them together.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from processes import UPSTREAM, Gateway, Process, ask, config, free_port, launch
from upstream import WORDS

from conclave.gateway.access.key_table import KeyTable
from conclave.gateway.access.keys import read_pepper
from conclave.gateway.state.sql import Database

WHOLE = "".join(WORDS)
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
REPLACED, CONTINUED, PASSED_OVER = "replaced unseen", "continued by the fallback", "passed over"
WHOLE_ALREADY = "whole already"


@dataclass(frozen=True, slots=True)
class Case:
    """`expert` is the upstream's behaviour, `failure` what the record says of the first attempt."""

    fault: str
    moment: str
    expert: str
    outcome: str
    failure: str | None

    def __str__(self) -> str:
        return f"{self.expert}-{self.moment}".replace(" ", "-")


HEAD, ROLE, WORD, LAST = "before the head", "before the first word", "after three words", "after the finish reason"
MATRIX = [
    Case("nobody listens", HEAD, "nobody", REPLACED, "connect"),
    Case("HTTP 500", HEAD, "down", REPLACED, "status"),
    Case("HTTP 429", HEAD, "busy", REPLACED, "rate_limited"),
    Case("an HTML page", HEAD, "html", REPLACED, "malformed"),
    Case("no byte within `first_byte_s`", HEAD, "silent", REPLACED, "first_byte"),
    Case("the connection ends", ROLE, "cut.0", REPLACED, "cut"),
    Case("no byte within `idle_s`", ROLE, "stall.0", REPLACED, "stalled"),
    Case("an unreadable event", ROLE, "oddity.0", REPLACED, "malformed"),
    Case("an error event", ROLE, "error.0", REPLACED, "error_event"),
    Case("an event of 20 MB", ROLE, "huge.0", REPLACED, "malformed"),
    Case("the process is killed", ROLE, "die.0", REPLACED, "cut"),
    Case("the connection ends", WORD, "cut.3", CONTINUED, "cut"),
    Case("no byte within `idle_s`", WORD, "stall.3", CONTINUED, "stalled"),
    Case("an unreadable event", WORD, "oddity.3", PASSED_OVER, None),
    Case("many unreadable events", WORD, "garbage.3", CONTINUED, "malformed"),
    Case("an error event", WORD, "error.3", CONTINUED, "error_event"),
    Case("an event of 20 MB", WORD, "huge.3", CONTINUED, "malformed"),
    Case("the process is killed", WORD, "die.3", CONTINUED, "cut"),
    Case("no byte within `idle_s`", LAST, "endless.6", WHOLE_ALREADY, None),
    Case("the connection is reset", LAST, "reset.6", WHOLE_ALREADY, None),
]


@pytest.fixture(scope="module")
def gateway(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose default row is the expert of each case, then `whole`; a key reaches just the two."""
    folder = tmp_path_factory.mktemp("failover")
    settings = config(upstream.port, stages={"route": "off"})
    experts = settings["policy"]["experts"]
    names = [case.expert for case in MATRIX]
    for name in [*names, "whole"]:
        experts.setdefault(name, {**experts["echo"], "model": name})
    experts["nobody"]["base_url"] = f"http://127.0.0.1:{free_port()}/v1"
    settings["policy"]["default"] = [*names, "whole"]
    settings["policy"]["tenants"] = {"strict": {"streams": {"on_failure": "end"}}}
    process = launch(folder, settings, **make_keys(folder, names))
    yield process
    process.stop()


def make_keys(folder: Path, names: list[str]) -> dict[str, str]:
    """KEY_<expert> for each; they are known before the gateway starts."""
    state = folder / ".conclave"
    state.mkdir()
    database = Database.of(None, state).open()
    table, pepper = KeyTable(database), read_pepper(state)
    tokens = {
        f"KEY_{name}": table.create(pepper=pepper, tenant="acme", name=name, experts=[name, "whole"])[1]
        for name in names
    }
    strict = table.create(pepper=pepper, tenant="strict", name="strict", experts=["cut.3", "whole"])
    database.close()
    return {**tokens, "KEY_strict": strict[1]}


def asked(gateway: Gateway, key: str, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]], bytes]:
    """The row and the events of a stream."""
    bearer = f"Bearer {gateway.env[f'KEY_{key}']}"
    status, headers, answer = gateway.post(ask("auto", stream=True, **more), authorization=bearer)
    assert status == 200, answer
    lines = [line for line in answer.split(b"\n\n") if line.startswith(b"data: {")]
    return gateway.row(headers["x-request-id"]), [json.loads(line[6:]) for line in lines], answer


def text(events: list[dict[str, Any]]) -> str:
    choices = [choice for event in events for choice in event.get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("case", [case for case in MATRIX if not case.expert.startswith("die")], ids=str)
def test_a_stream_is_whole_whatever_its_first_expert_does(gateway: Gateway, case: Case) -> None:
    row, events, answer = asked(gateway, case.expert)
    check(case, row, events, answer)


@pytest.mark.parametrize("case", [case for case in MATRIX if case.expert.startswith("die")], ids=str)
def test_a_stream_is_whole_although_the_server_of_its_expert_is_killed(case: Case, tmp_path: Path) -> None:
    ports = free_port(), free_port()
    victim, well = (Process([sys.executable, str(UPSTREAM), str(port)], port, tmp_path).start() for port in ports)
    settings = config(well.port, stages={"route": "off"})
    experts = settings["policy"]["experts"]
    experts["whole"] = {**experts["echo"], "model": "whole"}
    experts["dies"] = {**experts["echo"], "model": case.expert, "base_url": f"http://127.0.0.1:{victim.port}/v1"}
    settings["policy"]["default"] = ["dies", "whole"]
    gateway = launch(tmp_path, settings)
    status, headers, answer = gateway.post(ask("auto", stream=True))
    lines = [line for line in answer.split(b"\n\n") if line.startswith(b"data: {")]
    row = gateway.row(headers["x-request-id"])
    for process in (gateway, victim, well):
        process.stop()
    assert status == 200
    check(case, row, [json.loads(line[6:]) for line in lines], answer)


def check(case: Case, row: dict[str, Any], events: list[dict[str, Any]], answer: bytes) -> None:
    explained = events[-1]["conclave"]
    assert text(events) == WHOLE
    assert answer.endswith(b"data: [DONE]\n\n")
    assert row["ending"] == "answered"
    assert row["attempts"][0]["failure"] == case.failure
    assert len({event["model"] for event in events}) == 1
    assert sum("role" in choice["delta"] for event in events for choice in event["choices"]) == 1
    assert len(row["attempts"]) == (1 if case.outcome in {PASSED_OVER, WHOLE_ALREADY} else 2)
    assert explained.get("continued", False) is (case.outcome == CONTINUED)
    assert explained.get("skipped_events", 0) == (1 if case.outcome == PASSED_OVER else 0)
    if case.outcome == CONTINUED:
        first, second = (attempt["usage"] for attempt in row["attempts"])
        assert first["estimated"]
        assert row["usage"]["completion_tokens"] == first["completion_tokens"] + second["completion_tokens"]


@pytest.mark.parametrize(
    ("key", "more"),
    [("strict", {}), ("cut.3", {"response_format": {"type": "json_object"}})],
    ids=["by-policy", "json-cannot-be-handed-over"],
)
def test_a_stream_that_is_not_continued_ends_with_a_typed_error_event(
    gateway: Gateway, key: str, more: dict[str, Any]
) -> None:
    row, events, answer = asked(gateway, key, **more)
    assert text(events[:-1]) == "".join(WORDS[:3])
    assert events[-1]["error"]["code"] == "answer_interrupted"
    assert b"[DONE]" not in answer
    assert (row["ending"], len(row["attempts"])) == ("failed", 1)


@pytest.mark.parametrize("expert", ["nobody", "down", "busy", "html", "silent"])
def test_a_plain_answer_comes_from_the_fallback(gateway: Gateway, expert: str) -> None:
    bearer = f"Bearer {gateway.env[f'KEY_{expert}']}"
    status, headers, _ = gateway.post(ask("auto"), authorization=bearer)
    assert (status, headers["x-conclave-expert"]) == (200, "whole")


def test_the_page_shows_this_table() -> None:
    lines = PAGE.read_text().splitlines()
    assert [line for line in lines if line.startswith("| ") and line.count("|") == 4][1:] == [
        f"| {case.fault} | {case.moment} | {case.outcome} |" for case in MATRIX
    ]
