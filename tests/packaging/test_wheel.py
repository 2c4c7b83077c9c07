"""The wheel holds what the tree holds: every tracked file of the rooms, under `conclave`."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("gateway", "router", "safety", "retrieval", "moe", "kernels")


def tracked() -> list[PurePosixPath]:
    command = ["git", "ls-files", "-z", "--", *ROOMS, "pyproject.toml", "setup.py", "README.md", "LICENSE"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [PurePosixPath(name) for name in done.stdout.split("\0") if name]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of the tracked files: what lies in the working tree beside them must not get in."""
    clean = tmp_path_factory.mktemp("clean")
    for name in tracked():
        if (ROOT / name).is_file():
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clean / name)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--wheel-dir", str(clean / "out"), str(clean)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next((clean / "out").glob("*.whl")))


def test_wheel_and_tree_agree(wheel: zipfile.ZipFile) -> None:
    in_tree = {f"conclave/{name}" for name in tracked() if name.parts[0] in ROOMS and (ROOT / name).is_file()}
    in_wheel = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert in_wheel == in_tree


def test_every_room_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {f"conclave/{room}/py.typed" for room in ROOMS} <= set(wheel.namelist())


def test_nobody_owns_the_import_root(wheel: zipfile.ZipFile) -> None:
    assert "conclave/__init__.py" not in wheel.namelist()


def test_the_command_is_declared(wheel: zipfile.ZipFile) -> None:
    entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert b"conclave = conclave.gateway.cli:main" in wheel.read(entry_points)


def test_the_rooms_are_the_same_everywhere() -> None:
    """setup.py packs the rooms that make links for mypy and that import-linter watches."""
    setup, make, project = (ROOT.joinpath(name).read_text() for name in ("setup.py", "Makefile", "pyproject.toml"))
    assert 'ROOTS = ("' + '", "'.join(ROOMS) + '")' in setup
    assert f"ROOTS  := {' '.join(ROOMS)}\n" in make
    assert all(f'"conclave.{room}"' in project for room in ROOMS)
