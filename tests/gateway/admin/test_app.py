import pytest
from prometheus_client import CollectorRegistry, Counter
from starlette.testclient import TestClient

from conclave.gateway.admin.app import create_admin_app


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_metrics_are_those_of_the_registry_it_was_given(registry: CollectorRegistry) -> None:
    Counter("tried_total", "Tries.", registry=registry).inc(3)
    answer = TestClient(create_admin_app(dict, registry)).get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "tried_total 3.0" in answer.text
    assert "python_info" not in answer.text


def test_readiness_is_asked_anew_each_time(registry: CollectorRegistry) -> None:
    checks = {"journal": "ok"}
    client = TestClient(create_admin_app(lambda: checks, registry))
    assert client.get("/readyz").status_code == 200
    checks["journal"] = "the disk is full"
    unready = client.get("/readyz")
    assert (unready.status_code, unready.json()["checks"]) == (503, {"journal": "the disk is full"})
    assert client.get("/livez").status_code == 200


def test_a_note_is_shown_and_hinders_nothing(registry: CollectorRegistry) -> None:
    answer = TestClient(create_admin_app(lambda: {"journal": "ok", "policy": "note: a change waits"}, registry))
    ready = answer.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["policy"]) == (200, "note: a change waits")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/docs", "/openapi.json"])
def test_it_takes_no_calls_and_shows_nothing_else(registry: CollectorRegistry, path: str) -> None:
    assert TestClient(create_admin_app(dict, registry)).get(path).status_code == 404
