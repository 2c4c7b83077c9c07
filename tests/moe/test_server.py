"""The local expert over HTTP: the real openai client against a real server, and everything that is asked wrongly."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch

from conclave.moe.engine import Engine
from conclave.moe.errors import ExpertError
from conclave.moe.requests import read
from conclave.moe.server import BODY_BYTES
from conclave.moe.stops import StopText
from tests.moe.serving import CONTEXT, NATIVE, engine_on, loaded, server, write_model

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def engines() -> list[Engine]:
    """Those that the server has made."""
    return []


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, engines: list[Engine]) -> Iterator[str]:
    torch.set_num_threads(1)
    checkpoint = loaded(write_model(tmp_path_factory.mktemp("small") / "small"))

    def make() -> Engine:
        engines.append(engine_on(checkpoint))
        return engines[-1]

    with server(make) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def post(url: str, body: bytes | dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"} | headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def get(url: str, path: str, **headers: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers), timeout=60) as answer:
        return answer.read()


def test_plain_and_streamed_say_the_same(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model="small", messages=HELLO, max_tokens=12)
    with client.chat.completions.create(
        model="small", messages=HELLO, max_tokens=12, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain.choices[0].message.content
    assert len(chunks) > 6, "token by token"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == plain.choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert plain.usage is not None
    assert plain.usage.completion_tokens == 12
    assert plain.usage.total_tokens == plain.usage.prompt_tokens + 12


def test_usage_says_what_the_routing_did(client: openai.OpenAI) -> None:
    def used(**moe: Any) -> dict[str, Any]:
        extra = {"conclave": {"moe": moe}}
        usage = client.chat.completions.create(model="small", messages=HELLO, max_tokens=4, extra_body=extra).usage
        return dict(usage.model_extra or {}) if usage else {}

    assert used() == {"experts_per_token": NATIVE, "flops_saved": 0}
    less = used(policy={"name": "topp", "p": 0.4}, experts_max=2)
    assert less["experts_per_token"] <= 2
    assert less["flops_saved"] > 0


def test_logprobs_have_openais_shape(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="small", messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2, stop=None
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert [len(token.top_logprobs) for token in found.content] == [2, 2, 2]
    assert found.content[0].top_logprobs[0].token == found.content[0].token


def test_a_client_that_closes_its_connection_ends_its_call(url: str, engines: list[Engine]) -> None:
    for stream in (True, False):
        body = json.dumps({"model": "small", "messages": HELLO, "max_tokens": 190, "stream": stream}).encode()
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as raw:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
            raw.sendall(head.encode() + body)
            if stream:
                assert raw.recv(100)
            else:
                until_running(engines[0], 1)
        until_running(engines[0], 0)
    assert b'conclave_moe_calls_total{ending="left"} 2.0' in get(url, "/metrics")


def until_running(engine: Engine, calls: int) -> None:
    for _ in range(2000):
        if engine.load().running == calls:
            return
    raise AssertionError(f"never {calls} calls")


def test_models_health_and_metrics_tell_numbers_and_no_text(url: str) -> None:
    post(url, {"model": "small", "messages": [{"role": "user", "content": "xyzzy"}], "max_tokens": 2})
    assert json.loads(get(url, "/v1/models"))["data"][0]["id"] == "small"
    assert json.loads(get(url, "/health"))["status"] == "ok"
    page = get(url, "/metrics").decode()
    for name in ("load", "entropy", "null_share", "experts_per_token"):
        assert f"conclave_moe_layer_{name}" in page
    assert "xyzzy" not in page


IMAGE = {"role": "user", "content": [{"type": "image_url"}]}
BAD: list[tuple[str, bytes | dict[str, Any], int, str, str | None]] = [
    ("no JSON", b"{", 400, "no JSON", None),
    ("not UTF-8", b'{"model": "\xff"}', 400, "", None),
    ("empty", b"", 400, "no JSON", None),
    ("deep", b'{"messages": ' + b"[" * 5000, 400, "", "messages[0]"),
    ("a list", b"[]", 400, "Expected `object`", None),
    ("no messages", {"messages": []}, 400, "length >= 1", "messages"),
    ("a tool's message", {"messages": [{"role": "tool", "content": "x"}]}, 400, "role", "messages[0].role"),
    ("an image", {"messages": [IMAGE]}, 400, "reads text", "messages[0].content"),
    ("another model", {"model": "gpt-9"}, 404, "has the model 'small'", "model"),
    ("temperature as text", {"temperature": "hot"}, 400, "Expected `float", "temperature"),
    ("hot", {"temperature": 3}, 400, "<= 2", "temperature"),
    ("top_p 0", {"top_p": 0}, 400, "> 0", "top_p"),
    ("no tokens", {"max_tokens": 0}, 400, ">= 1", "max_tokens"),
    ("a huge seed", {"seed": 2**80}, 400, "", "seed"),
    ("an empty stop", {"stop": ""}, 400, "stop takes", "stop"),
    ("five stops", {"stop": ["a"] * 5}, 400, "stop takes", "stop"),
    ("two answers", {"n": 2}, 400, "no n", "n"),
    ("tools", {"tools": [{"type": "function"}]}, 400, "no tools", "tools"),
    ("a schema", {"response_format": {"type": "json_object"}}, 400, "response_format", "response_format"),
    ("a penalty", {"presence_penalty": 1.0}, 400, "presence_penalty", "presence_penalty"),
    ("a prefill", {"continue_final_message": True}, 400, "no continue", "continue_final_message"),
    ("top_logprobs alone", {"top_logprobs": 2}, 400, "needs logprobs", "top_logprobs"),
    ("moe misspelt", {"conclave": {"moe": {"polcy": "topk"}}}, 400, "polcy", "conclave.moe"),
    ("experts_max 0", {"conclave": {"moe": {"experts_max": 0}}}, 400, ">= 1", "conclave.moe.experts_max"),
    ("no name", {"conclave": {"moe": {"policy": {"name": {"x": 1}}}}}, 400, "offers", "conclave.moe.policy"),
    ("several policies", {"conclave": {"moe": {"policy": {"name": ["topk"]}}}}, 400, "offers", "conclave.moe.policy"),
    ("another policy", {"conclave": {"moe": {"policy": "null"}}}, 400, "offers", "conclave.moe.policy"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "words", "param"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_bad_input_is_answered_with_what_was_meant(
    url: str, body: bytes | dict[str, Any], status: int, words: str, param: str | None
) -> None:
    whole = body if isinstance(body, bytes) else {"model": "small", "messages": HELLO} | body
    found, headers, answer = post(url, whole)
    error = json.loads(answer)["error"]
    assert (found, set(error)) == (status, {"message", "type", "param", "code"})
    assert words in error["message"]
    assert error["param"] == param
    assert headers["x-should-retry"] == "false"


def test_too_many_words_are_the_clients_context_length_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "word " * 5000}], stream=True
        )
    assert refused.value.code == "context_length_exceeded"
    assert str(CONTEXT) in refused.value.message


def test_a_body_beyond_any_context_is_too_large(url: str) -> None:
    status, _, answer = post(url, b" " * (BODY_BYTES + 1))
    assert (status, json.loads(answer)["error"]["code"]) == (413, "request_too_large")


def test_unknown_paths_and_methods_get_the_envelope(url: str) -> None:
    status, _, body = post(url, {}, "/v1/nothing")
    assert (status, json.loads(body)["error"]["code"]) == (404, "not_found")
    status, _, body = post(url, {}, "/v1/models")
    assert (status, json.loads(body)["error"]["code"]) == (405, "method_not_allowed")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        get(url, "/v1/chat/completions")


def test_with_a_key_only_health_is_open(tmp_path_factory: pytest.TempPathFactory) -> None:
    checkpoint = loaded(write_model(tmp_path_factory.mktemp("keyed") / "small"))
    with server(lambda: engine_on(checkpoint), {"api_key": "s3cret"}) as url:
        body = {"model": "small", "messages": HELLO, "max_tokens": 1}
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer s3cre\u00e9"}):
            status, _, answer = post(url, body, **headers)
            assert (status, json.loads(answer)["error"]["code"]) == (401, "invalid_api_key")
        assert post(url, body, authorization="Bearer s3cret")[0] == 200
        assert json.loads(get(url, "/health"))["status"] == "ok"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(url, "/metrics")


@pytest.mark.parametrize(
    ("stops", "pieces", "shown"),
    [
        (("END",), ["a E", "N", "D b"], ["a ", "", ""]),
        (("END",), ["a E", "xN", "D"], ["a ", "ExN", "D"]),
        (("aab",), ["aa", "ab", "c"], ["", "a", ""]),
        (("b", "a"), ["xyab"], ["xy"]),
        ((), ["END"], ["END"]),
    ],
    ids=["in pieces", "false start", "overlap", "the first that comes", "none"],
)
def test_nothing_of_a_stop_string_is_ever_shown(stops: tuple[str, ...], pieces: list[str], shown: list[str]) -> None:
    text = StopText(stops)
    assert [text.feed(piece) for piece in pieces] == shown


def test_what_changes_nothing_here_is_let_pass() -> None:
    given = {
        "user": "u",
        "store": True,
        "metadata": {},
        "n": 1,
        "tools": [],
        "modalities": ["text"],
    }
    assert read(json.dumps({"model": "m", "messages": HELLO} | given).encode()).model == "m"


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    ask = read(json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode())
    assert ask.messages == ({"role": "user", "content": "a\nb"},)


def test_every_failure_has_its_own_code() -> None:
    def leaves(kind: type[ExpertError]) -> list[type[ExpertError]]:
        return [leaf for child in kind.__subclasses__() for leaf in (leaves(child) or [child])]

    codes = [leaf.code for leaf in leaves(ExpertError)]
    assert len(codes) == len(set(codes))
