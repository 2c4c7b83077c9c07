"""docs/dependencies.md and pyproject.toml name the same packages, and each line says what the package saves us."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PARTS = {"Always installed": PROJECT["dependencies"]} | PROJECT["optional-dependencies"]


def rows(part: str) -> dict[str, str]:
    """Package to what it saves us, from the table under the heading that begins with `part`."""
    page = (ROOT / "docs" / "dependencies.md").read_text()
    section = re.search(rf"^## `?{re.escape(part)}`?.*?\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/dependencies.md has no section for {part}"
    table = re.findall(r"^\| (\S+) \| (.+) \|$", section[1], flags=re.MULTILINE)
    return {canonicalize_name(name): saves for name, saves in table if name != "package"}


@pytest.mark.parametrize("part", PARTS)
def test_page_and_project_agree(part: str) -> None:
    declared = sorted(canonicalize_name(Requirement(line).name) for line in PARTS[part])
    assert sorted(rows(part)) == declared


def test_each_line_says_something() -> None:
    empty = [name for part in PARTS for name, saves in rows(part).items() if len(saves.split()) < 3]
    assert empty == []
