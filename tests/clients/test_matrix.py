"""The clients that applications use, one table: each does the same things against a real gateway and must see the same.

scenarios.py and scenarios.mjs say what is done. To add a client: one more of CLIENTS, with a command that prints the
same JSON. docs/compatibility.md shows the table.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from processes import until

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Client:
    """A client package, and the command that puts it through the scenarios."""

    name: str
    version: str
    command: tuple[Path, ...]


CLIENTS = [
    Client("openai-python 2", "2.54.0", (Path(sys.executable), HERE / "scenarios.py")),
    Client("openai-python 3", "3.54.0", (HERE / ".venv-openai3" / "bin" / "python", HERE / "scenarios.py")),
    Client("openai-node 7", "7.57.0", (HERE / ".venv-node" / "bin" / "node", HERE / "scenarios.mjs")),
]

VECTOR = [0.5, -0.25, 2.0]
EXPECTED: dict[str, dict[str, Any]] = {
    "plain": {"content": "echo: hello", "total_tokens": 5, "expert": "echo", "same_id": True},
    "stream_with_usage": {
        "role": "assistant",
        "content": "echo: hello",
        "finish_reason": "stop",
        "last_choices": 0,
        "total_tokens": 5,
        "usage_before": 0,
    },
    "tools_in_streams": {
        "id": "call_1",
        "name": "weather",
        "arguments": {"city": "Paris"},
        "finish_reason": "tool_calls",
        "heard": "21 degrees",
    },
    "json_schema": {"parsed": {"degrees": 21}},
    "several_choices": {"contents": ["echo: hello"] * 2, "tokens": ["echo"], "top_k": 7},
    # refusals are not retried: `requests` counts every try
    "wrong_key": {
        "class": "AuthenticationError",
        "status": 401,
        "code": "invalid_api_key",
        "param": None,
        "requests": 1,
    },
    "bad_request": {"class": "BadRequestError", "status": 400, "code": "nope", "param": "top_k", "requests": 1},
    "out_of_range": {
        "class": "BadRequestError",
        "status": 400,
        "code": "invalid_request",
        "param": "temperature",
        "requests": 1,
    },
    "unknown_model": {
        "class": "NotFoundError",
        "status": 404,
        "code": "model_not_found",
        "param": "model",
        "requests": 1,
    },
    # a failure that may pass is: once, as the client was told to
    "server_error": {
        "class": "InternalServerError",
        "status": 502,
        "code": "no_expert_left",
        "param": None,
        "requests": 2,
    },
    "error_in_a_stream": {"class": "APIError", "status": None, "param": None, "requests": 1},
    "rate_limit": {"code": "rate_limit_exceeded", "header": True, "requests": 2, "waited": True},
    "abort": {"seen": 3, "at_once": True},
    "embeddings": {"vectors": [VECTOR, VECTOR], "float": VECTOR, "prompt_tokens": 2},
    "completions": {"text": "echo: hello", "streamed": "echo: hello"},
    "models": {"listed": ["auto", "echo"], "retrieved": "acme/large:1"},
    "asynchronous": {"contents": ["echo: hello"] * 2, "streamed": "echo: hello"},
}


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.param
    if found.command[0] != Path(sys.executable) and not (HERE / ".installed").exists():
        pytest.skip(f"{found.name} is not installed; `make clients` does it")
    return found


@pytest.fixture(scope="module")
def report(client: Client, door: Any) -> dict[str, Any]:
    """What this client saw."""
    arguments = [*client.command, f"{door.gateway.url}/v1", door.key, door.limited_key]
    done = subprocess.run(arguments, cwd=HERE, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_client_is_of_the_version_that_the_page_names(client: Client, report: dict[str, Any]) -> None:
    assert report["version"] == client.version
    assert f"| {client.name} | {client.version} |" in (HERE.parents[1] / "docs" / "compatibility.md").read_text()


def test_every_scenario_has_a_row(report: dict[str, Any]) -> None:
    assert set(report["seen"]) == set(EXPECTED)


@pytest.mark.parametrize("scenario", EXPECTED)
def test_the_client_sees_what_it_should(scenario: str, report: dict[str, Any]) -> None:
    seen = report["seen"][scenario]
    assert {key: seen.get(key) for key in EXPECTED[scenario]} == EXPECTED[scenario], seen


def test_a_client_that_aborts_ends_the_call_and_the_experts_work(report: dict[str, Any], door: Any, asked: Any) -> None:
    row = door.gateway.row(report["seen"]["abort"]["request_id"])
    assert row["ending"] == "client_gone"
    until(lambda: "long" in asked[1].left, "the model server saw its client leave", limit_s=5)
    asked[1].left.clear()
