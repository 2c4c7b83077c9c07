"""The mock upstream speaks HTTP and chat.completions well enough for real clients."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest

from benchmarks.gateway.mock import ANSWER, CHUNKS, Pace, listen

MESSAGES = [{"role": "user", "content": "Why does pasta take longer on a mountain?"}]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = await listen(0, Pace())
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as made:
        yield made


def test_the_answer_has_240_characters() -> None:
    assert len(ANSWER) == 240


async def test_the_openai_client_reads_a_plain_answer(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="any", messages=MESSAGES)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"


async def test_the_openai_client_reads_50_content_chunks(client: openai.AsyncOpenAI) -> None:
    chunks = [
        chunk async for chunk in await client.chat.completions.create(model="any", messages=MESSAGES, stream=True)
    ]
    said = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(said) == CHUNKS == 50
    assert "".join(said) == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_usage_comes_in_the_last_chunk_when_it_is_asked_for(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="any", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    last = [chunk async for chunk in stream][-1]
    assert not last.choices
    assert last.usage is not None
    assert last.usage.completion_tokens == CHUNKS


async def test_the_models_are_listed(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["mock-model"]


async def test_a_body_in_chunks_is_read_whole(url: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"mess'
        yield b'ages": [], "stream": false}'

    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", data=body()) as response:
        assert (await response.json())["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("/v1/chat/completions", b"{", 400, id="broken JSON"),
        pytest.param("/v1/chat/completions", b'{"stream": "yes"}', 400, id="a wrong type"),
        pytest.param("/v1/nothing", b"{}", 404, id="an unknown path"),
    ],
)
async def test_what_is_wrong_gets_its_status(url: str, path: str, body: bytes, status: int) -> None:
    async with aiohttp.ClientSession() as session, session.post(url + path, data=body) as response:
        assert response.status == status


async def test_requests_sent_together_are_answered_in_order(url: str) -> None:
    """A stream, then a plain request in the same packet: the plain answer begins after the stream's end."""
    asked = [_request(url, b'{"stream": true}'), _request(url, b"{}"), _request(url, b"{}", b"connection: close\r\n")]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"".join(asked))
    answers = await reader.read()  # to the end: the last one closes the connection
    writer.close()
    await writer.wait_closed()
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.index(b"data: [DONE]") < answers.index(b'"object":"chat.completion"')


async def test_the_pace_spaces_the_chunks_of_a_stream(url: str, client: openai.AsyncOpenAI) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/pace/2") as response:
        assert response.status == 200
    begun_s = time.perf_counter()
    async for _ in await client.chat.completions.create(model="any", messages=MESSAGES, stream=True):
        pass
    assert time.perf_counter() - begun_s >= 0.002 * (CHUNKS - 1) * 0.9  # a timer may fire a little early


def _request(url: str, body: bytes, more: bytes = b"") -> bytes:
    host = url.removeprefix("http://").encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: %b\r\n%bcontent-length: %d\r\n\r\n"
    return head % (host, more, len(body)) + body
