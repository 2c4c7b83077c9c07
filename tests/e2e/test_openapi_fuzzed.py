"""schemathesis against a real gateway: each operation of `/openapi.json`, with requests that fit it and that do not.

The same requests each time: the boundaries of every field, then `EXAMPLES` drawn ones an operation; 20 s of CPU for
both. schemathesis runs as a process of its own, so that pytest is not loaded with its plug-in's imports.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from processes import Gateway, Process, config, launch

from conclave.gateway.experts.catalog import Capability

HOOKS = Path(__file__).with_name("openapi_hooks.py")
EXAMPLES = 40
LIMIT_S = 240  # on a busy machine; 25 s on one that is not


@pytest.fixture(scope="module")
def gateway(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = config(upstream.port, default=["every"])
    every = {**settings["policy"]["experts"]["echo"], "model": "every", "capabilities": list(get_args(Capability))}
    settings["policy"]["experts"]["every"] = {**every, "plain_s": 10, "first_byte_s": 10}
    process = launch(tmp_path_factory.mktemp("fuzzed"), settings)
    yield process
    process.stop()


@pytest.mark.slow
def test_every_answer_is_one_that_the_document_describes(gateway: Gateway, tmp_path: Path) -> None:
    """What fits the document is taken, what does not is refused, and all that comes back is as it says."""
    run = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json",
            "--phases", "coverage,fuzzing", "--checks", "all", "--continue-on-failure",
            "--max-examples", str(EXAMPLES), "--generation-deterministic",
            "--suppress-health-check", "all", "--output-truncate", "false", "--no-color",
        ],
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": HOOKS.stem, "PYTHONPATH": str(HOOKS.parent)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert all(row["status"] < 500 for row in gateway.rows())
