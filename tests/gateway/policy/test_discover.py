"""Which experts the environment offers, and what becomes of half a word."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from conclave.gateway.policy.discover import OPENAI_MODEL, discover, first_model


def offered(**environ: str) -> dict[str, tuple[str | None, str | None, str | None]]:
    found = discover(environ, first_model=lambda url, _: f"first of {url}")
    return {name: (e.base_url, e.model, e.api_key_env) for name, e in found.experts.items()}


@pytest.mark.parametrize(
    ("environ", "name", "url", "model", "key"),
    [
        pytest.param(
            {"OPENAI_API_KEY": "k"}, "openai", "https://api.openai.com/v1", OPENAI_MODEL, "OPENAI_API_KEY", id="openai"
        ),
        pytest.param(
            {"OPENAI_API_KEY": "k", "OPENAI_MODEL": "gpt-5"},
            *("openai", "https://api.openai.com/v1", "gpt-5", "OPENAI_API_KEY"),
            id="openai-model",
        ),
        pytest.param(
            {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://h:9/v1/"},
            *("openai", "http://h:9/v1", "first of http://h:9/v1", "OPENAI_API_KEY"),
            id="openai-base-url",
        ),
        pytest.param(
            {"OPENAI_BASE_URL": "http://h:9/v1"},
            *("openai", "http://h:9/v1", "first of http://h:9/v1", None),
            id="base-url-without-a-key",
        ),
        pytest.param(
            {"OLLAMA_HOST": "127.0.0.1:11434", "OLLAMA_MODEL": "llama3.2"},
            *("ollama", "http://127.0.0.1:11434/v1", "llama3.2", None),
            id="ollama",
        ),
        pytest.param(
            {"VLLM_BASE_URL": "http://gpu:8000/v1", "VLLM_API_KEY": "k"},
            *("vllm", "http://gpu:8000/v1", "first of http://gpu:8000/v1", "VLLM_API_KEY"),
            id="vllm",
        ),
    ],
)
def test_a_variable_makes_an_expert(
    *, environ: dict[str, str], name: str, url: str, model: str, key: str | None
) -> None:
    assert offered(**environ) == {name: (url, model, key)}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        pytest.param("localhost", "http://localhost:11434/v1", id="name"),
        pytest.param("box:80", "http://box:80/v1", id="port"),
        pytest.param("http://box:80/", "http://box:80/v1", id="url"),
        pytest.param("https://box", "https://box:443/v1", id="https"),
        pytest.param("0.0.0.0", "http://127.0.0.1:11434/v1", id="listens-everywhere"),  # noqa: S104  an input
        pytest.param("0.0.0.0:99", "http://127.0.0.1:99/v1", id="listens-everywhere-on-a-port"),
        pytest.param(":99", "http://127.0.0.1:99/v1", id="port-only"),
        pytest.param("[::1]:99", "http://[::1]:99/v1", id="ipv6"),
        pytest.param("[::1]", "http://[::1]:11434/v1", id="ipv6-without-port"),
    ],
)
def test_all_that_ollama_takes_as_its_host_is_understood(host: str, url: str) -> None:
    assert offered(OLLAMA_HOST=host, OLLAMA_MODEL="m")["ollama"][0] == url


def test_nothing_is_found_in_nothing_and_empty_variables_are_nothing() -> None:
    assert offered() == offered(OPENAI_API_KEY="", OLLAMA_HOST="  ") == {}


def test_all_that_is_offered_is_found_in_one_order() -> None:
    everything = {"VLLM_BASE_URL": "http://a/v1", "OLLAMA_HOST": "b", "OPENAI_API_KEY": "k"}
    assert list(offered(**everything)) == ["openai", "ollama", "vllm"]


def test_a_key_is_never_copied() -> None:
    found = discover({"OPENAI_API_KEY": "sk-secret"}, first_model=lambda *_: None)
    assert "sk-secret" not in repr(found)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({"OLLAMA_HOST": "box"}, "model is missing", id="nobody-answers"),
        pytest.param({"VLLM_BASE_URL": "box:8000", "VLLM_MODEL": "m"}, "http", id="no-url"),
        pytest.param({"VLLM_BASE_URL": "http://u:p@box/v1", "VLLM_MODEL": "m"}, "no user", id="password-in-the-url"),
        pytest.param({"OLLAMA_HOST": "my host"}, "must be an http", id="a-space"),
        pytest.param({"VLLM_BASE_URL": "http://h:abc/v1"}, "must be an http", id="no-port-number"),
        pytest.param(
            {"OPENAI_BASE_URL": "http://[::1/v1", "OPENAI_API_KEY": "k"}, "must be an http", id="open-bracket"
        ),
    ],
)
def test_what_cannot_be_used_is_said_and_left_out(environ: dict[str, str], words: str) -> None:
    found = discover(environ, first_model=lambda *_: None)
    assert found.experts == {}
    (note,) = found.notes
    assert note.where in environ
    assert words in note.message


ANSWERS = {
    "/v1/models": b'{"object": "list", "data": [{"id": "llama3.2"}, {"id": "other"}]}',
    "/empty/models": b'{"data": []}',
    "/html/models": b"<html>",
    "/odd/models": b'{"data": [{"id": 7}]}',
}


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.path != "/v1/models" or self.headers["authorization"] == "Bearer k"
            self.send_response(200 if allowed and self.path in ANSWERS else 401)
            self.end_headers()
            if allowed:
                self.wfile.write(ANSWERS.get(self.path, b""))

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_the_first_model_of_a_server_is_asked_for_with_its_key(server: str) -> None:
    assert first_model(f"{server}/v1", "k") == "llama3.2"


@pytest.mark.parametrize(
    ("path", "key"), [("v1", None), ("empty", None), ("html", None), ("odd", None), ("none", None)]
)
def test_a_server_that_names_no_model_is_none(server: str, path: str, key: str | None) -> None:
    assert first_model(f"{server}/{path}", key) is None


@pytest.mark.parametrize(
    "url", ["http://my host:1/v1", "http://h:abc/v1", "http://[::1/v1"], ids=["space", "port", "bracket"]
)
def test_a_url_that_is_none_has_no_first_model(url: str) -> None:
    assert first_model(url, None) is None


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 abc\r\n\r\n"], ids=["ssh", "none", "bad"])
def test_a_port_that_speaks_no_http_has_no_first_model(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        assert first_model(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", None) is None
        thread.join()


def test_a_server_that_is_not_there_is_none() -> None:
    assert first_model("http://127.0.0.1:1/v1", None) is None
