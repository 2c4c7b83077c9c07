"""Span and metric names stand in gateway/telemetry/names.py alone."""

from pathlib import Path

import pytest

from lints.rule import Module
from lints.telemetry_names import telemetry_names_stand_at_one_place

ROOT = Path(__file__).parents[2]
VIOLATIONS = {
    "ours": 'span.set("conclave.route.category", 1)',
    "of a room's name": 'span.set("conclave.safety.blocked", 1)',
    "given by keyword": 'span(name="conclave.route.category")',
    "the convention's": 'NAME = "gen_ai.request.model"',
    "the start of one": 'f"gen_ai.usage.{kind}"',
    "a metric": 'Counter("conclave_calls_total", "Calls.")',
}
NEAR_MISSES = {
    "a module": 'start("conclave.gateway.app")',
    "something in a module": 'start("conclave.router.api.Decision")',
    "a module and a name": 'start("conclave.gateway.cli:main")',
    "imported by name": 'import_module("conclave.router.later")',
    "a logger": 'get_logger("conclave.access")',
    "a file": 'state / "conclave.db"',
    "a sentence": 'fail("conclave.yaml: no such file")',
    "a request's field": 'raise InvalidRequest("no such tag", param="conclave.tags.team")',
    "a docstring": 'def f():\n    "conclave.route.category"',
    "a name with an underscore that is no metric": 'ContextVar("conclave_call")',
}


def found(source: str, place: str = "gateway/record.py") -> int:
    return len(list(telemetry_names_stand_at_one_place(Module.of(source, place=place, root=ROOT))))


@pytest.mark.parametrize("source", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_name_elsewhere_is_found(source: str) -> None:
    assert found(source) == 1


@pytest.mark.parametrize("source", NEAR_MISSES.values(), ids=NEAR_MISSES.keys())
def test_other_strings_with_our_name_pass(source: str) -> None:
    assert found(source) == 0


def test_the_module_of_names_passes() -> None:
    assert found(VIOLATIONS["ours"], "gateway/telemetry/names.py") == 0
