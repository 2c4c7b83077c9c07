"""The two commands that a newcomer needs, on a machine that is not as hoped."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD_PYTHON = '#!/bin/sh\n[ "$1" = --version ] && { echo "Python 3.9.2"; exit 0; }\nexit 1\n'
KNOBS = {"PYTHON", "VENV", "EXTRAS", "WITH", "ARGS", "PYTEST_ARGS"}  # what a surrounding make was given is not ours
NO_VENV = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexit 0\n'

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(clone: Path, *args: str) -> subprocess.CompletedProcess[str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name not in KNOBS}
    return subprocess.run(["make", *args], cwd=clone, env=bare, capture_output=True, text=True, check=False)


def interpreter(clone: Path, script: str) -> str:
    path = clone / "some-python"
    path.write_text(script)
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_make_alone_lists_every_command(clone: Path) -> None:
    """A target that a person may name has its line of help."""
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony is not None
    listed = [line.split()[1] for line in make(clone).stdout.splitlines()]
    assert listed == phony[1].split()


def test_an_old_python_is_named_and_nothing_is_made(clone: Path) -> None:
    done = make(clone, "run", interpreter(clone, OLD_PYTHON))
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.2" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_python_without_venv_is_told_what_to_install(clone: Path) -> None:
    done = make(clone, "test", interpreter(clone, NO_VENV))
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr


@pytest.mark.parametrize(("command", "stamp"), [("run", "providers"), ("test", "dev")])
def test_what_is_installed_is_not_installed_again(clone: Path, command: str, stamp: str) -> None:
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "pip").touch()
    assert "pip install" in make(clone, "-n", command).stdout
    (clone / ".venv" / f".installed-{stamp}").touch()
    assert "pip" not in make(clone, "-n", command).stdout


def test_a_lean_gateway_is_a_word_away(clone: Path) -> None:
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "pip").touch()
    assert "--editable '.[providers]'" in make(clone, "-n", "run").stdout
    assert "--editable .\n" in make(clone, "-n", "run", "WITH=").stdout


def test_new_pins_are_installed(clone: Path) -> None:
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "pip").touch()
    installed = clone / ".venv" / ".installed-dev"
    installed.touch()
    later = installed.stat().st_mtime + 10
    pins = clone / "constraints.txt"
    os.utime(pins, (later, later))
    assert "pip install" in make(clone, "-n", "test").stdout
