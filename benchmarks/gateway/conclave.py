"""The target Conclave, lean: admit, boundary, route and record; one API key; every category goes to the mock.

Lean means without the stages that guard texts (`stages.detect` and `guard`: off); what the door itself can do is on:
rate limits, CORS, trusted proxies, tags as labels, both sets of metrics, policy that may change at any time, streams
that are continued. With `defences` every check that there is looks at each request, and what it finds is annotated.

It decides the configuration that is measured, in a state folder of its own. All that is not said there is the default,
but for the log, which says warnings only, as F's does.
"""

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.gateway.mock import MODEL
from benchmarks.gateway.ports import free_port
from benchmarks.gateway.servers import TargetError
from benchmarks.gateway.targets import CONCLAVE, ROOT, Target
from conclave.gateway.policy.part import CATEGORIES
from conclave.safety.checks import NAMES
from conclave.safety.detect.second_check import NAME as SECOND

COMMAND: Final = (sys.executable, "-m", "conclave.gateway.cli")
CHECKS: Final = [check for check in NAMES if check != SECOND]  # that one asks a transformer, and none is shipped
EXPERT: Final = "mock"
DEFENDED: Final = "conclave, every defence on"


def settings(upstream: str, *, port: int, admin_port: int, state_dir: Path, defences: bool = False) -> dict[str, Any]:
    """The lean configuration, or that with every defence, as it stands in the YAML file."""
    return {
        "server": {
            **{"port": port, "admin_port": admin_port, "state_dir": str(state_dir), "log_level": "warning"},
            "cors": {"origins": ["https://app.example"]},
            "trusted_proxies": ["10.0.0.0/8"],
        },
        "policy": {
            "name": "lean",
            "limits": {"requests_per_minute": 1_000_000},
            "tags": {"team": ["search", "ads"]},
            "stages": {"route": "on", **dict.fromkeys(("detect", "guard"), "on" if defences else "off")},
            **({"defences": [{"check": check, "action": "annotate"} for check in CHECKS]} if defences else {}),
            "experts": {EXPERT: {"kind": "openai", "model": MODEL, "base_url": upstream}},
            "categories": {category: [EXPERT] for category in CATEGORIES},
            "default": [EXPERT],
        },
    }


def conclave(
    upstream: str,
    stack: ExitStack,
    *,
    telemetry: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
    defences: bool = False,
) -> Target:
    """Write the configuration, make the key, and say how to serve; `stack` removes the folder.

    `telemetry` is `server.telemetry`: both sets of metrics, and no spans, where nothing is said.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conclave-benchmark-")))
    port, config = free_port(), folder / "conclave.yaml"
    said = settings(upstream, port=port, admin_port=free_port(), state_dir=folder / "state", defences=defences)
    said["server"]["telemetry"] = telemetry or {"gen_ai_metrics": "both"}
    config.write_text(yaml.safe_dump(said, sort_keys=False))
    key = _new_key(config)
    return Target(
        DEFENDED if defences else CONCLAVE,
        (*COMMAND, "serve", "--config", str(config)),
        port,
        headers={"authorization": f"Bearer {key}"},
        env=env or {},
        imports="conclave.gateway.app",
    )


def _new_key(config: Path) -> str:
    command = [*COMMAND, "keys", "create", "--config", str(config), "--name", "benchmark"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode:
        raise TargetError(f"no key could be made:\n{made.stdout}{made.stderr}")
    return made.stdout.strip()
