"""`python -m lints PATH...`: `file:line: words` on stdout, exit 1 if there was a finding."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "lints").symlink_to(ROOT / "lints")
    (tmp_path / "gateway").mkdir()
    return tmp_path


def lint(tree: Path, *paths: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", "-m", "lints", *paths]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def test_a_finding_is_told_with_file_and_line_and_fails(tree: Path) -> None:
    (tree / "gateway" / "app.py").write_text('"""App."""\n\nimport torch\n')
    done = lint(tree, "gateway")
    assert done.returncode == 1
    assert done.stdout.startswith("gateway/app.py:3: `torch`")


def test_a_clean_tree_passes_in_silence(tree: Path) -> None:
    (tree / "gateway" / "app.py").write_text('"""App."""\n')
    done = lint(tree, "gateway/app.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_file_that_is_not_python_is_a_finding(tree: Path) -> None:
    (tree / "gateway" / "app.py").write_text("def\n")
    done = lint(tree, "gateway")
    assert done.returncode == 1
    assert done.stdout.startswith("gateway/app.py:1: not Python")


def test_a_path_that_is_not_there_is_said(tree: Path) -> None:
    done = lint(tree, "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
