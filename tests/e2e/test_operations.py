"""Embeddings, completions, moderations and all that a chat can ask for: the openai client against a real gateway.

The upstream is a server in this process that keeps what it was sent and answers as OpenAI does.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from processes import Gateway, launch

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
ASK: Any = [{"role": "user", "content": "hello"}]
LOGPROBS = {"content": [{"token": "a", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}


def chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": choices,
    } | more


def delta(index: int, finish: str | None = None, *, logprobs: Any = None, **said: Any) -> dict[str, Any]:
    return {"index": index, "delta": said, "logprobs": logprobs, "finish_reason": finish}


def call(index: int, **function: str) -> dict[str, Any]:
    begins = {"id": f"call_{index}", "type": "function"} if "name" in function else {}
    return {"index": index, **begins, "function": function}


def chat_events(asked: dict[str, Any]) -> list[dict[str, Any]]:
    if "tools" in asked:
        calls = [call(0, name="look", arguments=""), call(1, name="look", arguments="")]
        more = [call(0, arguments='{"q":1}'), call(1, arguments='{"q":2}')]
        said = [delta(0, role="assistant", content=None, tool_calls=calls), delta(0, tool_calls=more)]
        return [*map(chunk, [*said, delta(0, "tool_calls")])]
    n = asked.get("n", 1)
    words = [chunk(delta(i, content=f"{word}{i}", logprobs=LOGPROBS)) for word in ("a", "b") for i in range(n)]
    begin = [chunk(delta(i, role="assistant", content="")) for i in range(n)]
    ends = [chunk(delta(i, "stop")) for i in range(n)]
    return [*begin, *words[:-1], *ends[:-1], words[-1], ends[-1], chunk(usage=USAGE)]  # one ends early


def text_events(asked: dict[str, Any]) -> list[dict[str, Any]]:
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    pieces = [
        {**head, "choices": [{"index": i, "text": f"t{i}", "logprobs": None, "finish_reason": None}]}
        for i in range(len(asked["prompt"]))
    ]
    end = {**head, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]}
    return [*pieces, end, {**head, "choices": [], "usage": USAGE}]


def plain(path: str, asked: dict[str, Any]) -> dict[str, Any]:
    match path:
        case "/v1/embeddings":
            return {"object": "list", "model": "m", "data": [{"index": 0, "embedding": [1.0, 0.0]}], "usage": USAGE}
        case "/v1/moderations":
            return {"id": "modr-1", "model": "m", "results": [{"flagged": True, "categories": {}}]}
        case "/v1/completions":
            choice = {"index": 0, "text": "native", "logprobs": {"tokens": ["native"]}, "finish_reason": "length"}
            return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
        case _:
            said = {"role": "assistant", "content": "as chat"}
            choices = [{"index": i, "message": said, "finish_reason": "stop"} for i in range(asked.get("n", 1))]
            return {**chunk(), "object": "chat.completion", "choices": choices, "usage": USAGE}


@dataclass
class Upstream:
    port: int = 0
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def last(self, path: str) -> dict[str, Any]:
        """What was sent last, to this path."""
        assert self.asked[-1][0] == path
        return self.asked[-1][1]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    kept = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            kept.asked.append((self.path, asked))
            if asked.get("stream"):
                events = text_events(asked) if self.path == "/v1/completions" else chat_events(asked)
                body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
            else:
                body = json.dumps(plain(self.path, asked)).encode()
            self.send_response(200)
            self.send_header("content-type", "text/event-stream" if asked.get("stream") else "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    base = f"http://127.0.0.1:{upstream.port}/v1"
    experts = {
        "chatter": {"model": "m", "base_url": base},
        "vectors": {"model": "m", "base_url": base, "capabilities": ["embeddings"]},
        "older": {"model": "m", "base_url": base, "capabilities": ["completions"]},
        "judge": {"model": "m", "base_url": base, "capabilities": ["moderations", "images"]},
    }
    policy = {"experts": experts, "aliases": {"text-embedding-3-small": "vectors"}}
    process = launch(tmp_path_factory.mktemp("gateway"), {"policy": policy})
    yield process
    process.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A gateway with nothing but what is built in."""
    folder: Path = tmp_path_factory.mktemp("offline")
    process = launch(folder, {"policy": {"experts": {"quoting": {"kind": "quoting"}}}})
    with openai.OpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0) as client:
        yield client
    process.stop()


def test_embeddings_work_without_any_model_server(offline: openai.OpenAI) -> None:
    near, also, far = offline.embeddings.create(
        model="auto", input=["how to bake bread", "baking bread at home", "quantum field theory"]
    ).data

    def likeness(other: Any) -> float:
        return sum(a * b for a, b in zip(near.embedding, other.embedding, strict=True))

    assert len(near.embedding) == 256
    assert likeness(also) > likeness(far) + 0.2


def test_a_model_that_is_not_there_is_the_clients_not_found_error(offline: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="encoder"):
        offline.embeddings.create(model="text-embedding-3-small", input="x")


def test_what_nobody_can_do_is_a_bad_request_that_is_not_tried_again(offline: openai.OpenAI) -> None:
    audio: Any = [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]
    for ask, words in (
        (lambda: offline.moderations.create(input="x"), "moderations"),
        (lambda: offline.completions.create(model="auto", prompt=["x", "y"]), "completions .a chat has no"),
        (lambda: offline.chat.completions.create(model="auto", messages=[{"role": "user", "content": audio}]), "audio"),
        (lambda: offline.chat.completions.create(model="auto", messages=ASK, modalities=["text", "audio"]), "audio"),
    ):
        with pytest.raises(openai.BadRequestError, match=words) as refused:
            ask()  # type: ignore[no-untyped-call]
        assert refused.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("model", ["auto", "vectors", "text-embedding-3-small"])
