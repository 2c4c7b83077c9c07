"""The stream's three laws, each with what breaks it and what only looks like it."""

from pathlib import Path

import pytest

from lints.data_plane import (
    no_finally_awaits,
    no_time_limit_around_a_yield,
    the_pipeline_is_the_only_async_generator,
)
from lints.rule import Module, Rule

GENERATOR = "async def answer():\n    yield 1\n"


def found(rule: Rule, source: str, place: str = "gateway/experts/pool.py") -> list[int]:
    return [finding.line for finding in rule(Module.of(source, place=place, root=Path()))]


@pytest.mark.parametrize(
    "cleanup",
    [
        "await close()",
        "if x:\n            await close()",
        "async with x:\n            pass",
        "a = [i async for i in x]",
    ],
    ids=["await", "under an if", "async with", "async comprehension"],
)
def test_a_finally_that_awaits_is_found(cleanup: str) -> None:
    source = f"async def f():\n    try:\n        pass\n    finally:\n        {cleanup}\n"
    assert len(found(no_finally_awaits, source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "async def f():\n    try:\n        await x()\n    finally:\n        close()",
        "async def f():\n    try:\n        pass\n    except ValueError:\n        await x()",
        "async def f():\n    try:\n        pass\n    finally:\n        async def later():\n            await x()",
    ],
    ids=["plain call", "await in except", "a function defined there"],
)
def test_a_finally_that_does_not_await_passes(source: str) -> None:
    assert found(no_finally_awaits, source) == []


@pytest.mark.parametrize("limit", ["asyncio.timeout(1)", "timeout_at(1)", "anyio.move_on_after(1)"])
def test_a_time_limit_around_a_yield_is_found(limit: str) -> None:
    source = f"async def f():\n    async with {limit}:\n        if x:\n            yield 1\n"
    assert found(no_time_limit_around_a_yield, source) == [2]


@pytest.mark.parametrize(
    "source",
    [
        "async def f():\n    async with asyncio.timeout(1):\n        x = await g()\n    yield x\n",
        "async def f():\n    async with session():\n        yield 1\n",
    ],
    ids=["yield after the limit", "another context"],
)
def test_a_yield_outside_a_time_limit_passes(source: str) -> None:
    assert found(no_time_limit_around_a_yield, source) == []


@pytest.mark.parametrize(
    ("source", "place", "lines"),
    [
        pytest.param(GENERATOR, "gateway/api/chat.py", [1], id="one beside the pipeline"),
        pytest.param("x = (i async for i in y)", "gateway/api/chat.py", [1], id="an expression beside it"),
        pytest.param(GENERATOR * 2, "gateway/pipeline.py", [3], id="a second in the pipeline"),
        pytest.param("async def f():\n    pass", "gateway/pipeline.py", [1], id="none in the pipeline"),
    ],
)
def test_any_other_async_generator_is_found(source: str, place: str, lines: list[int]) -> None:
    assert found(the_pipeline_is_the_only_async_generator, source, place) == lines


@pytest.mark.parametrize(
    ("source", "place"),
    [
        pytest.param(GENERATOR, "gateway/pipeline.py", id="the pipeline's own"),
        pytest.param("def f():\n    yield 1", "gateway/api/chat.py", id="a plain generator"),
        pytest.param("async def f():\n    def g():\n        yield 1\n", "gateway/api/chat.py", id="a plain one inside"),
        pytest.param(GENERATOR, "gateway/app.py", id="off the data plane"),
    ],
)
def test_near_misses_of_an_async_generator_pass(source: str, place: str) -> None:
    assert found(the_pipeline_is_the_only_async_generator, source, place) == []
