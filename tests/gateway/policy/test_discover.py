"""Which experts the environment offers, and what becomes of half a word."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from conclave.gateway.experts.egress import Egress
from conclave.gateway.policy.discover import OPENAI_BESIDE, OPENAI_MODEL, Found, Offered, discover, first_model
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete


def offered(*, whole: bool = False, **environ: str) -> dict[str, tuple[str | None, str | None, str | None]]:
    found = discover(environ, first_model=lambda url, _: f"first of {url}")
    beside = {} if whole else OPENAI_BESIDE
    return {name: (e.base_url, e.model, e.api_key_env) for name, e in found.experts.items() if name not in beside}


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


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("mistral", "https://api.mistral.ai/v1"),
        ("groq", "https://api.groq.com/openai/v1"),
        ("deepseek", "https://api.deepseek.com/v1"),
        ("xai", "https://api.x.ai/v1"),
        ("cohere", "https://api.cohere.ai/compatibility/v1"),
        ("openrouter", "https://openrouter.ai/api/v1"),
        ("together", "https://api.together.xyz/v1"),
        ("fireworks", "https://api.fireworks.ai/inference/v1"),
    ],
)
def test_a_provider_that_speaks_the_openai_api_needs_no_litellm(name: str, url: str) -> None:
    key, model = f"{name.upper()}_API_KEY", f"{name.upper()}_MODEL"
    found = discover({key: "k"}, first_model=lambda *_: None, installed=lambda _: False)
    expert = found.experts[name]
    assert (expert.kind, expert.base_url, expert.api_key_env) == ("openai", url, key)
    assert expert.model
    assert offered(**{key: "k", model: "mine", f"{name.upper()}_BASE_URL": "http://h/v1"})[name][:2] == (
        "http://h/v1",
        "mine",
    )


def through_litellm(**environ: str) -> Found:
    return discover(environ, first_model=lambda *_: None, installed=lambda _: True)


@pytest.mark.parametrize(
    ("environ", "name", "model", "key", "params"),
    [
        pytest.param(
            {"ANTHROPIC_API_KEY": "k"}, "anthropic", "anthropic/claude-haiku-4-5", "ANTHROPIC_API_KEY", None,
            id="anthropic",
        ),
        pytest.param(
            {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_MODEL": "claude-x"},
            *("anthropic", "anthropic/claude-x", "ANTHROPIC_API_KEY", None), id="anthropic-model",
        ),
        pytest.param(
            {"GEMINI_API_KEY": "k", "GEMINI_MODEL": "gemini/g"}, "gemini", "gemini/g", "GEMINI_API_KEY", None,
            id="a-model-with-its-provider",
        ),
        pytest.param(
            {"AWS_BEARER_TOKEN_BEDROCK": "k", "AWS_REGION": "eu-central-1"},
            *("bedrock", "bedrock/eu.amazon.nova-lite-v1:0", "AWS_BEARER_TOKEN_BEDROCK"),
            {"aws_region_name": "eu-central-1"}, id="bedrock-by-token",
        ),
        pytest.param(
            {"AWS_ACCESS_KEY_ID": "k", "BEDROCK_MODEL": "m", "AWS_DEFAULT_REGION": "us-east-1"},
            *("bedrock", "bedrock/m", None, {"aws_region_name": "us-east-1"}), id="bedrock-by-name",
        ),
        pytest.param(
            {"VERTEXAI_PROJECT": "p", "VERTEXAI_LOCATION": "l"},
            *("vertexai", "vertex_ai/gemini-2.5-flash", None, {"vertex_project": "p", "vertex_location": "l"}),
            id="vertex",
        ),
    ],
)  # fmt: skip
def test_a_provider_with_an_api_of_its_own_is_reached_through_litellm(
    *, environ: dict[str, str], name: str, model: str, key: str | None, params: dict[str, str] | None
) -> None:
    found = through_litellm(**environ)
    expert = found.experts[name]
    assert (expert.kind, expert.model, expert.api_key_env, expert.params) == ("litellm", model, key, params)
    assert found.notes == ()


def test_azure_speaks_the_openai_api() -> None:
    expert = through_litellm(AZURE_API_KEY="k", AZURE_API_BASE="https://r.openai.azure.com/", AZURE_MODEL="d")
    azure = expert.experts["azure"]
    assert (azure.kind, azure.base_url, azure.model) == ("openai", "https://r.openai.azure.com/openai/v1", "d")


def test_without_litellm_one_note_says_what_to_install() -> None:
    said = {"ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k", "GROQ_API_KEY": "k"}
    found = discover(said, first_model=lambda *_: None, installed=lambda _: False)
    assert list(found.experts) == ["groq"]
    (note,) = found.notes
    assert note.where == "ANTHROPIC_API_KEY, GEMINI_API_KEY"
    assert "make install EXTRAS=providers" in note.message


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        pytest.param({"AZURE_API_KEY": "k"}, "AZURE_API_BASE and AZURE_MODEL", id="azure"),
        pytest.param({"AWS_BEARER_TOKEN_BEDROCK": "k"}, "AWS_REGION", id="bedrock"),
        pytest.param({"VERTEXAI_PROJECT": "p"}, "VERTEXAI_LOCATION", id="vertex"),
    ],
)
def test_half_a_cloud_is_said_and_left_out(environ: dict[str, str], missing: str) -> None:
    found = through_litellm(**environ)
    assert found.experts == {}
    (note,) = found.notes
    assert missing in note.message


def test_an_aws_key_alone_makes_no_expert() -> None:
    """It is set for many reasons, and a model costs money."""
    assert through_litellm(AWS_ACCESS_KEY_ID="k", AWS_REGION="us-east-1") == Found({}, ())


def test_nothing_is_found_in_nothing_and_empty_variables_are_nothing() -> None:
    assert offered() == offered(OPENAI_API_KEY="", OLLAMA_HOST="  ") == {}


def test_all_that_is_offered_is_found_in_one_order() -> None:
    everything = {"VLLM_BASE_URL": "http://a/v1", "OLLAMA_HOST": "b", "OPENAI_API_KEY": "k"}
    assert list(offered(**everything)) == ["openai", "ollama", "vllm"]


def test_openai_itself_also_serves_embeddings_moderations_and_completions_by_their_models_names() -> None:
    found = offered(whole=True, OPENAI_API_KEY="k", OPENAI_MODEL="gpt-5")
    for model in ("text-embedding-3-small", "omni-moderation-latest", "gpt-3.5-turbo-instruct"):
        assert found[model] == ("https://api.openai.com/v1", model, "OPENAI_API_KEY")
    elsewhere = offered(whole=True, OPENAI_API_KEY="k", OPENAI_BASE_URL="http://h:9/v1")
    assert list(elsewhere) == ["openai"]


def test_models_that_do_not_chat_are_no_fallbacks_of_a_chat() -> None:
    found = discover({"OPENAI_API_KEY": "k"}, first_model=lambda *_: None)
    assert complete(PolicyDocument(), found.experts).default == ("openai",)


def test_a_key_is_never_copied() -> None:
    found = discover({"OPENAI_API_KEY": "sk-secret"}, first_model=lambda *_: None)
    assert "sk-secret" not in repr(found)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({"OLLAMA_HOST": "box"}, "within 2 s: start it first, or set OLLAMA_MODEL", id="nobody-answers"),
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


@dataclass
class Asked:
    """A server of one answer, and what it was asked: the first line, and the headers."""

    url: str
    requests: list[tuple[str, dict[str, str]]]


@contextmanager
def answering(status: int, body: bytes = b"", **headers: str) -> Iterator[Asked]:
    requests: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append((self.requestline, {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_CONNECT = do_GET  # noqa: N815  as http.server calls it

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Asked(f"http://127.0.0.1:{http.server_port}", requests)
        http.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_and_no_key_is_carried_along(status: int) -> None:
    with answering(200, ANSWERS["/v1/models"]) as elsewhere:
        with answering(status, Location=f"{elsewhere.url}/v1/models") as here:
            assert first_model(f"{here.url}/v1", "k") is None
        assert len(here.requests) == 1
    assert elsewhere.requests == []


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_sees_no_key(server: str, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with answering(502) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        assert first_model(f"{server}/v1", "k") == "llama3.2"
    assert proxy.requests == []


def test_the_proxy_that_experts_go_through_is_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with answering(200, ANSWERS["/v1/models"]) as proxy:
        through = Egress(proxy=proxy.url.replace("//", "//me:a%40b@"))
        assert first_model("http://models.example:8000/v1", "k", through) == "llama3.2"
        ((line, headers),) = proxy.requests
        assert line == "GET http://models.example:8000/v1/models HTTP/1.1"
        assert headers["authorization"] == "Bearer k"
        assert headers["proxy-authorization"] == "Basic bWU6YUBi"
        assert first_model("http://127.0.0.1:1/v1", "k", through) is None
        assert len(proxy.requests) == 1, "what is on this machine is not asked through it"


def test_a_server_with_tls_is_asked_in_a_tunnel_whose_maker_sees_no_key() -> None:
    with answering(502) as proxy:
        assert first_model("https://models.example/v1", "k", Egress(proxy=proxy.url)) is None
        ((line, headers),) = proxy.requests
    assert line.startswith("CONNECT models.example:443 ")
    assert "authorization" not in headers


def test_a_server_that_has_answered_is_not_asked_again() -> None:
    says: dict[str, str | None] = {"a": "m", "b": None}
    offered = Offered(lambda url, _: says[url])
    assert [offered("a", "k"), offered("b", "k")] == ["m", None]
    says |= {"a": None, "b": "n"}
    assert [offered("a", "k"), offered("b", "k")] == ["m", "n"]
    assert offered.known == {"a": "m", "b": "n"}


def test_a_server_that_is_not_there_is_none() -> None:
    assert first_model("http://127.0.0.1:1/v1", None) is None
