"""constraints.txt pins every dependency that CI installs, exactly and without saying where from."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
CI_EXTRAS = {"dev", "ingest", "otlp", "postgres", "train", "moe"}
PINS = {
    canonicalize_name(line.split("==")[0]): line.split("==")[1]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for name in CI_EXTRAS for line in project["optional-dependencies"][name]]
    return [Requirement(line) for line in (*project["dependencies"], *extras)]


def installed_with(names: set[str]) -> set[str]:
    """The names, and all that they need; asked of the packages that are installed here as pinned, in CI all of them."""
    found, left = set[str](), set(names)
    while left:
        name = left.pop()
        try:
            wanted = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
        found.add(name)
        if version(name).split("+")[0] != PINS.get(name):  # another version's needs are not ours to pin
            continue
        here = (need for need in wanted if need.marker is None or need.marker.evaluate({"extra": ""}))
        left |= {canonicalize_name(need.name) for need in here} - found
    return found


def test_each_line_is_an_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    exact = re.compile(r"[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*")
    assert [line for line in lines if not line.startswith("#") and not exact.fullmatch(line)] == []


@pytest.mark.parametrize("need", declared(), ids=str)
def test_a_declared_dependency_is_pinned_to_a_version_that_it_allows(need: Requirement) -> None:
    assert need.specifier.contains(PINS[canonicalize_name(need.name)])


def test_what_the_dependencies_need_is_pinned_too() -> None:
    names = installed_with({canonicalize_name(need.name) for need in declared()})
    assert sorted(name for name in names if name not in PINS) == []


@pytest.mark.parametrize(("name", "pin"), [("litellm", "1.106.2"), ("openai", "2.54.0"), ("torch", "2.13.0")])
def test_the_three_that_hold_each_other(name: str, pin: str) -> None:
    """litellm takes no openai 3; torch is the version that was tried. Pinned together, before all are needed."""
    assert Version(PINS[canonicalize_name(name)]) == Version(pin)


def test_what_is_installed_here_is_named_by_its_own_distribution() -> None:
    assert version("conclave-gateway") == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
