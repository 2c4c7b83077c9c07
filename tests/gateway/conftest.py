"""Gateways over libraries of documents, closed at the end of each test."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.testing import FakeExpert

from .looking import House, Open


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Open]:
    """Opens a house with these experts, in a folder of its own."""
    made: list[House] = []
    numbers = count()

    def opened(*experts: FakeExpert, **more: Any) -> House:
        made.append(House(*experts, **{"folder": tmp_path / str(next(numbers)), **more}))
        return made[-1]

    yield opened
    for one in made:
        one.close()
