"""Who may import whom: the contracts in pyproject.toml hold, and each of them fails on a violation."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("gateway", "router", "safety", "retrieval", "moe", "kernels")


def lint_imports(house: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the project's own contracts over a folder that holds `conclave/`."""
    command = [
        sys.executable,
        "-c",
        "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--config",
        str(ROOT / "pyproject.toml"),
        "--no-cache",
    ]
    return subprocess.run(command, cwd=house, capture_output=True, text=True, check=False)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the rooms, as the package `conclave` of a folder of its own."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / "conclave" / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_tree_keeps_every_contract(house: Path) -> None:
    done = lint_imports(house)
    assert done.returncode == 0, done.stdout
    assert "6 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("place", "line", "contract"),
    [
        pytest.param(
            "router/intruder.py", "import conclave.safety.api", "import none of each other", id="router-to-safety"
        ),
        pytest.param(
            "retrieval/intruder.py",
            "def late():\n    import conclave.router.api",
            "import none of each other",
            id="late-imports-count",
        ),
        pytest.param("safety/intruder.py", "import conclave.gateway.errors", "do not import it", id="room-to-gateway"),
        pytest.param("gateway/api/intruder.py", "import conclave.router.train", "by nobody but", id="gateway-to-train"),
        pytest.param("gateway/errors.py", "import conclave.gateway.pipeline", "is layered", id="errors-to-pipeline"),
        pytest.param(
            "gateway/state/intruder.py", "import conclave.gateway.access.scope", "is layered", id="state-to-access"
        ),
        pytest.param(
            "gateway/telemetry/intruder.py", "import conclave.gateway.api", "is layered", id="telemetry-to-api"
        ),
        pytest.param("moe/intruder.py", "import conclave.router.api", "import none of each other", id="moe-to-router"),
        pytest.param("kernels/intruder.py", "import conclave.moe", "kernels import no room", id="kernels-to-moe"),
        pytest.param("router/intruder.py", "import conclave.kernels", "only the local expert", id="router-to-kernels"),
        pytest.param("gateway/misc.py", "", "is layered", id="a-module-that-no-layer-lists"),
    ],
)
def test_a_violation_breaks_its_contract(house: Path, place: str, line: str, contract: str) -> None:
    with (house / "conclave" / place).open("a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")
    done = lint_imports(house)
    assert done.returncode == 1, done.stdout
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert any(contract in row for row in broken), done.stdout


@pytest.mark.parametrize(
    ("place", "line"),
    [
        pytest.param("router/train/near.py", "import conclave.retrieval", id="training-may-import-any-room"),
        pytest.param("router/cli.py", "def train():\n    import conclave.router.train", id="a-command-starts-training"),
        pytest.param("moe/near.py", "import conclave.kernels", id="the-local-expert-computes-with-the-kernels"),
        pytest.param(
            "safety/near.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import conclave.gateway.errors",
            id="types-only",
        ),
    ],
)
def test_a_near_miss_is_kept(house: Path, place: str, line: str) -> None:
    with (house / "conclave" / place).open("a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")
    done = lint_imports(house)
    assert done.returncode == 0, done.stdout
