"""Bytes that no honest client sends: each gets a clear answer or is hung up on, and the next client is served."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from processes import Gateway, Process, ask, config, launch, until

PATH = b"/v1/chat/completions"
BODY = json.dumps(ask("echo")).encode()
HEAD = b"host: 127.0.0.1\r\ncontent-type: application/json\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"POST %b HTTP/1.1\r\n%btransfer-encoding: chunked\r\n\r\n" % (PATH, HEAD)
WHOLE = b"POST %b HTTP/1.1\r\n%b%b\r\n%b" % (PATH, HEAD, LENGTH, BODY)


@pytest.fixture(scope="module")
def gateway(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = config(upstream.port, limits={"body_timeout_s": 1, "deadline_s": 2})
    settings["policy"]["experts"]["flood"] = {**settings["policy"]["experts"]["echo"], "model": "flood"}
    process = launch(tmp_path_factory.mktemp("hostile"), settings)
    yield process
    process.stop()


def sent(gateway: Gateway, data: bytes, *, close: bool = True) -> bytes:
    """All that comes back until the gateway closes, or falls silent for a while."""
    with socket.create_connection(("127.0.0.1", gateway.port)) as wire:
        wire.settimeout(10)
        pieces: list[bytes] = []
        try:
            wire.sendall(data)
            if close:
                wire.shutdown(socket.SHUT_WR)
            pieces.append(wire.recv(65536))
            wire.settimeout(1)
            pieces.extend(iter(lambda: wire.recv(65536), b""))
        except OSError:
            pass  # it hung up on us, or waits for our next request
        return b"".join(pieces)


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def test_the_honest_form_is_served(gateway: Gateway) -> None:
    assert statuses(sent(gateway, WHOLE, close=False)) == [200]


POST = b"POST %b HTTP/1.1\r\n%b" % (PATH, HEAD)
GET = b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n"
BROKEN = {
    "a-size-that-is-no-number": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a-negative-size": CHUNKED + b"-5\r\n{}\r\n0\r\n\r\n",
    "a-size-beyond-64-bits": CHUNKED + b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "no-line-end-after-a-chunk": CHUNKED + b"2\r\n{}XX0\r\n\r\n",
    "a-negative-length": POST + b"content-length: -1\r\n\r\n{}",
    "two-lengths": POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}}",
    "smuggling": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + GET + b"\r\n",
    "a-coding-after-chunked": POST + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "nul-in-a-header": POST + b"x: a\x00b\r\n\r\n",
    "space-in-a-name": POST + b"x y: 1\r\n\r\n",
    "a-version-to-come": POST.replace(b"/1.1", b"/9.9") + b"\r\n",
    "http2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "a-path-of-200-kb": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "20000-headers": GET + b"".join(b"x-%d: 1\r\n" % i for i in range(20_000)) + b"\r\n",
    "a-header-of-500-kb": GET + b"cookie: " + b"c" * 500_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_framing_is_refused_once_and_the_connection_ends(gateway: Gateway, data: bytes) -> None:
    """At most one answer, never a 200 and never a 500: nothing hidden behind the broken part is served."""
    found = statuses(sent(gateway, data))
    assert len(found) <= 1, found
    assert all(400 <= status < 500 for status in found), found
    assert gateway.post(ask("echo"))[0] == 200


def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    bodies = [json.dumps(ask("echo", f"number {i}")).encode() for i in range(5)]
    data = b"".join(
        b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (PATH, HEAD, len(body), body) for body in bodies
    )
    answer = sent(gateway, data, close=False)
    assert statuses(answer) == [200] * 5
    places = [answer.index(b"number %d" % i) for i in range(5)]
    assert places == sorted(places)


def test_a_thousand_pipelined_requests_are_held_back_not_hoarded(gateway: Gateway) -> None:
    assert gateway.running is not None
    process = psutil.Process(gateway.running.pid)
    before = process.memory_info().rss
    with socket.create_connection(("127.0.0.1", gateway.port)) as wire:
        wire.settimeout(0.2)
        try:
            for _ in range(40):
                wire.sendall(WHOLE * 25)
        except TimeoutError:
            pass  # the gateway reads no further: that is the point
        time.sleep(0.2)
    assert process.memory_info().rss - before < 32_000_000
    assert gateway.post(ask("echo"))[0] == 200


@pytest.mark.parametrize("keep_alive", [False, True], ids=["close", "keep-alive"])
def test_http_1_0_gets_its_answer(gateway: Gateway, keep_alive: bool) -> None:
    head = HEAD + LENGTH + (b"connection: keep-alive\r\n" if keep_alive else b"")
    answer = sent(gateway, b"POST %b HTTP/1.0\r\n%b\r\n%b" % (PATH, head, BODY), close=False)
    assert statuses(answer) == [200]
    assert b"echo: hello" in answer
    assert b"transfer-encoding" not in answer.split(b"\r\n\r\n")[0].lower()


def test_http_1_0_streams_until_the_connection_ends(gateway: Gateway) -> None:
    """There are no chunks in HTTP/1.0: the end of the stream is the end of the connection."""
    body = json.dumps(ask("echo", stream=True)).encode()
    answer = sent(
        gateway, b"POST %b HTTP/1.0\r\n%bcontent-length: %d\r\n\r\n%b" % (PATH, HEAD, len(body), body), close=False
    )
    assert statuses(answer) == [200]
    assert answer.endswith(b"data: [DONE]\n\n")


def test_an_upload_that_asks_first_is_told_to_go_on(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as wire:
        wire.settimeout(5)
        wire.sendall(b"POST %b HTTP/1.1\r\n%b%bexpect: 100-continue\r\n\r\n" % (PATH, HEAD, LENGTH))
        assert wire.recv(1000).startswith(b"HTTP/1.1 100 ")
        wire.sendall(BODY)
        assert b"HTTP/1.1 200 " in wire.recv(65536)


def test_a_chunked_body_that_trickles_is_shown_out(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as wire:
        wire.settimeout(5)
        wire.sendall(CHUNKED)
        began = time.monotonic()
        answer = b""
        while not answer and time.monotonic() - began < 5:
            wire.sendall(b"1\r\n \r\n")
            wire.settimeout(0.2)
            try:
                answer = wire.recv(65536)
            except TimeoutError:
                continue
        assert statuses(answer) == [408]
        assert time.monotonic() - began < 4


def test_clients_that_read_nothing_do_not_fill_the_gateways_memory(gateway: Gateway) -> None:
    """The upstream sends 200 MB; back-pressure reaches it, and the deadline ends the call with its row.

    The first such answer makes the checks' tables grow, once; the second one must leave nothing.
    """
    assert gateway.running is not None
    process = psutil.Process(gateway.running.pid)
    body = json.dumps(ask("flood", stream=True)).encode()
    sizes: list[int] = []
    for _ in range(2):
        rows = len(gateway.rows())
        with socket.socket() as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.connect(("127.0.0.1", gateway.port))
            wire.sendall(b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (PATH, HEAD, len(body), body))
            until(lambda: len(gateway.rows()) > rows, "the call ends", limit_s=15)  # noqa: B023  called at once
            sizes.append(process.memory_info().rss)
        assert gateway.rows()[-1]["ending"] in {"client_gone", "deadline"}
    assert sizes[1] - sizes[0] < 32_000_000, sizes


def test_clients_that_read_no_plain_answer_are_hung_up_on(gateway: Gateway) -> None:
    """Each leaves 10 MB of vectors unread, and asks to keep the connection."""
    assert gateway.running is not None
    process = psutil.Process(gateway.running.pid)
    before, rows = len(process.net_connections()), len(gateway.rows())
    body = json.dumps({"model": "encoder", "input": ["a word"] * 2048}).encode()
    post = b"POST /v1/embeddings HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (HEAD, len(body), body)
    with ExitStack() as held:
        for wire in [held.enter_context(socket.socket()) for _ in range(4)]:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.connect(("127.0.0.1", gateway.port))
            wire.sendall(post)
        until(lambda: len(gateway.rows()) == rows + 4, "the calls end")
        assert len(process.net_connections()) == before + 4
        until(lambda: len(process.net_connections()) == before, "nobody waits for them", limit_s=25)
    assert [row["ending"] for row in gateway.rows()[rows:]] == ["answered"] * 4


def test_after_all_of_it_the_record_verifies(gateway: Gateway, tmp_path: Path) -> None:
    verified = gateway.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
