"""A mask of inner experts: only those run, whatever the policy, and only for the call that bears it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from conclave.moe.checkpoint import Checkpoint
from conclave.moe.engine import Engine
from conclave.moe.errors import InvalidRequest
from conclave.moe.requests import read
from tests.moe.serving import chat, engine_on, idle, loaded, said, write_model

EXPERTS = 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("small") / "small"
    return loaded(write_model(folder))


@pytest.fixture
async def engine(checkpoint: Checkpoint) -> AsyncIterator[Engine]:
    made = engine_on(checkpoint)
    yield made
    await made.close()


async def ran(engine: Engine) -> set[int]:
    """The experts of any layer that ran since the engine was made."""
    await idle(engine)
    layers = (await asyncio.to_thread(engine.load)).layers
    return {number for layer in layers for number, share in enumerate(layer.load) if share > 0}


@pytest.mark.parametrize("policy", [None, {"name": "topp", "p": 0.9}], ids=["native", "topp"])
@pytest.mark.parametrize("allowed", [(0,), (1, 6), (7, 7, 2, 3, 4)], ids=str)
async def test_only_the_allowed_experts_run(engine: Engine, allowed: tuple[int, ...], policy: object) -> None:
    text, end = await said(engine, chat(experts=allowed, policy=policy))
    assert text
    assert end.reason == "length"
    assert await ran(engine) <= set(allowed)


async def test_one_calls_mask_is_nobody_elses(engine: Engine) -> None:
    alone, _ = await said(engine, chat(temperature=0))
    masked, _ = await said(engine, chat(temperature=0, experts=(2, 3)))
    both = await asyncio.gather(said(engine, chat(temperature=0)), said(engine, chat(temperature=0, experts=(2, 3))))
    assert [text for text, _ in both] == [alone, masked]
    assert alone != masked


async def test_a_mask_of_all_experts_changes_nothing(engine: Engine) -> None:
    free, _ = await said(engine, chat(temperature=0))
    masked, _ = await said(engine, chat(temperature=0, experts=tuple(range(EXPERTS))))
    assert masked == free


async def test_an_expert_that_is_not_there_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="0 to 7"):
        await engine.open(chat(experts=(EXPERTS,)))


@pytest.mark.parametrize("experts", ["[]", "[-1]", "[1.5]", '"1"', "[70000]", "{}"])
def test_what_is_no_list_of_experts_is_refused_with_its_place(experts: str) -> None:
    body = (
        f'{{"model":"small","messages":[{{"role":"user","content":"x"}}],"conclave":{{"moe":{{"experts":{experts}}}}}}}'
    )
    with pytest.raises(InvalidRequest) as refused:
        read(body.encode())
    assert str(refused.value.param).startswith("conclave.moe.experts")
