"""What the errors of an OpenAI-compatible server mean, in each form in which servers send them."""

import re
from email.utils import formatdate
from typing import Any

import msgspec
import pytest

from conclave.gateway.errors import ExpertFailed

from .asking import expert_at, prompt, read
from .raw_server import RawServer, answer


def rejected(**error: Any) -> bytes:
    return answer(msgspec.json.encode({"error": error}), status=400)


async def failed_with(script: bytes) -> ExpertFailed:
    async with RawServer(script) as server, expert_at(server.url, wall_s=lambda: 1_000_000.0) as expert:
        error = (await read(expert, prompt(True)))[2]
    assert isinstance(error, ExpertFailed)
    return error


async def test_a_rejection_carries_the_upstreams_words_and_is_final() -> None:
    error = await failed_with(rejected(message="temperature is too high", param="temperature", code="bad_value"))
    assert (error.message, error.param, error.code) == ("temperature is too high", "temperature", "bad_value")
    assert error.final
    assert error.upstream_status == 400


@pytest.mark.parametrize(
    "words",
    [
        {"code": "context_length_exceeded", "message": "long"},
        {"code": 400, "message": "the maximum context length is 9"},
    ],
    ids=["by code", "by message"],
)
async def test_a_prompt_too_long_for_this_expert_may_fit_another(words: dict[str, Any]) -> None:
    error = await failed_with(rejected(**words))
    assert (error.kind, error.final, error.code) == ("rejected", False, "context_length_exceeded")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b'{"error":"model not loaded"}', "model not loaded", id="a string"),
        pytest.param(b'{"object":"error","message":"no such field"}', "no such field", id="no envelope"),
        pytest.param(b'{"detail":"bad field"}', "bad field", id="FastAPI"),
        pytest.param(b'{"detail":[{"loc":1}]}', "the expert rejected the request (HTTP 400)", id="no words"),
        pytest.param(b"<html>", "the expert rejected the request (HTTP 400)", id="HTML"),
        pytest.param(b"[" * 70_000, "the expert rejected the request (HTTP 400)", id="deep and long"),
        pytest.param(b'{"error":{"message":"key sk-very-secret is bad"}}', "key [key] is bad", id="our key"),
    ],
)
async def test_every_shape_of_error_body_is_understood(body: bytes, message: str) -> None:
    assert (await failed_with(answer(body, status=400))).message == message


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, " (it did not take the key"),
        (403, " (it did not take the key"),
        (404, " (it does not know the"),
        (500, ""),
    ],
)
async def test_only_a_rejection_repeats_what_the_server_said(status: int, hint: str) -> None:
    """Of others the caller reads what the status mostly means."""
    error = await failed_with(answer(b'{"error":{"message":"account acme, key sk-very-secret"}}', status=status))
    assert error.message.startswith(f"the expert answered HTTP {status}{hint}")
    assert not {"acme", "sk-very"} & set(re.split(r"[ ,]", error.message))
    assert bool(hint) or error.message == f"the expert answered HTTP {status}"


@pytest.mark.parametrize(
    ("headers", "retry_after_s"),
    [
        pytest.param("", None, id="not told"),
        pytest.param("retry-after: 7\r\n", 7.0, id="seconds"),
        pytest.param("retry-after: 7\r\nretry-after-ms: 250\r\n", 0.25, id="milliseconds first"),
        pytest.param(f"retry-after: {formatdate(1_000_030.0, usegmt=True)}\r\n", 30.0, id="date"),
        pytest.param(f"retry-after: {formatdate(999_000.0, usegmt=True)}\r\n", 0.0, id="date in the past"),
        pytest.param("retry-after: soon\r\n", None, id="nonsense"),
        pytest.param("retry-after: nan\r\n", None, id="nan"),
        pytest.param("retry-after: -3\r\n", None, id="negative"),
        pytest.param("retry-after: 999999999\r\n", 86_400.0, id="bounded"),
    ],
)
async def test_retry_after_in_each_form(headers: str, retry_after_s: float | None) -> None:
    error = await failed_with(answer(b'{"error":{"code":"slow_down"}}', status=429, headers=headers))
    assert (error.kind, error.retry_after_s, error.code) == ("rate_limited", retry_after_s, "slow_down")
