"""`--fail-on-skip`: CI fails on a skipped test, but for those that need a GPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_pytest(folder: Path, source: str, *args: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: needs a GPU\n")
    (folder / "test_it.py").write_text(f"import pytest\n\n{source}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    bare = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "source",
    [
        "@pytest.mark.skip('no data')\ndef test_a(): pass",
        "def test_a(): pytest.skip('no data')",
        "@pytest.fixture\ndef data(): pytest.skip('no data')\ndef test_a(data): pass",
        "pytest.skip('no data', allow_module_level=True)",
    ],
    ids=["by mark", "in the test", "in a fixture", "a whole module"],
)
def test_a_skip_fails_and_says_why(tmp_path: Path, source: str) -> None:
    done = run_pytest(tmp_path, source, "--fail-on-skip")
    assert done.returncode != 0
    assert "skipped where every test must run: Skipped: no data" in done.stdout


def test_without_the_option_a_skip_is_a_skip(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "def test_a(): pytest.skip('no data')")
    assert done.returncode == 0
    assert "1 skipped" in done.stdout


@pytest.mark.parametrize(
    "source",
    [
        "@pytest.mark.gpu\ndef test_a(): pytest.skip('no GPU')",
        "@pytest.mark.xfail\ndef test_a(): assert False",
        "def test_a(): pass",
    ],
    ids=["a gpu test", "an expected failure", "a pass"],
)
def test_all_else_passes(tmp_path: Path, source: str) -> None:
    assert run_pytest(tmp_path, source, "--fail-on-skip").returncode == 0
