"""Only the pipeline, and the call itself, write to a call."""

from pathlib import Path

import pytest

from lints.call_writes import only_the_pipeline_writes_to_a_call
from lints.rule import Module

VIOLATIONS = {
    "an attribute": "def f(call):\n    call.grant = None",
    "one of a tuple": "def f(call):\n    rest, call.grant = 1, 2",
    "added to": "def f(call):\n    call.ended_s += 1",
    "deleted": "def f(call):\n    del call.reply",
    "an entry of its table": "def f(call):\n    call.marks_s['read'] = 1.0",
    "its list, in place": "def f(call):\n    call.attempts.append(1)",
    "what it holds": "def f(call):\n    call.reply.shown = True",
    "by setattr": "def f(call):\n    setattr(call, 'grant', None)",
    "held by an object": "class A:\n    def f(self):\n        self.call.error = None",
    "ended": "def f(call):\n    call.end(1.0)",
    "under another name": "def f(c: Call):\n    c.error = None",
    "as a loop's target": "def f(call):\n    for call.error in []: pass",
}
NEAR_MISSES = {
    "read": "def f(call):\n    error = call.error",
    "the variable itself": "def f(make):\n    call = make()",
    "something of its own": "def f(call, row):\n    row.error = call.error\n    row.notes.append(call.id)",
    "a name that only ends in call": "def f(recall):\n    recall.error = None",
    "a copy of its list": "def f(call):\n    attempts = list(call.attempts)\n    attempts.append(1)",
}


def found(source: str, place: str) -> list[int]:
    module = Module.of(source, place=place, root=Path())
    return [finding.line for finding in only_the_pipeline_writes_to_a_call(module)]


@pytest.mark.parametrize("source", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_write_elsewhere_is_found(source: str) -> None:
    assert len(found(source, "gateway/api/respond.py")) == 1


@pytest.mark.parametrize("source", NEAR_MISSES.values(), ids=NEAR_MISSES.keys())
def test_what_only_looks_like_a_write_passes(source: str) -> None:
    assert found(source, "gateway/api/respond.py") == []


@pytest.mark.parametrize("place", ["gateway/pipeline.py", "gateway/call.py", "router/classify.py"])
def test_the_writers_and_other_rooms_pass(place: str) -> None:
    assert found("def f(call):\n    call.grant = None", place) == []


def test_the_finding_names_the_line() -> None:
    assert found("def f(call):\n    pass\n    call.grant = None", "gateway/record.py") == [3]
