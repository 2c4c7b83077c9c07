"""The application with everything in it but a network: what the endpoints beside the hot path answer and leave."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from starlette.testclient import TestClient

from conclave.gateway.app import create_app
from conclave.gateway.settings import load_settings

STRANGER = {"authorization": "Bearer cv_000000000000_00"}


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    config = tmp_path / "conclave.yaml"
    config.write_text("policy: {experts: {quoting: {kind: quoting}}, limits: {requests_per_minute: 100}}")
    return create_app(load_settings(config, state_dir=tmp_path / "state"))


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        yield client


def rows(folder: Path) -> list[dict[str, Any]]:
    files = [file for file in (folder / "state" / "journal").glob("*.jsonl") if file.name != "heads.jsonl"]
    return [json.loads(line)["row"] for file in files for line in file.read_bytes().splitlines()]


def test_models_say_the_request_and_what_is_left_of_the_rate_limit(client: TestClient) -> None:
    first, second = client.get("/v1/models"), client.get("/v1/models")
    assert "quoting" in {model["id"] for model in first.json()["data"]}
    assert first.headers["x-request-id"].startswith("req_")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in (first, second)] == ["99", "98"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v1/models", STRANGER, 401),
        ("GET", "/v1/models", {"origin": "https://evil.example"}, 403),
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/v1/chat/completions", {}, 405),
        ("POST", "/v1/models", {}, 405),
        ("POST", "/v1/chat/completions", {}, 400),
    ],
)
def test_every_refusal_has_an_id_and_a_word_on_retries(
    client: TestClient, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-should-retry"] == "false"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_wrong_method_is_told_the_right_one(client: TestClient) -> None:
    answer = client.post("/v1/models")
    assert answer.headers["allow"] == "GET"
    assert answer.json()["error"]["code"] == "method_not_allowed"
    assert client.get("/v1/nothing").json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param(
            "/chat/completions", "it is at /v1/chat/completions: a client's base_url ends with /v1", id="no v1"
        ),
        pytest.param("/models/", "it is at /v1/models", id="models"),
        pytest.param("/metrics", "metrics are on the admin port", id="metrics"),
        pytest.param("/", "/openapi.json lists what is served", id="root"),
        pytest.param("/v1/responses", "/openapi.json lists what is served", id="another API"),
    ],
)
def test_a_path_that_is_not_here_says_what_to_ask_instead(client: TestClient, path: str, words: str) -> None:
    assert words in client.post(path, content=b"{}").json()["error"]["message"]


def test_guessing_keys_at_models_is_recorded_as_at_a_call(client: TestClient, tmp_path: Path) -> None:
    guesses = [client.get("/v1/models", headers=STRANGER) for _ in range(3)]
    client.post("/v1/chat/completions", headers=STRANGER, content=b"{}")
    (row,) = [row for row in rows(tmp_path) if row["kind"] == "unauthenticated"]
    assert row["request_id"] == guesses[0].headers["x-request-id"]
    client.__exit__()
    assert [row["count"] for row in rows(tmp_path) if row["kind"] == "unauthenticated"] == [1, 3]
    client.__enter__()


def test_a_bug_in_an_endpoint_is_an_envelope_and_one_line_in_the_log(app: FastAPI, client: TestClient) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("secret")

    app.add_api_route("/v1/broken", broken)
    with structlog.testing.capture_logs() as logged:
        answer = client.get("/v1/broken")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert answer.headers["x-should-retry"] == "true"
    assert "secret" not in answer.text
    (line,) = [line for line in logged if line["log_level"] == "error"]
    assert (line["event"], line["request_id"]) == ("request.broke", answer.headers["x-request-id"])
