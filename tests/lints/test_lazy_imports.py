"""No module of the gateway imports a heavy package at its top level."""

from pathlib import Path

import pytest

from lints.lazy_imports import heavy_packages_are_imported_late
from lints.rule import Module

VIOLATIONS = {
    "plain": "import torch",
    "a part of it": "import sqlalchemy.orm",
    "from": "from litellm import acompletion",
    "in a try": "try:\n    import faiss\nexcept ImportError:\n    faiss = None",
    "in an if": "if True:\n    import httpx",
    "in a class": "class A:\n    import transformers",
    "a module that imports one": "from conclave.gateway.state.sql import Database",
    "that module by its package": "from conclave.gateway.state import sql",
}
NEAR_MISSES = {
    "in a function": "def f():\n    import torch",
    "for types only": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqlalchemy",
    "a package of a like name": "import httpx2\nimport torchless",
    "our own module of that name": "from . import torch",
    "a light module of the same package": "from conclave.gateway.state import counters",
}


def found(source: str, place: str = "gateway/app.py") -> int:
    return len(list(heavy_packages_are_imported_late(Module.of(source, place=place, root=Path()))))


@pytest.mark.parametrize("source", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_heavy_import_at_the_top_is_found(source: str) -> None:
    assert found(source)


@pytest.mark.parametrize("source", NEAR_MISSES.values(), ids=NEAR_MISSES.keys())
def test_a_late_or_light_import_passes(source: str) -> None:
    assert found(source) == 0


@pytest.mark.parametrize("place", ["gateway/state/sql.py", "router/train/distil.py"])
def test_modules_that_are_imported_late_themselves_and_other_rooms_pass(place: str) -> None:
    assert found("import sqlalchemy", place) == 0
