"""The built-in encoder as an expert: vectors as they are, written as asked, and no guess where it cannot serve."""

import asyncio
import base64
import json
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.encoder import QUICK_CHARS, TOKENS_AT_ONCE, EncoderExpert, embed_with
from conclave.gateway.prompt import Prompt
from conclave.router.encoder import StaticEncoder

ENCODER = StaticEncoder.load()


@pytest.fixture
async def expert() -> AsyncIterator[EncoderExpert]:
    made = EncoderExpert("encoder", embed_with(ENCODER), dimensions=ENCODER.dimensions)
    yield made
    await made.aclose()


async def ask(expert: EncoderExpert, inputs: Any, *, in_s: float = 60, **more: Any) -> dict[str, Any]:
    prompt = Prompt({"input": inputs, **more}, stream=False, operation="embeddings")
    upstream = expert.open(prompt, deadline_s=time.monotonic() + in_s)
    (chunk,) = [chunk async for chunk in upstream]
    assert upstream.attempt.ended_s is not None
    found: dict[str, Any] = json.loads(chunk.data)
    return found


async def test_a_text_has_the_routers_vector(expert: EncoderExpert) -> None:
    answer = await ask(expert, "hello world")
    (one,) = answer["data"]
    assert one["index"] == 0
    assert one["embedding"] == pytest.approx(ENCODER.encode(["hello world"])[0].tolist())
    assert (answer["object"], answer["model"]) == ("list", "encoder")
    assert answer["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


async def test_several_texts_keep_their_order(expert: EncoderExpert) -> None:
    texts = [f"text number {n}" for n in range(100)]
    answer = await ask(expert, texts)
    assert [one["index"] for one in answer["data"]] == list(range(100))
    assert np.allclose([one["embedding"] for one in answer["data"]], ENCODER.encode(texts))


async def test_base64_holds_the_same_numbers(expert: EncoderExpert) -> None:
    plain, packed = await ask(expert, "hello"), await ask(expert, "hello", encoding_format="base64")
    read = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), dtype="<f4")
    assert read.tolist() == plain["data"][0]["embedding"]


async def test_fewer_dimensions_are_the_first_ones_at_length_one(expert: EncoderExpert) -> None:
    whole, short = await ask(expert, "hello world"), await ask(expert, "hello world", dimensions=64)
    vector = short["data"][0]["embedding"]
    assert len(vector) == 64
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)
    first = np.array(whole["data"][0]["embedding"][:64])
    assert np.allclose(vector, first / np.linalg.norm(first), atol=1e-6)


async def test_all_of_a_long_text_counts(expert: EncoderExpert) -> None:
    words = "alpha beta gamma " * TOKENS_AT_ONCE
    one, other = [(await ask(expert, words + middle + words))["data"][0] for middle in ("", "sugar " * 9_000)]
    assert one["embedding"] != other["embedding"]
    assert np.dot(one["embedding"], one["embedding"]) == pytest.approx(1, abs=1e-5)
    short = embed_with(ENCODER)("alpha beta gamma").vector  # the same mean, so the same direction
    assert np.dot(one["embedding"], short) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("inputs", "more", "param"),
    [
        pytest.param([1, 2], {}, "input", id="token-ids"),
        pytest.param([[1], [2]], {}, "input", id="lists-of-token-ids"),
        pytest.param("", {}, "input", id="empty"),
        pytest.param(["a", " \n"], {}, "input[1]", id="blank"),
        pytest.param("a", {"dimensions": 257}, "dimensions", id="more-dimensions-than-there-are"),
    ],
)
async def test_what_it_cannot_do_is_left_to_others(expert: EncoderExpert, inputs: Any, more: Any, param: str) -> None:
    with pytest.raises(ExpertFailed) as failed:
        await ask(expert, inputs, **more)
    assert (failed.value.kind, failed.value.final, failed.value.param) == ("rejected", False, param)


@pytest.mark.parametrize("text", ["a", "a " * QUICK_CHARS], ids=["short", "long"])
async def test_a_call_whose_time_is_up_is_not_served(expert: EncoderExpert, text: str) -> None:
    with pytest.raises(DeadlineExceeded):
        await ask(expert, text, in_s=-1)


async def test_a_long_text_does_not_hold_the_event_loop(expert: EncoderExpert) -> None:
    """Another call is served while a long one is worked on."""
    long = asyncio.ensure_future(ask(expert, "some words that repeat " * 30_000))
    await asyncio.sleep(0)
    await ask(expert, "short")
    assert not long.done()
    assert len((await long)["data"]) == 1
