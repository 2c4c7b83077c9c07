"""The peers: LiteLLM's proxy and Portkey's gateway, each as its own pages say to run it, before the same mock.

It decides the versions and the smallest configuration that forwards to one OpenAI-compatible upstream. `install` puts
each into a folder of its own below `.peers`, which git ignores; nothing of them is needed for anything else.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import yaml

from benchmarks.gateway.mock import MODEL
from benchmarks.gateway.ports import free_port
from benchmarks.gateway.servers import TargetError
from benchmarks.gateway.targets import ROOT, Target

FOLDER: Final = ROOT / ".peers"
LITELLM: Final = "LiteLLM"
PORTKEY: Final = "Portkey"
LITELLM_PACKAGE: Final = "litellm[proxy]==1.106.2"
PORTKEY_PACKAGE: Final = "@portkey-ai/gateway@1.15.2"
# Portkey allows any 1.x; from 1.14 on its streams fail ("immutable"): that version replaces the global Response.
PORTKEY_SERVER: Final = "1.13.8"
KEY: Final = "sk-benchmark"  # LiteLLM wants one to check; the mock takes any


def install() -> None:
    """Both peers, from their package registries: about 0.8 GB for LiteLLM's proxy, 60 MB for Portkey."""
    python = FOLDER / "litellm" / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(FOLDER / "litellm")])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", LITELLM_PACKAGE])
    home = FOLDER / "portkey"
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_text(
        json.dumps({"private": True, "overrides": {"@hono/node-server": PORTKEY_SERVER}})
    )
    _run(["npm", "install", "--silent", "--no-fund", "--no-audit", PORTKEY_PACKAGE], cwd=home)


def litellm(upstream: str, stack: ExitStack) -> Target:
    """One worker, a master key, one model; no database, no callbacks, no telemetry."""
    command = FOLDER / "litellm" / "bin" / "litellm"
    _require(command, LITELLM)
    config = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="litellm-benchmark-"))) / "config.yaml"
    place = {"model": f"openai/{MODEL}", "api_base": upstream, "api_key": KEY}
    settings = {
        "model_list": [{"model_name": MODEL, "litellm_params": place}],
        "litellm_settings": {"telemetry": False, "drop_params": False},
        "general_settings": {"master_key": KEY},
    }
    config.write_text(yaml.safe_dump(settings))
    port = free_port()
    return Target(
        LITELLM,
        (str(command), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
        port,
        ready_path="/health/liveliness",
        headers={"authorization": f"Bearer {KEY}"},
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"},
        model=MODEL,
    )


def portkey(upstream: str, _: ExitStack) -> Target:
    """The open-source gateway under Node; the upstream stands in a header of each request, and no key is checked."""
    start = FOLDER / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    _require(start, PORTKEY)
    node = shutil.which("node")
    if node is None:
        raise TargetError("Portkey needs node")
    port = free_port()
    about = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream, "authorization": f"Bearer {KEY}"}
    return Target(
        PORTKEY,
        (node, str(start), f"--port={port}", "--headless"),
        port,
        ready_path="/",
        headers=about,
        env={"NODE_ENV": "production"},
        model=MODEL,
    )


def _require(file: Path, name: str) -> None:
    if not file.exists():
        raise TargetError(f"{name} is not installed; run: python -m benchmarks.gateway peers")


def _run(command: list[str], cwd: Path | None = None) -> None:
    if subprocess.run(command, cwd=cwd, check=False).returncode:
        raise TargetError(f"failed: {' '.join(command)}")