def test_an_expert_for_embeddings_comes_before_the_built_in_one(
    client: openai.OpenAI, upstream: Upstream, gateway: Gateway, model: str
) -> None:
    answer = client.embeddings.with_raw_response.create(model=model, input=["x"], dimensions=2, extra_body={"top": 1})
    assert answer.parse().data[0].embedding == [1.0, 0.0]
    sent = upstream.last("/v1/embeddings")
    assert (sent["model"], sent["input"], sent["dimensions"], sent["top"]) == ("m", ["x"], 2, 1)
    row = gateway.row(answer.headers["x-request-id"])
    assert (row["operation"], row["decision"]["steps"][0]["expert"]) == ("embeddings", "vectors")
    assert [segment["place"] for segment in row["segments"]] == ["input[0]"]


def test_token_ids_reach_an_expert_as_they_are(client: openai.OpenAI, upstream: Upstream) -> None:
    client.embeddings.create(model="auto", input=[[1, 2], [3]])
    assert upstream.last("/v1/embeddings")["input"] == [[1, 2], [3]]


def test_a_moderation_goes_to_who_can_judge(client: openai.OpenAI, upstream: Upstream) -> None:
    assert client.moderations.create(input="x").results[0].flagged
    assert upstream.last("/v1/moderations") == {"model": "m", "input": "x"}


def test_a_text_completion_that_no_chat_can_do_is_asked_natively(client: openai.OpenAI, upstream: Upstream) -> None:
    answer = client.completions.create(model="auto", prompt="x", suffix="y", logprobs=2, best_of=2)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("native", "length")
    assert answer.choices[0].logprobs is not None
    assert upstream.last("/v1/completions")["suffix"] == "y"


def test_several_prompts_stream_natively(client: openai.OpenAI, upstream: Upstream) -> None:
    events = list(client.completions.create(model="auto", prompt=["x", "y"], stream=True))
    assert [choice.text for event in events for choice in event.choices] == ["t0", "t1", ""]
    assert upstream.last("/v1/completions")["prompt"] == ["x", "y"]


def test_a_plain_text_completion_is_asked_as_a_chat_where_the_expert_chats(
    client: openai.OpenAI, upstream: Upstream, gateway: Gateway
) -> None:
    answer = client.completions.create(model="chatter", prompt=["once"], echo=False, max_tokens=5, n=2)
    assert (answer.object, answer.choices[1].text, answer.usage) == ("text_completion", "as chat", _usage())
    sent = upstream.last("/v1/chat/completions")
    said = [{"role": "user", "content": "once"}]
    assert sent == {"model": "m", "messages": said, "max_tokens": 5, "n": 2}
    row = gateway.row(answer.model_extra["conclave"]["request_id"])  # type: ignore[index]
    assert (row["operation"], row["segments"][0]["place"]) == ("completions", "prompt[0]")


def test_a_text_completion_asked_as_a_chat_streams(client: openai.OpenAI) -> None:
    events = list(
        client.completions.create(model="chatter", prompt="x", stream=True, stream_options={"include_usage": True})
    )
    assert "".join(choice.text for event in events for choice in event.choices) == "a0b0"
    assert {event.object for event in events} == {"text_completion"}
    assert events[-2].choices[0].finish_reason == "stop"
    assert events[-1].usage == _usage()


def _usage() -> openai.types.CompletionUsage:
    return openai.types.CompletionUsage(**USAGE)


def test_several_answers_stream_whole_though_one_of_them_ends_early(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="chatter", messages=ASK, n=3, stream=True, logprobs=True)
    said, ends, tokens = ["", "", ""], 0, 0
    for event in stream:
        for choice in event.choices:
            said[choice.index] += choice.delta.content or ""
            ends += choice.finish_reason == "stop"
            tokens += len(choice.logprobs.content or ()) if choice.logprobs else 0
    assert (said, ends, tokens) == (["a0b0", "a1b1", "a2b2"], 3, 6)


def test_parallel_tool_calls_stream_whole(client: openai.OpenAI, upstream: Upstream) -> None:
    stream = client.chat.completions.create(model="chatter", messages=ASK, tools=TOOLS, stream=True)  # type: ignore[call-overload]
    arguments, finish = {0: "", 1: ""}, None
    for event in stream:
        for choice in event.choices:
            for one in choice.delta.tool_calls or ():
                arguments[one.index] += one.function.arguments
            finish = choice.finish_reason or finish
    assert (arguments, finish) == ({0: '{"q":1}', 1: '{"q":2}'}, "tool_calls")
    assert upstream.last("/v1/chat/completions")["tools"] == TOOLS


def test_what_the_gateway_does_not_know_reaches_the_expert(client: openai.OpenAI, upstream: Upstream) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    extra = {
        "functions": [{"name": "f"}],
        "function_call": "auto",
        "response_format": schema,
        "new": {"a": [2**70, None]},
    }
    client.chat.completions.create(model="chatter", messages=ASK, extra_body=extra)
    assert upstream.last("/v1/chat/completions") == {"model": "m", "messages": ASK, **extra}
