"""CORS: what a browser is told, for a listed page, another one, and none; on answers, errors and preflights."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from conclave.gateway.api.cors import Cors
from conclave.gateway.app import create_app
from conclave.gateway.settings import load_settings
from conclave.gateway.settings import origin as origin_of

APP = "https://app.example"
EVIL = "https://evil.example"
SDK = "authorization,content-type,x-stainless-lang,x-stainless-retry-count,x-conclave-tags"
QUOTE = {"model": "quoting", "messages": [{"role": "user", "content": "What is Conclave?"}]}


def client_of(folder: Path, cors: str) -> TestClient:
    config = folder / "conclave.yaml"
    config.write_text(f"server: {{cors: {cors}}}\npolicy: {{experts: {{quoting: {{kind: quoting}}}}}}")
    app = create_app(load_settings(config, state_dir=folder / "state"))
    return TestClient(app, base_url="http://127.0.0.1:8080")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with client_of(tmp_path, f"{{origins: [{APP}], max_age_s: 60}}") as client:
        yield client


def preflight(client: TestClient, origin: str, path: str = "/v1/chat/completions", headers: str = SDK) -> Any:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": headers}
    return client.options(path, headers={"origin": origin, **asks})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/embeddings"])
def test_a_listed_page_gets_leave_without_a_key_and_for_all_that_the_sdk_sends(client: TestClient, path: str) -> None:
    answer = preflight(client, APP, path)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-headers"] == SDK
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-max-age"] == "60"
    assert "access-control-allow-credentials" not in answer.headers
    assert "origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "origin", [EVIL, "null", f"{APP}.evil.example", "http://app.example", f"{APP}:444", "HTTPS://APP.EXAMPLE", ""]
)
def test_another_page_gets_none(client: TestClient, origin: str) -> None:
    answer = preflight(client, origin)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forbidden"
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("asked", ["x: y\r\nset-cookie", "a" * 65, "", "a,,b", ",".join(["a"] * 65), "é"])
def test_a_preflight_never_repeats_what_is_no_header_name(asked: str) -> None:
    found = Cors([APP]).preflight(APP, asked.encode("latin-1"))
    assert found is not None
    assert (b"access-control-allow-headers", b"authorization, content-type") in found


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_an_answer_may_be_read_by_a_listed_page_with_the_headers_that_it_needs(
    client: TestClient, stream: bool
) -> None:
    answer = client.post("/v1/chat/completions", json={**QUOTE, "stream": stream}, headers={"origin": APP})
    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == APP
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "x-conclave-expert", "x-ratelimit-remaining-requests", "retry-after"} <= set(exposed)
    assert {name for name in answer.headers if name.startswith("x-conclave")} <= set(exposed)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/chat/completions", 400),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/no", 404),
        ("PUT", "/v1/models", 405),
    ],
)
def test_errors_and_lists_may_be_read_too(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, headers={"origin": APP})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == APP


def test_without_a_key_another_page_is_refused_and_cannot_read_why(client: TestClient) -> None:
    answer = client.post("/v1/chat/completions", json=QUOTE, headers={"origin": EVIL})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "origin"


def test_a_program_without_an_origin_is_served_as_ever(client: TestClient) -> None:
    answer = client.post("/v1/chat/completions", json=QUOTE)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_any_origin_may_read_but_not_call_without_a_key(tmp_path: Path) -> None:
    with client_of(tmp_path, "{origins: ['*']}") as client:
        assert preflight(client, EVIL).status_code == 204
        answer = client.post("/v1/chat/completions", json=QUOTE, headers={"origin": EVIL})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (403, "*")


@pytest.mark.parametrize(
    ("said", "write"),
    [
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("https://[2001:db8::1]:443", "https://[2001:db8::1]"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_with_the_one_that_it_does(said: str, write: str) -> None:
    with pytest.raises(ValueError, match=rf"write {re.escape(write)}$"):
        origin_of(said)
    assert origin_of(write) == write


@pytest.mark.parametrize("said", ["https://app.example:80", "http://app.example:443", "https://app.example:8443"])
def test_a_port_that_is_not_the_schemes_own_stays(said: str) -> None:
    assert origin_of(said) == said


def test_a_colon_without_a_port_is_no_origin() -> None:
    with pytest.raises(ValueError, match="is no origin"):
        origin_of("https://app.example:")


def test_off_by_default(tmp_path: Path) -> None:
    with client_of(tmp_path, "{}") as client:
        assert preflight(client, APP).status_code == 405
        answer = client.get("/v1/models", headers={"origin": "http://localhost:3000"})
        assert answer.status_code == 200
        assert not any(name.startswith(("access-control", "vary")) for name in answer.headers)


def test_the_endpoints_beside_the_api_are_no_pages_business(client: TestClient) -> None:
    assert "access-control-allow-origin" not in client.get("/livez", headers={"origin": APP}).headers
