"""The OpenAPI document: what it says is what is served, and its schemas take what the gateway takes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.testclient import TestClient

from conclave.gateway import errors
from conclave.gateway.api import chat, completions, embeddings, moderations
from conclave.gateway.api.openapi import CALL_REFUSALS, described
from conclave.gateway.app import create_app
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import ConclaveError
from conclave.gateway.settings import load_settings

DOCUMENT = described()
USER = {"role": "user", "content": "hi"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    config = tmp_path / "conclave.yaml"
    config.write_text("policy: {experts: {quoting: {kind: quoting}}}")
    with TestClient(
        create_app(load_settings(config, state_dir=tmp_path / "state")), base_url="http://127.0.0.1:8080"
    ) as client:
        yield client


def test_it_is_served_without_a_key(client: TestClient) -> None:
    answer = client.get("/openapi.json", headers={"authorization": "Bearer cv_000000000000_00"})
    assert answer.status_code == 200
    assert answer.json() == DOCUMENT
    assert answer.headers["x-request-id"].startswith("req_")


def test_what_is_served_is_described_and_nothing_else(client: TestClient) -> None:
    served = {
        (route.path.replace(":path", ""), method)
        for route in _routes(client.app)
        for method in route.methods or ()
        if method != "HEAD"
    }
    described_ = {
        (path, method.upper()) for path, item in DOCUMENT["paths"].items() for method in item if method != "parameters"
    }
    assert served == described_


def _routes(app: Any) -> list[Route | APIRoute]:
    """All routes, those of included routers too."""
    found: list[Route | APIRoute] = []
    for route in app.routes:
        if isinstance(route, Route | APIRoute):
            found.append(route)
        else:
            found += [inner for inner in route.original_router.routes if isinstance(inner, Route | APIRoute)]
    return found


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models", "/openapi.json", "/nothing-here"])
def test_every_answer_has_a_request_id_of_its_own(client: TestClient, path: str) -> None:
    first, second = (client.get(path).headers["x-request-id"] for _ in range(2))
    assert first.startswith("req_")
    assert first != second


@pytest.mark.parametrize(
    ("value", "fits"), [("search", True), ("a b=c", True), ("a,b", False), ("", False), (" a", False), ("é", False)]
)
def test_tags_in_the_header_are_described_as_they_are_read(client: TestClient, value: str, fits: bool) -> None:
    described_ = next(one for one in DOCUMENT["paths"]["/v1/embeddings"]["parameters"] if one["in"] == "header")
    assert jsonschema.Draft202012Validator(described_["schema"]).is_valid({"team": value}) == fits
    if value.isascii() and value == value.strip():  # else it is no header, or another one
        sent = client.post(
            "/v1/embeddings", json={"model": "encoder", "input": "a"}, headers={"x-conclave-tags": f"team={value}"}
        )
        assert (sent.json().get("error", {}).get("param") != "x-conclave-tags") == fits


def test_every_status_that_an_error_has_is_described() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ConclaveError)]
    assert {str(kind.status) for kind in kinds} == set(CALL_REFUSALS)
    for path in ("chat/completions", "completions", "embeddings", "moderations"):
        assert set(DOCUMENT["paths"][f"/v1/{path}"]["post"]["responses"]) == {"200", *CALL_REFUSALS}


def test_every_reference_leads_somewhere() -> None:
    named = {part.partition('"')[0] for part in json.dumps(DOCUMENT).split("#/components/schemas/")[1:]}
    assert named <= DOCUMENT["components"]["schemas"].keys()
    assert {"ChatBody", "EmbeddingsBody", "Error"} <= named


def valid(name: str, value: Any) -> bool:
    schema = {**DOCUMENT["components"]["schemas"][name], "components": DOCUMENT["components"]}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


Parse = Callable[[bytes], ModelRequest]


@pytest.mark.parametrize(
    ("name", "parse", "body"),
    [
        ("ChatBody", chat.parse, {"messages": [USER]}),
        ("ChatBody", chat.parse, {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}], "x": [1]}),
        ("ChatBody", chat.parse, {"messages": [USER], "stop": ["a"], "n": 2, "conclave": {"tags": {"team": "a"}}}),
        ("CompletionsBody", completions.parse, {"prompt": ["a", "b"], "logprobs": 3}),
        ("EmbeddingsBody", embeddings.parse, {"input": [[1, 2], [3]], "stream": False}),
        ("ModerationsBody", moderations.parse, {"input": [{"type": "text", "text": "a"}]}),
        (
            "ModerationsBody",
            moderations.parse,
            {"input": [{"type": "image_url", "image_url": "https://example.com/a.png", "file": {"filename": 1}}]},
        ),
    ],
)
def test_what_the_schema_takes_is_taken(name: str, parse: Parse, body: dict[str, Any]) -> None:
    body = {"model": "auto", **body}
    assert valid(name, body)
    assert parse(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("name", "body"),
    [
        pytest.param("ChatBody", {"messages": []}, id="no-message"),
        pytest.param("ChatBody", {"messages": [{"role": "user"}]}, id="a-silent-user"),
        pytest.param("ChatBody", {"messages": [{**USER, "content": [{"type": "text"}]}]}, id="a-text-without-text"),
        pytest.param("ChatBody", {"messages": [{**USER, "content": [{"type": "smell"}]}]}, id="a-part-nobody-takes"),
        pytest.param("ChatBody", {"messages": [USER], "conclave": {"tags": {"Team": "a"}}}, id="a-tag-in-capitals"),
        pytest.param("CompletionsBody", {"prompt": ["a", 1]}, id="a-mixture"),
        pytest.param("EmbeddingsBody", {"input": []}, id="nothing-to-embed"),
        pytest.param("EmbeddingsBody", {"input": "a", "stream": True}, id="a-stream-of-embeddings"),
        pytest.param("EmbeddingsBody", {"input": "a", "stream": {}}, id="embeddings-with-an-object-for-stream"),
        pytest.param("ModerationsBody", {"input": "a", "stream": []}, id="moderations-with-a-list-for-stream"),
        pytest.param("ModerationsBody", {"input": ["a", {"type": "text", "text": "a"}]}, id="mixed-parts"),
    ],
)
def test_what_is_refused_later_the_schema_refuses(client: TestClient, name: str, body: dict[str, Any]) -> None:
    path = next(p for p, item in DOCUMENT["paths"].items() if name in json.dumps(item.get("post", {})))
    assert not valid(name, {"model": "auto", **body})
    assert client.post(path, json={"model": "auto", **body}).status_code == 400
