"""A model server that knows a few tricks, and the gateway before it, for the clients under test."""

import base64
import json
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from processes import Gateway, launch

VECTOR = [0.5, -0.25, 2.0]  # the same in float32
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
LIMITED_PER_MINUTE = 120  # the limit is soon reached, and half a second later there is room again
CALL = [
    {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city": '}},
    {"index": 0, "function": {"arguments": '"Paris"}'}},
]


@dataclass
class Asked:
    """What the server was asked, by model, and the models whose client left before the end."""

    times: Counter[str] = field(default_factory=Counter)
    left: set[str] = field(default_factory=set)


class Answers(BaseHTTPRequestHandler):
    """One model a behaviour: `echo`, `tools`, `schema`, `embed`, `long` (a minute), `cut`, `picky` 400, `down` 500."""

    protocol_version = "HTTP/1.1"
    asked: Asked

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model = body["model"]
        self.asked.times[model] += 1
        if model in ("picky", "down"):
            words = {"message": f"{model} says no", "type": "x", "param": "top_k", "code": "nope"}
            self.whole({"error": words}, 400 if model == "picky" else 500)
        elif self.path.endswith("/embeddings"):
            self.whole(embedded(body))
        elif body.get("stream"):
            self.events(body)
        else:
            self.whole(completion(body))

    def whole(self, answer: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def events(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        same = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        try:
            for delta, finish in deltas(body):
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                self.event({**same, "choices": [choice]})
                if body["model"] == "long":
                    threading.Event().wait(0.02)
            if body["model"] != "cut":
                self.event({**same, "choices": [], "usage": USAGE})
                self.wfile.write(b"data: [DONE]\n\n")
        except ConnectionError:
            self.asked.left.add(body["model"])
        self.close_connection = True

    def event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: %b\n\n" % json.dumps(event).encode())
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """No line a request."""


def deltas(body: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """What a stream says, and why it ends."""
    yield {"role": "assistant", "content": ""}, None
    if body["model"] == "tools" and body["messages"][-1]["role"] != "tool":
        yield from (({"tool_calls": [piece]}, None) for piece in CALL)
        yield {}, "tool_calls"
        return
    words = [said(body)] if body["model"] != "long" else [" word"] * 3000
    yield from (({"content": word}, None) for word in words)
    if body["model"] != "cut":
        yield {}, "stop"


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """A plain answer with as many choices as were asked for, and whatever else was said to it."""
    message = {"role": "assistant", "content": said(body)}
    choice: dict[str, Any] = {"message": message, "finish_reason": "stop"}
    if body.get("logprobs"):
        choice["logprobs"] = {"content": [{"token": "echo", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    choices = [{"index": index, **choice} for index in range(body.get("n") or 1)]
    same = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"], "usage": USAGE}
    return {**same, "choices": choices, **({"top_k": body["top_k"]} if "top_k" in body else {})}


def said(body: dict[str, Any]) -> str:
    if body["model"] == "schema":
        wanted = body["response_format"]["json_schema"]
        return json.dumps(dict.fromkeys(wanted["schema"]["required"], 21) if wanted["strict"] else {})
    return f"echo: {body['messages'][-1]['content']}"


def embedded(body: dict[str, Any]) -> dict[str, Any]:
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    packed = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    vector = packed if body.get("encoding_format") == "base64" else VECTOR
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(texts))]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


@pytest.fixture(scope="session")
def asked() -> Iterator[tuple[int, Asked]]:
    """The port of the model server, and what it was asked so far."""
    asked = Asked()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Answers,), {"asked": asked}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1], asked
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Door:
    """A gateway that asks for a key, and the keys of a tenant that may ask much and of one that may not."""

    gateway: Gateway
    key: str
    limited_key: str


@pytest.fixture(scope="session")
def door(asked: tuple[int, Asked], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("gateway")
    keys = []
    for tenant in ("open", "limited"):
        command = ["-m", "conclave.gateway.cli", "keys", "create", "--name", "a test", "--tenant", tenant]
        made = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, check=True, timeout=60)
        keys.append(made.stdout.decode().strip())
    gateway = launch(folder, config(asked[0]))
    yield Door(gateway, *keys)
    gateway.stop()


def config(port: int) -> dict[str, Any]:
    chat = ["tools", "json_schema", "n", "logprobs"]
    experts = {
        model: {
            "kind": "openai",
            "model": model,
            "base_url": f"http://127.0.0.1:{port}/v1",
            "capabilities": ["embeddings"] if model == "embed" else chat,
            "transport_retries": 0,
        }
        for model in ("echo", "tools", "schema", "embed", "long", "cut", "picky", "down")
    }
    policy = {
        "experts": experts,
        "default": ["echo"],
        "aliases": {"acme/large:1": "echo"},
        "tenants": {"limited": {"limits": {"requests_per_minute": LIMITED_PER_MINUTE}}},
    }
    return {"policy": policy}
