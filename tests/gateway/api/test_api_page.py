"""docs/api.md: it names every endpoint, and what it shows is right."""

import json
import re
from pathlib import Path

import pytest

from conclave.gateway.api.body import MOST_INPUTS
from conclave.gateway.api.openapi import described
from conclave.gateway.errors import Unsupported
from conclave.gateway.settings import load_settings
from conclave.safety.boundary.segments import TOKEN_IDS

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


def test_it_names_every_endpoint_that_is_described_and_no_other() -> None:
    named = set(re.findall(r"`(?:GET|POST) (/[^`]*)`", PAGE))
    assert named == described()["paths"].keys()


def test_its_error_is_the_one_that_is_sent() -> None:
    (shown,) = re.findall(r"^    (\{.*\})$", PAGE, flags=re.MULTILINE)
    assert json.loads(shown) == Unsupported("no expert in reach can do: audio").envelope()


def test_its_limits_are_those_of_the_code() -> None:
    assert f"{MOST_INPUTS:,} texts or {TOKEN_IDS:,} token ids" in PAGE


def test_its_example_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    Path("c.yaml").write_text(example.replace("gpu.internal", "127.0.0.1"))  # a private name needs an allow-list
    assert load_settings(Path("c.yaml")).policy.aliases == {"text-embedding-3-small": "bge"}
