"""What is measured: a target is a command that serves chat.completions on a port, and how one knows that it is ready.

It decides how each target is started, never how it is measured. More targets (peers) come from a YAML file, see `also`.
"""

import secrets
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.gateway.ports import free_port

ROOT: Final = Path(__file__).parents[2]  # the repository: commands run here
DIRECT, REFERENCE, CONCLAVE = "direct", "F", "conclave"


@dataclass(frozen=True, slots=True)
class Target:
    """One server to measure. `imports` is the module whose import is timed; None if there is none to time."""

    name: str
    command: tuple[str, ...]
    port: int
    ready_path: str = "/readyz"
    headers: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    model: str = "auto"
    imports: str | None = None

    @property
    def url(self) -> str:
        return f"{self.base_url}/chat/completions"

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def ready_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.ready_path}"


def mock() -> Target:
    """The mock upstream, which is also the target `direct`."""
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.gateway.mock", "--port", str(port))
    return Target(DIRECT, command, port, ready_path="/v1/models")


def reference(upstream: str) -> Target:
    """F: FastAPI + aiohttp with a key check."""
    key = secrets.token_urlsafe(32)
    module = "benchmarks.gateway.reference"
    return _under_uvicorn(
        REFERENCE, f"{module}:create_app", {"UPSTREAM_URL": upstream, "API_KEY": key}, imports=module, key=key
    )


def bare(upstream: str) -> Target:
    """Bare ASGI + aiohttp."""
    module = "benchmarks.gateway.bare"
    return _under_uvicorn("bare ASGI", f"{module}:Relay", {"UPSTREAM_URL": upstream}, imports=module)


def _under_uvicorn(name: str, app: str, env: dict[str, str], *, imports: str, key: str | None = None) -> Target:
    port = free_port()
    flags = (
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--no-access-log",
        "--log-level",
        "warning",
        "--port",
        str(port),
    )
    command = (sys.executable, "-m", "uvicorn", "--factory", app, *flags)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return Target(name, command, port, headers=headers, env=env, imports=imports)


def also(file: Path) -> list[Callable[[str, ExitStack], Target]]:
    """Targets from a YAML list of {name, command: [...], ready_path?, headers?, env?, model?}.

    `{port}` and `{upstream}` in the command's words and in env's values stand for the port to serve on
    and for the mock's base URL.
    """
    return [partial(_described, entry) for entry in yaml.safe_load(file.read_text())]


def _described(entry: dict[str, Any], upstream: str, _: ExitStack) -> Target:
    port = free_port()

    def filled(word: object) -> str:
        return str(word).replace("{port}", str(port)).replace("{upstream}", upstream)

    rest = {key: entry[key] for key in ("ready_path", "headers", "model") if key in entry}
    env = {key: filled(value) for key, value in entry.get("env", {}).items()}
    return Target(entry["name"], tuple(filled(word) for word in entry["command"]), port, env=env, **rest)
