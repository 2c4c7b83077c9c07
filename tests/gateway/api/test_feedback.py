"""`POST /v1/feedback`: what is taken, what is refused, and with which words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from conclave.gateway.api.feedback import BODY_BYTES, COMMENT_CHARS, parse
from conclave.gateway.app import create_app
from conclave.gateway.errors import InvalidRequest
from conclave.gateway.settings import load_settings

POLICY = "policy: {experts: {quoting: {kind: quoting}}, limits: {requests_per_minute: 40}}"
ID = "req_" + "0" * 24
ASK = {"model": "quoting", "messages": [{"role": "user", "content": "what is conclave?"}]}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    (tmp_path / "conclave.yaml").write_text(POLICY)
    app = create_app(load_settings(tmp_path / "conclave.yaml", state_dir=tmp_path / "state"))
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        yield client


def called(client: TestClient) -> str:
    return str(client.post("/v1/chat/completions", json=ASK).headers["x-request-id"])


def refused(client: TestClient, body: Any) -> tuple[int, str | None, str]:
    answer = client.post("/v1/feedback", **({"content": body} if isinstance(body, bytes) else {"json": body}))
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert answer.headers["x-should-retry"] == "false"
    return answer.status_code, error["param"], error["message"]


def test_the_answer_repeats_what_is_kept_and_has_an_id_of_its_own(client: TestClient) -> None:
    rated = called(client)
    answer = client.post(
        "/v1/feedback", json={"request_id": rated, "thumbs": "down", "label": "wrong", "comment": "no"}
    )
    assert answer.json() == {"object": "feedback", "request_id": rated, "score": 0.0, "label": "wrong"}
    assert answer.headers["x-request-id"] not in ("", rated)
    assert answer.headers["x-ratelimit-remaining-requests"] == "38"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"score": 1}, "request_id", "missing required field `request_id`"),
        ({"request_id": ID}, "score", "either score"),
        ({"request_id": ID, "score": 1, "thumbs": "up"}, "score", "either score"),
        ({"request_id": ID, "score": 1.01}, "score", "<= 1"),
        ({"request_id": ID, "score": -0.01}, "score", ">= 0"),
        ({"request_id": ID, "score": "1"}, "score", "got `str`"),
        ({"request_id": ID, "score": True}, "score", "got `bool`"),
        ({"request_id": ID, "thumbs": "sideways"}, "thumbs", "Invalid enum value"),
        ({"request_id": "req_1", "score": 1}, "request_id", "regex"),
        ({"request_id": ID * 1000, "score": 1}, "request_id", "regex"),
        ({"request_id": None, "score": 1}, "request_id", "got `null`"),
        ({"request_id": ID, "score": 1, "label": "two words"}, "label", "regex"),
        ({"request_id": ID, "score": 1, "label": "line\n"}, "label", "a label is"),
        ({"request_id": ID, "score": 1, "comment": "c" * (COMMENT_CHARS + 1)}, "comment", "length"),
        ({"request_id": ID, "score": 1, "coment": "typo"}, None, "unknown field `coment`"),
        ([1], None, "must be a JSON object"),
        (b"", None, "empty"),
        (b"{", None, "not valid JSON"),
        (b'{"request_id": "' + ID.encode() + b'", "score": NaN}', None, "not valid JSON"),
        (b'{"a":' * 5000, None, "nested too deeply"),
        (b"\xff\xfe", None, "JSON"),
    ],
)
def test_a_wrong_body_is_a_400_that_names_what_is_wrong(client: TestClient, body: Any, param: str, words: str) -> None:
    status, said, message = refused(client, body)
    assert (status, said) == (400, param)
    assert words in message


def test_a_call_that_is_not_there_is_a_404(client: TestClient) -> None:
    assert refused(client, {"request_id": ID, "score": 1}) == (
        404,
        "request_id",
        "there is no call with this request_id",
    )


def test_a_body_that_is_too_large_is_a_413(client: TestClient) -> None:
    body = b'{"request_id": "%b", "score": 1, "comment": "%b"}' % (ID.encode(), b"c" * BODY_BYTES)
    assert refused(client, body)[0] == 413


def test_who_has_no_good_key_rates_nothing(client: TestClient) -> None:
    rated = called(client)
    answer = client.post(
        "/v1/feedback", json={"request_id": rated, "score": 1}, headers={"authorization": "Bearer cv_000000000000_00"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_feedback_counts_against_the_keys_limit(client: TestClient) -> None:
    body = {"request_id": called(client), "score": 1}
    answers = [client.post("/v1/feedback", json=body).status_code for _ in range(45)]
    assert (answers.count(200), set(answers)) == (39, {200, 429})


def test_it_is_found_by_post_alone(client: TestClient) -> None:
    assert client.get("/v1/feedback").status_code == 405


fields = st.sampled_from(["request_id", "score", "thumbs", "label", "comment", "x"])
scalars = st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from([ID, "up", "down"])


@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(fields, inner)))
def test_whatever_comes_is_understood_or_refused(body: Any) -> None:
    raw = json.dumps(body).encode()
    try:
        rated = parse(raw)
    except InvalidRequest:
        return
    assert 0 <= rated.score <= 1
