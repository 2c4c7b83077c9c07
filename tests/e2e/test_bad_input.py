"""Whatever is sent: a clear envelope with the right status, never a 500, and one row each."""

import json
import socket
import time
from typing import Any

import pytest
from processes import Gateway, ask, until

DEEP: Any = "x"
for _ in range(200):
    DEEP = {"a": DEEP}

BODIES: dict[str, tuple[bytes | dict[str, Any], int, str]] = {
    "empty": (b"", 400, "invalid_json"),
    "malformed": (b'{"model": "auto", ', 400, "invalid_json"),
    "nan": (b'{"model": "auto", "temperature": NaN}', 400, "invalid_json"),
    "binary": (bytes(range(256)), 400, "invalid_json"),
    "lone-surrogate": (b'{"model":"auto","messages":[{"role":"user","content":"\\ud800"}]}', 400, "invalid_json"),
    "brackets": (b"[" * 100_000, 400, "invalid_json"),
    "deep": (ask("auto", extra=DEEP), 400, "invalid_request"),
    "no-messages": ({"model": "auto"}, 400, "invalid_request"),
    "empty-messages": ({"model": "auto", "messages": []}, 400, "invalid_request"),
    "wrong-type": (ask("auto", stream="yes"), 400, "invalid_request"),
    "negative": (ask("auto", max_tokens=-1), 400, "invalid_request"),
    "many-messages": ({"model": "auto", "messages": ask("auto")["messages"] * 5_000}, 400, "invalid_request"),
    "unknown-model": (ask("nobody"), 404, "model_not_found"),
    "audio-nobody-can": (
        {"model": "auto", "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        400,
        "unsupported_by_expert",
    ),
    "huge": (b'{"model":"auto","messages":"' + b"x" * 10_500_000 + b'"}', 413, "request_too_large"),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_bad_input_gets_an_envelope_and_a_row(gateway: Gateway, name: str, stream: bool) -> None:
    body, status, code = BODIES[name]
    if stream and isinstance(body, dict):
        body = {**body, "stream": body.get("stream", True)}
    found, headers, answer = gateway.post(body)
    error = json.loads(answer)["error"]
    assert (found, error["code"]) == (status, code), error
    assert set(error) == {"message", "type", "param", "code"}
    assert headers["x-should-retry"] == "false"
    row = gateway.row(headers["x-request-id"])
    assert (row["ending"], row["status"], row["code"]) == ("refused", status, code)


def test_unknown_fields_and_an_empty_content_are_fine(gateway: Gateway) -> None:
    status, _, answer = gateway.post(ask("auto", "", made_up={"x": [1, None]}, temperature=0))
    assert status == 200, answer


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/nothing"], ids=["method", "path"])
def test_a_wrong_method_or_path_has_the_same_envelope(gateway: Gateway, path: str) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as wire:
        wire.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.split()[1] in {b"404", b"405"}
    assert b"\r\nx-request-id: req_" in head
    assert b"\r\nx-should-retry: false" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("header", [{"origin": "https://evil.example"}, {"host": "evil.example"}], ids=str)
def test_without_a_key_a_web_page_is_refused(gateway: Gateway, header: dict[str, str]) -> None:
    status, headers, answer = gateway.post(ask("echo"), **header)
    assert (status, json.loads(answer)["error"]["code"]) == (403, "cross_origin")
    assert gateway.row(headers["x-request-id"])["code"] == "cross_origin"


def test_an_old_client_that_names_no_host_is_served(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as wire:
        wire.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert b" 200 " in wire.recv(65536).split(b"\r\n")[0]


def test_a_slow_loris_is_shown_out_and_others_are_served_meanwhile(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as wire:
        wire.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{")
        assert gateway.post(ask("echo"))[0] == 200
        wire.settimeout(30)
        assert b" 408 " in wire.recv(65536).split(b"\r\n")[0]


def test_half_a_body_and_gone_leaves_a_row(gateway: Gateway) -> None:
    before = len(gateway.rows())
    with socket.create_connection(("127.0.0.1", gateway.port)) as wire:
        wire.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{")
        time.sleep(0.1)
    until(lambda: len(gateway.rows()) > before, "the aborted call has its row")
    assert gateway.rows()[-1]["ending"] == "client_gone"
