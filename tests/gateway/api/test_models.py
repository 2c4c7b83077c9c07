"""`/v1/models` and one of its entries: what a key reaches, and that nothing is deleted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from conclave.gateway.app import create_app
from conclave.gateway.settings import load_settings

POLICY = """
policy:
  experts: {quoting: {kind: quoting}}
  aliases: {"ft:gpt-4o-mini:acme:x:1": auto, "acme/large": quoting}
  limits: {requests_per_minute: 100}
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    (tmp_path / "conclave.yaml").write_text(POLICY)
    app = create_app(load_settings(tmp_path / "conclave.yaml", state_dir=tmp_path / "state"))
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        yield client


@pytest.mark.parametrize("model", ["auto", "auto:best", "quoting", "ft:gpt-4o-mini:acme:x:1", "acme/large"])
def test_each_listed_model_can_be_retrieved_alone(client: TestClient, model: str) -> None:
    listed = {entry["id"]: entry for entry in client.get("/v1/models").json()["data"]}
    answer = client.get(f"/v1/models/{model}")
    assert (answer.status_code, answer.json()) == (200, listed[model])
    assert answer.headers["x-ratelimit-remaining-requests"] == "98"
    assert client.get(f"/v1/models/{model.replace('/', '%2F').replace(':', '%3A')}").json() == listed[model]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("model", ["gpt-9", "auto/", "a" * 5000, "%00", "../livez", " "])
def test_a_name_that_is_not_listed_is_a_404_that_says_where_to_look(
    client: TestClient, method: str, model: str
) -> None:
    answer = client.request(method, f"/v1/models/{model.replace('..', '%2e%2e')}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "GET /v1/models" in answer.json()["error"]["message"]
    assert len(answer.content) < 400
    assert answer.headers["x-should-retry"] == "false"


def test_deleting_a_model_says_that_nothing_was_deleted(client: TestClient) -> None:
    answer = client.delete("/v1/models/quoting")
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["object"], answer.json()["deleted"]) == ("quoting", "model", False)
    assert "policy" in answer.json()["conclave"]["reason"]
    assert client.get("/v1/models/quoting").status_code == 200


def test_a_stranger_learns_no_names(client: TestClient) -> None:
    for method in ("GET", "DELETE"):
        answer = client.request(method, "/v1/models/quoting", headers={"authorization": "Bearer cv_000000000000_00"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_another_method_is_told_the_right_ones(client: TestClient) -> None:
    answer = client.post("/v1/models/quoting")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "DELETE"}
