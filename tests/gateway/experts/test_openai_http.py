"""What an OpenAI-compatible expert sends, and over which connections; real sockets on 127.0.0.1."""

import asyncio
import socket
import subprocess
import sys
from typing import Any

import pytest

from conclave.gateway.call import Operation
from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.openai_http import HttpSessions, OpenAIExpert, TimeLimits
from conclave.gateway.prompt import Prompt

from .asking import BODY, SECRET, expert_at, prompt, read
from .raw_server import EVENT, FINISH, PLAIN, STREAM, USAGE, RawServer, answer, piece


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_the_bytes_of_an_answer_pass_untouched(stream: bool) -> None:
    async with RawServer(STREAM if stream else answer(PLAIN)) as server, expert_at(server.url) as expert:
        given, attempt, error = await read(expert, prompt(stream))
    assert given == ([EVENT, FINISH, USAGE] if stream else [PLAIN])
    assert error is None
    assert (attempt.upstream_status, attempt.failure, attempt.model) == (200, None, "m")
    assert attempt.deployment == server.url.removeprefix("http://").removesuffix("/v1")
    assert attempt.first_byte_s is not None
    assert attempt.ended_s is not None
    assert attempt.started_s <= attempt.first_byte_s <= attempt.ended_s


async def test_the_request_is_the_prompt_with_the_deployments_model_and_key() -> None:
    async with RawServer(answer(PLAIN)) as server, expert_at(server.url + "/") as expert:
        await read(expert, prompt(False, temperature=0.5, x_unknown={"a": [1, None]}))
    [request] = server.requests
    assert request.head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert request.body == {"model": "m", **BODY, "temperature": 0.5, "x_unknown": {"a": [1, None]}}
    assert request.header("authorization") == f"Bearer {SECRET}"
    assert request.header("content-type") == "application/json"
    assert request.header("accept-encoding") == "identity"
    assert request.header("cookie") is None


@pytest.mark.parametrize(
    ("more", "stream_usage", "options"),
    [
        pytest.param({}, True, {"include_usage": True}, id="usage is always asked for"),
        pytest.param(
            {"stream_options": {"include_usage": False, "x": 1}}, True, {"include_usage": True, "x": 1}, id="merged"
        ),
        pytest.param({"stream_options": {"x": 1}}, False, {"x": 1}, id="left alone"),
        pytest.param({}, False, None, id="left out"),
    ],
)
async def test_stream_options(more: dict[str, Any], stream_usage: bool, options: object) -> None:
    async with RawServer(STREAM) as server, expert_at(server.url, stream_usage=stream_usage) as expert:
        await read(expert, prompt(True, **more))
    assert server.requests[0].body["stream"] is True
    assert server.requests[0].body.get("stream_options") == options


async def test_a_stream_held_back_is_asked_for_as_a_plain_answer() -> None:
    asked = Prompt({**BODY, "stream": True, "stream_options": {"include_usage": True}}, stream=False)
    async with RawServer(answer(PLAIN)) as server, expert_at(server.url) as expert:
        assert (await read(expert, asked))[0] == [PLAIN]
    assert server.requests[0].body == {"model": "m", **BODY, "stream": False}


async def test_a_request_of_many_megabytes_arrives_whole() -> None:
    text = "é" * 2_000_000
    async with RawServer(answer(PLAIN)) as server, expert_at(server.url) as expert:
        assert (await read(expert, prompt(False, user=text)))[2] is None
    assert server.requests[0].body["user"] == text


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_nobody_listening_is_a_failure_to_connect(stream: bool) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with expert_at(f"http://127.0.0.1:{unused.getsockname()[1]}") as expert:
            _, attempt, error = await read(expert, prompt(stream))
    assert isinstance(error, ExpertFailed)
    assert error.kind == attempt.failure == "connect"
    assert attempt.upstream_status is None


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_connection_is_used_again_after_a_whole_answer(stream: bool) -> None:
    async with RawServer(STREAM if stream else answer(PLAIN)) as server, expert_at(server.url) as expert:
        for _ in range(3):
            assert (await read(expert, prompt(stream)))[2] is None
    assert (len(server.requests), server.connections) == (3, 1)


async def test_a_connection_whose_end_comes_after_done_is_used_again() -> None:
    script = [STREAM[: -len(piece(b""))], piece(b"")]
    async with RawServer(script) as server, expert_at(server.url) as expert:
        for _ in range(3):
            assert (await read(expert, prompt(True)))[2] is None
            for _ in range(10):
                await asyncio.sleep(0)
    assert server.connections == 1


