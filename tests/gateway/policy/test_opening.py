"""Experts of one version after another: what did not change is kept, what is not wanted is closed when it is unused."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.api import Expert
from conclave.gateway.experts.openai_http import HttpSessions
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.opening import Keys, Opened, Opener, is_lost, keys_of
from conclave.gateway.prompt import Prompt

URL = "http://127.0.0.1:1/v1"
PROMPT = Prompt({"messages": [{"role": "user", "content": "how do I roll back?"}]}, stream=True)
FOREVER_S = 1e12


@pytest.fixture
async def opener() -> AsyncIterator[Opener]:
    sessions = HttpSessions()
    made = Opener({"KEY": "k1"}, sessions)
    yield made
    await made.aclose()
    await sessions.aclose()


def document(**experts: dict[str, Any]) -> PolicyDocument:
    return PolicyDocument.model_validate({"experts": experts})


def fast(**more: Any) -> dict[str, Any]:
    return {"base_url": URL, "model": "m"} | more


def quoting() -> dict[str, Any]:
    return {"kind": "quoting"}


def expert_of(pool: Pool, name: str) -> Expert:
    return pool.tables[name].seats[0].deployment.expert


async def is_closed(expert: Expert) -> bool:
    """Whether the quoting expert's index was closed; a few turns of the loop are let pass."""
    for _ in range(5):
        await asyncio.sleep(0)
    try:
        await anext(expert.open(PROMPT, deadline_s=FOREVER_S))
    except ExpertFailed:
        return True
    return False


async def test_an_expert_that_did_not_change_keeps_its_deployments_with_their_health(opener: Opener) -> None:
    first = opener.open(document(a=fast(breaker={"failures": 1}), b=fast()))
    seat = first.pool.tables["a"].seats[0]
    seat.breaker.failed(seat.breaker.admit(0.0), now_s=first.pool.now_s())
    second = opener.open(document(a=fast(breaker={"failures": 1}), b=fast(model="other"), c=fast()), first)
    assert second.pool.tables["a"] is first.pool.tables["a"]
    assert second.pool.tables["b"] is not first.pool.tables["b"]
    assert [(state.expert, state.breaker) for state in second.pool.states()] == [
        ("a", "open"),
        ("b", "closed"),
        ("c", "closed"),
    ]


@pytest.mark.parametrize(
    "change",
    [{"model": "n"}, {"base_url": f"{URL}/x"}, {"idle_s": 1}, {"api_key_env": "KEY"}, {"breaker": {"failures": 2}}],
    ids=lambda change: next(iter(change)),
)
async def test_an_expert_whose_settings_changed_is_opened_anew(opener: Opener, change: dict[str, Any]) -> None:
    first = opener.open(document(a=fast()))
    assert opener.open(document(a=fast(**change)), first).pool.tables["a"] is not first.pool.tables["a"]


async def test_an_expert_whose_key_file_changed_is_opened_anew(opener: Opener, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k1\n")
    policy = document(a=fast(api_key_file=str(key)), b=fast())
    first = opener.open(policy)
    key.write_text("k1")  # the same key
    assert opener.open(policy, first).pool.tables["a"] is first.pool.tables["a"]
    key.write_text("k2\n")
    assert opener.open(policy, first).pool.tables["a"] is first.pool.tables["a"], "whoever opens did not look twice"
    second = opener.open(policy, first, rotated=keys_of(policy))
    assert second.pool.tables["a"] is not first.pool.tables["a"]
    assert second.pool.tables["b"] is first.pool.tables["b"]


async def test_a_key_that_changed_again_since_it_was_seen_is_not_taken(opener: Opener, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k1")
    policy = document(a=fast(api_key_file=str(key)))
    first = opener.open(policy)
    key.write_text("k2")
    seen = keys_of(policy)
    key.write_text("")
    second = opener.open(policy, first, rotated=seen)
    assert second.pool.tables["a"] is first.pool.tables["a"]
    assert second.keys == first.keys, "so that the next look sees a change"


@pytest.mark.parametrize(
    ("held", "now", "lost"),
    [
        ((b"1",), (None,), True),
        ((b"1", None), (None, None), True),
        ((b"1", b"2"), (b"3", None), True),
        ((None,), (b"1",), False),
        ((b"1",), (b"2",), False),
        ((b"1", None), (b"1", b"2"), False),
        ((), (), False),
    ],
)
def test_a_key_is_lost_where_one_was_and_none_is(held: Keys, now: Keys, *, lost: bool) -> None:
    assert is_lost(held, now) is lost


async def test_a_removed_expert_is_closed_when_the_last_call_that_may_ask_it_has_ended(opener: Opener) -> None:
    before = opener.open(document(a=quoting(), b=quoting()))
    a, b = expert_of(before.pool, "a"), expert_of(before.pool, "b")
    held_by_a_call: list[Any] = [before.pool]
    after = opener.open(document(b=quoting()), before)
    del before
    assert not await is_closed(a), "a call holds the pool: it may still choose it"
    upstream = held_by_a_call[0].open("a", PROMPT, deadline_s=FOREVER_S)
    await anext(upstream)
    held_by_a_call.clear()
    assert not await is_closed(a), "its answer is on its way"
    while True:
        try:
            await anext(upstream)
        except StopAsyncIteration:
            break
    upstream.close()
    del upstream
    assert await is_closed(a)
    assert not await is_closed(b), "the new version has it"
    assert set(after.pool.tables) == {"b"}


async def test_letting_go_needs_no_collection_of_garbage(opener: Opener) -> None:
    """What served at start is frozen: a cycle would keep it for ever."""
    gc.collect()
    gc.disable()
    try:
        opened = opener.open(document(a=quoting()))
        a = expert_of(opened.pool, "a")
        del opened
        assert await is_closed(a)
    finally:
        gc.enable()


async def test_the_last_holder_may_be_a_thread(opener: Opener) -> None:
    held: list[Opened] = [opener.open(document(a=quoting()))]
    a = expert_of(held[0].pool, "a")
    thread = threading.Thread(target=held.clear)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await is_closed(a)


async def test_a_version_that_cannot_be_opened_leaves_the_one_before_as_it_is(opener: Opener, tmp_path: Path) -> None:
    before = opener.open(document(a=quoting()))
    with pytest.raises(OSError, match="expert b: api_key_file"):
        opener.open(document(a=quoting(), b=fast(api_key_file=str(tmp_path / "gone"))), before)
    assert not await is_closed(expert_of(before.pool, "a"))


async def test_at_the_end_all_are_closed_held_or_not() -> None:
    sessions = HttpSessions()
    opener = Opener({}, sessions)
    first = opener.open(document(a=quoting(), b=quoting()))
    second = opener.open(document(b=quoting(), c=quoting()), first)
    experts = [expert_of(first.pool, "a"), expert_of(second.pool, "b"), expert_of(second.pool, "c")]
    await opener.aclose()
    assert [await is_closed(expert) for expert in experts] == [True] * 3
    await sessions.aclose()
