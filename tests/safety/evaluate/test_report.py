"""`conclave safety report`: the committed floors hold for the shipped detectors."""

import os
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from conclave.gateway.cli import main
from conclave.safety.evaluate.report import FLOORS, lay_out

DATA = os.environ.get("CONCLAVE_DATA")


def test_every_floor_is_a_share_or_a_speed_that_can_fail() -> None:
    floors = msgspec.json.decode(FLOORS.read_bytes(), type=dict[str, float])
    assert len(floors) >= 15
    assert all(0 < floor <= 1 for name, floor in floors.items() if name != "KB a ms")


def test_the_table_shows_the_floor_beside_the_figure() -> None:
    assert lay_out({"a": 0.5, "bb": 1.0}, {"a": 0.4}) == "a     0.5000  floor 0.4\nbb    1.0000"


def test_a_folder_without_the_data_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["safety", "report", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "category_dev.jsonl.gz is not there" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="CONCLAVE_DATA names no folder of data files")
def test_the_shipped_detectors_hold_every_floor_but_speed() -> None:
    """Speed is left to a quiet machine."""
    done = CliRunner().invoke(main, ["safety", "report", "--data", str(DATA)])
    failures = [line for line in done.stderr.splitlines() if not line.startswith("KB a ms")]
    assert failures == []