async def test_a_connection_is_used_again_after_an_error_was_read() -> None:
    async with RawServer(answer(b"{}", status=429), answer(PLAIN)) as server, expert_at(server.url) as expert:
        await read(expert, prompt(False))
        assert (await read(expert, prompt(False)))[0] == [PLAIN]
    assert server.connections == 1


async def test_an_expert_that_talks_on_after_done_is_hung_up_on() -> None:
    limits = TimeLimits(linger_s=0.02)
    async with RawServer([STREAM[: -len(piece(b""))]]) as server, expert_at(server.url, limits) as expert:
        assert (await read(expert, prompt(True)))[2] is None
        assert not server.gone.is_set()
        async with asyncio.timeout(1):
            await server.gone.wait()


async def test_experts_may_share_a_session_whose_owner_closes_it() -> None:
    sessions = HttpSessions()
    async with RawServer(answer(PLAIN)) as server:
        for _ in range(2):
            async with expert_at(server.url, session=sessions.get) as expert:
                assert (await read(expert, prompt(False)))[2] is None
        assert server.connections == 1
        await sessions.aclose()
        await sessions.aclose()


async def test_no_call_waits_for_a_connection() -> None:
    """One that did would look like an expert that does not answer, and open the breaker of a healthy one."""
    sessions = HttpSessions()
    connector = sessions.get().connector
    assert connector is not None
    assert (connector.limit, connector.limit_per_host) == (0, 0)
    await sessions.aclose()


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://a/v1", "http:///v1", "http://user:pass@a/v1", "http://a/v1?key=1", "http://a/v1#x"],
)
def test_a_base_url_that_is_no_servers_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        OpenAIExpert("e", url, "m")


@pytest.mark.parametrize("key", ["", "a\r\nx: y", "ключ"])
def test_a_key_that_is_no_header_value_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="api_key"):
        OpenAIExpert("e", "http://a", "m", api_key=key)


def test_the_key_is_in_no_representation() -> None:
    expert = OpenAIExpert("e", "http://a", "m", api_key=SECRET)
    assert SECRET not in repr(expert) + repr(vars(expert))


def test_time_limits_are_more_than_nothing() -> None:
    with pytest.raises(ValueError, match="idle_s"):
        TimeLimits(idle_s=0)


def test_the_module_leaves_aiohttp_alone_until_an_expert_is_made() -> None:
    code = "import sys; import conclave.gateway.experts.openai_http; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("operation", "body", "said"),
    [
        pytest.param("embeddings", {"input": ["a"]}, b'{"object":"list","data":[{"embedding":[1]}]}', id="embeddings"),
        pytest.param("moderations", {"input": "a"}, b'{"id":"m","results":[{"flagged":false}]}', id="moderations"),
        pytest.param("completions", {"prompt": [1, 2]}, b'{"id":"c","choices":[{"text":"a"}]}', id="completions"),
    ],
)
async def test_each_operation_has_a_path_of_its_own(operation: Operation, body: dict[str, Any], said: bytes) -> None:
    async with RawServer(answer(said)) as server, expert_at(server.url) as expert:
        given, _, error = await read(expert, Prompt(body, stream=False, operation=operation))
    assert (given, error) == ([said], None)
    assert server.requests[0].head.startswith(f"POST /v1/{operation} HTTP/1.1\r\n")
    assert server.requests[0].body == {"model": "m", **body}


async def test_a_chats_answer_to_a_request_for_embeddings_is_malformed() -> None:
    async with RawServer(answer(PLAIN)) as server, expert_at(server.url) as expert:
        _, _, error = await read(expert, Prompt({"input": "a"}, stream=False, operation="embeddings"))
    assert isinstance(error, ExpertFailed)
    assert error.kind == "malformed"


async def test_an_answer_of_vectors_may_be_larger_than_one_of_words() -> None:
    vectors = b'{"data":[{"embedding":"%b"}]}' % (b"A" * 33 * 1024 * 1024)
    async with RawServer(answer(vectors)) as server, expert_at(server.url) as expert:
        given, _, error = await read(expert, Prompt({"input": "a"}, stream=False, operation="embeddings"))
    assert error is None
    assert len(given[0]) == len(vectors)
