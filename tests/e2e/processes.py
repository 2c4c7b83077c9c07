"""Real processes on 127.0.0.1: a gateway (`conclave serve`) in its own folder, before upstreams that can be killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

UPSTREAM = Path(__file__).with_name("upstream.py")
MODELS = ("echo", "paced", "stall", "silent", "cut", "broken", "lying", "busy", "down", "picky", "html")
START_S = 20
T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Process:
    """A process that this test started, and the port that it listens on."""

    command: list[str]
    port: int
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> "Process":
        with (self.folder / f"out-{self.port}.log").open("ab") as out:
            env = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "OLLAMA_"))}
            self.running = subprocess.Popen(self.command, cwd=self.folder, stdout=out, stderr=out, env=env | self.env)
        until(self.listening, "the process listens")
        return self

    def listening(self) -> bool:
        assert self.running is not None
        if self.running.poll() is not None:
            raise AssertionError(f"ended with {self.running.returncode}: {self.output()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def output(self) -> str:
        return (self.folder / f"out-{self.port}.log").read_text()

    def stop(self, sig: int = signal.SIGTERM, *, timeout_s: float = 20) -> int:
        assert self.running is not None
        if self.running.poll() is None:
            self.running.send_signal(sig)
        return self.running.wait(timeout_s)


@dataclass
class Gateway(Process):
    """`conclave serve` with its state folder."""

    admin_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rows(self) -> list[dict[str, Any]]:
        """All rows of kind `call` in the journal, oldest first."""
        files = sorted((self.folder / ".conclave" / "journal").glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
        lines = [line for file in files if file.name != "heads.jsonl" for line in file.read_bytes().splitlines()]
        rows = [json.loads(line)["row"] for line in lines if line.endswith(b"}")]
        return [row for row in rows if row["kind"] == "call"]

    def row(self, request_id: str) -> dict[str, Any]:
        """The one row of a call."""
        return until(
            lambda: next((row for row in self.rows() if row["request_id"] == request_id), None), "the row is there"
        )

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `conclave` command in this gateway's folder."""
        return subprocess.run(
            [sys.executable, "-m", "conclave.gateway.cli", *arguments],
            cwd=self.folder, env=os.environ | self.env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def open(self, body: bytes | dict[str, Any], **headers: str) -> Any:
        """POST /v1/chat/completions: the response, to be read at will."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url, json_body = f"{self.url}/v1/chat/completions", {"content-type": "application/json"}
        return urllib.request.urlopen(urllib.request.Request(url, data, json_body | headers), timeout=30)

    def post(self, body: bytes | dict[str, Any], **headers: str) -> tuple[int, dict[str, str], bytes]:
        """POST /v1/chat/completions: status, headers, body."""
        try:
            with self.open(body, **headers) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()


def until(probe: Callable[[], T], claim: str, *, limit_s: float = START_S) -> T:
    """Ask until the answer is true."""
    end = time.monotonic() + limit_s
    while not (found := probe()):
        assert time.monotonic() < end, f"not within {limit_s} s: {claim}"
        time.sleep(0.01)
    return found


def ask(model: str, text: str = "hello", **more: Any) -> dict[str, Any]:
    """A small request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def config(upstream_port: int, **policy: Any) -> dict[str, Any]:
    """A policy with an expert for each behaviour of the upstream; `auto` goes to `echo`, `frail` falls back to it."""
    base = f"http://127.0.0.1:{upstream_port}/v1"
    experts: dict[str, Any] = {
        model: {
            "kind": "openai",
            "model": model,
            "base_url": base,
            "first_byte_s": 1,
            "plain_s": 1,
            "idle_s": 1,
            "transport_retries": 0,
        }
        for model in MODELS
    }
    return {"policy": {"experts": experts, "default": ["echo"], **policy}}


def launch(folder: Path, settings: dict[str, Any], **env: str) -> Gateway:
    """Start a gateway in `folder` with these settings."""
    port, admin_port = free_port(), free_port()
    (folder / "conclave.yaml").write_text(json.dumps(settings))
    command = [
        sys.executable,
        "-m",
        "conclave.gateway.cli",
        "serve",
        "--port",
        str(port),
        "--admin-port",
        str(admin_port),
    ]
    gateway = Gateway(command, port, folder, env, admin_port=admin_port)
    gateway.start()
    return gateway
