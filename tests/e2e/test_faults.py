"""Processes that die, stall or leave: each with its status and its row, and a journal that still verifies."""

import asyncio
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import UPSTREAM, Gateway, Process, ask, config, free_port, launch, until


@pytest.fixture(scope="module")
def gateway(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    frail = {"frail": {"kind": "openai", "model": "paced", "base_url": f"http://127.0.0.1:{free_port()}/v1"}}
    settings = config(upstream.port)
    busy = {"busy-too": settings["policy"]["experts"]["busy"]}
    settings["policy"]["experts"] |= frail | busy
    categories = (
        "math",
        "code",
        "law",
        "medicine",
        "science",
        "general_knowledge",
        "assistant_chat",
        "creative_writing",
    )
    settings["policy"]["categories"] = {name: ["frail", "echo"] for name in categories}
    settings["policy"]["default"] = ["frail", "echo"]
    process = launch(tmp_path_factory.mktemp("faults"), settings)
    yield process
    process.stop()


def events(body: bytes) -> list[Any]:
    payloads = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line.startswith(b"data: ")]
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]


UNSEEN = [
    ("busy", False, "rate_limited"),
    ("busy-too", True, "rate_limited"),
    ("down", False, "status"),
    ("down", True, "status"),
    ("html", False, "malformed"),
    ("html", True, "malformed"),
    ("lying", False, "cut"),
    ("silent", False, "first_byte"),
    ("silent", True, "first_byte"),
]


@pytest.mark.parametrize(
    ("model", "stream", "kind"), UNSEEN, ids=[f"{m}-{'stream' if s else 'plain'}" for m, s, _ in UNSEEN]
)
def test_an_expert_that_fails_unseen_keeps_its_status(gateway: Gateway, model: str, stream: bool, kind: str) -> None:
    status, headers, answer = gateway.post(ask(model, stream=stream))
    row = gateway.row(headers["x-request-id"])
    assert (status, row["ending"], row["attempts"][0]["failure"]) == (502, "failed", kind), answer


def test_an_upstream_that_hangs_up_after_a_word_ends_the_stream_with_an_error_event(gateway: Gateway) -> None:
    status, headers, answer = gateway.post(ask("cut", stream=True))
    row = gateway.row(headers["x-request-id"])
    assert (status, row["ending"], row["attempts"][0]["failure"]) == (200, "failed", "cut")
    assert events(answer)[-1]["error"]["code"] == "answer_interrupted"
    assert b"[DONE]" not in answer


def test_a_failing_first_expert_is_replaced_unseen(gateway: Gateway) -> None:
    status, headers, answer = gateway.post(ask("auto", "hello", stream=True))
    assert status == 200
    row = gateway.row(headers["x-request-id"])
    assert [attempt["expert"] for attempt in row["attempts"]] == ["frail", "echo"]
    assert [attempt["failure"] for attempt in row["attempts"]] == ["connect", None]
    assert events(answer)[-1]["conclave"]["expert"] == "echo"
    assert events(answer)[-1]["conclave"]["reason"] == "fallback"


def test_one_broken_event_does_not_end_the_stream(gateway: Gateway) -> None:
    _, headers, answer = gateway.post(ask("broken", stream=True))
    assert events(answer)[-1]["conclave"]["skipped_events"] == 1
    assert answer.endswith(b"data: [DONE]\n\n")
    assert gateway.row(headers["x-request-id"])["ending"] == "answered"


def test_an_upstream_that_stalls_after_a_word_ends_within_its_idle_limit(gateway: Gateway) -> None:
    began = time.monotonic()
    status, headers, answer = gateway.post(ask("stall", stream=True))
    assert status == 200
    assert time.monotonic() - began < 5
    assert events(answer)[-1]["error"]["code"] == "answer_interrupted"
    row = gateway.row(headers["x-request-id"])
    assert (row["ending"], row["attempts"][0]["failure"]) == ("failed", "stalled")


def test_an_upstream_killed_mid_stream_ends_in_an_error_event_and_a_row(gateway: Gateway, tmp_path: Path) -> None:
    port = free_port()
    victim = Process([sys.executable, str(UPSTREAM), str(port)], port, tmp_path).start()
    folder = tmp_path / "gateway"
    folder.mkdir()
    fresh = launch(folder, config(port))
    with fresh.open(ask("paced", stream=True)) as response:
        answer = response.read(2000)
        victim.stop(signal.SIGKILL)
        answer += response.read()
    row = fresh.row(response.headers["x-request-id"])
    fresh.stop()
    assert len(events(answer)) > 5
    assert events(answer)[-1]["error"]["code"] == "answer_interrupted"
    assert (row["ending"], row["attempts"][0]["failure"]) == ("failed", "cut")


async def test_a_client_that_leaves_closes_the_upstream_and_is_recorded(gateway: Gateway, upstream: Process) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps(ask("paced", stream=True)).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b" w")
    request_id = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"x-request-id")).decode()
    writer.transport.abort()
    row = await asyncio.to_thread(gateway.row, request_id)
    assert row["ending"] == "client_gone"
    until(lambda: "closed paced" in upstream.output(), "the upstream saw the client leave", limit_s=2)


def load(gateway: Gateway, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            gateway.post(ask("echo"))
        except OSError:
            return


def test_a_gateway_killed_under_load_leaves_a_journal_that_verifies(upstream: Process, tmp_path: Path) -> None:
    gateway, stop = launch(tmp_path, config(upstream.port)), threading.Event()
    threads = [threading.Thread(target=load, args=(gateway, stop)) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(gateway.rows()) > 100, "load is on")
    gateway.stop(signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join()
    verified = gateway.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr

    again = launch(tmp_path, config(upstream.port))
    assert again.post(ask("echo"))[0] == 200
    assert again.stop() == 0
    assert gateway.cli("audit", "verify").returncode == 0

    (journal,) = [file for file in (tmp_path / ".conclave" / "journal").glob("*.jsonl") if file.stat().st_size > 20_000]
    data = bytearray(journal.read_bytes())
    at = data.index(b"echo", len(data) // 2)
    data[at] ^= 1
    journal.write_bytes(data)
    found = gateway.cli("audit", "verify")
    line = data[:at].count(b"\n") + 1
    assert found.returncode == 1
    assert journal.name in found.stdout + found.stderr
    assert str(line) in found.stdout + found.stderr or str(line - 1) in found.stdout + found.stderr


def test_sigterm_lets_a_stream_finish_and_ends_with_zero(upstream: Process, tmp_path: Path) -> None:
    gateway = launch(tmp_path, config(upstream.port))
    with socket.create_connection(("127.0.0.1", gateway.port)) as wire:
        body = json.dumps(ask("paced", stream=True)).encode()
        wire.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        wire.recv(1024)
        assert gateway.running is not None
        gateway.running.send_signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert gateway.stop() == 0
    assert b"[DONE]" in answer
    assert gateway.cli("audit", "verify").returncode == 0
