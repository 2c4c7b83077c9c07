"""The library while the gateway serves: found, replaced, damaged, late; whatever it does, a call goes on."""

import asyncio
import random
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from shelf import Leaf, shelve

from conclave.gateway.evidence import NOT_SEARCHED, Searched
from conclave.gateway.knowledge import AGAIN_S, LOOK_S, MOST_WAITING, THREADS, Knowledge, NoKnowledge
from conclave.gateway.testing import FakeClock
from conclave.retrieval.api import Query, Rights

from .looking import ASKED, BELLS, encoder

QUERY = Query(ASKED, Rights(None, frozenset()))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def knowledge(tmp_path: Path, clock: FakeClock) -> Iterator[Knowledge]:
    made = Knowledge(tmp_path / "k", encoder().encode, now_s=clock.now_s)
    yield made
    made.close()


async def ask(knowledge: Knowledge, query: Query | None = QUERY, timeout_s: float = 20) -> Searched:
    return await knowledge.search(query, timeout_s=timeout_s)


def sources(searched: Searched) -> list[str]:
    return [one.passage.source for one in searched.found]


async def test_who_asks_nothing_is_told_nothing(knowledge: Knowledge, tmp_path: Path) -> None:
    assert await ask(knowledge, None) is NOT_SEARCHED
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    assert await ask(knowledge, None) is NOT_SEARCHED
    assert await NoKnowledge().search(None, timeout_s=1) is NOT_SEARCHED
    assert await NoKnowledge().search(QUERY, timeout_s=1) == Searched(QUERY)


async def test_a_library_that_is_made_later_is_found(knowledge: Knowledge, tmp_path: Path, clock: FakeClock) -> None:
    assert await ask(knowledge) == Searched(QUERY), "no library is no failure"
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    assert sources(await ask(knowledge)) == [], "the disk is looked at every two seconds"
    clock.advance(LOOK_S)
    assert sources(await ask(knowledge)) == ["towers.md"]


async def test_what_is_added_is_found_at_once(knowledge: Knowledge, tmp_path: Path) -> None:
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    assert sources(await ask(knowledge)) == ["towers.md"]
    shelve(tmp_path / "k", encoder().encode, [Leaf("Zunelor has a second tower, without bells.", "second.md")])
    assert set(sources(await ask(knowledge))) == {"towers.md", "second.md"}


async def test_a_library_that_is_replaced_on_disk_is_opened_anew(
    knowledge: Knowledge, tmp_path: Path, clock: FakeClock
) -> None:
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    assert sources(await ask(knowledge)) == ["towers.md"]
    shelve(tmp_path / "new", encoder().encode, [Leaf("In the tower of Zunelor hang two bells now.", "new.md")])
    shutil.rmtree(tmp_path / "k")
    (tmp_path / "new").rename(tmp_path / "k")
    clock.advance(LOOK_S)
    assert sources(await ask(knowledge)) == ["new.md"]


async def test_a_library_that_is_gone_is_no_failure(knowledge: Knowledge, tmp_path: Path, clock: FakeClock) -> None:
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    assert sources(await ask(knowledge)) == ["towers.md"]
    shutil.rmtree(tmp_path / "k")
    clock.advance(LOOK_S)
    assert await ask(knowledge) == Searched(QUERY)


@pytest.mark.parametrize("damage", ["garbage", "empty folder", "cut"])
async def test_a_damaged_library_is_said_to_be_unusable_and_tried_again_later(
    knowledge: Knowledge, tmp_path: Path, clock: FakeClock, damage: str
) -> None:
    shelve(tmp_path / "good", encoder().encode, [BELLS])
    folder, file = tmp_path / "k", tmp_path / "k" / "knowledge.db"
    shutil.copytree(tmp_path / "good", folder)
    whole = file.read_bytes()
    if damage == "empty folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(b"\xff" * len(whole) if damage == "garbage" else whole[:5000])
    assert (await ask(knowledge)).failure == "unusable"
    clock.advance(AGAIN_S - 1)
    assert (await ask(knowledge)).failure == "unusable", "it says so for as long as it is left alone"
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "good", folder)
    clock.advance(LOOK_S)
    assert sources(await ask(knowledge)) == ["towers.md"], "another file is tried at once"


async def test_a_library_that_was_mended_in_place_is_used_again(
    knowledge: Knowledge, tmp_path: Path, clock: FakeClock
) -> None:
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    [current] = (tmp_path / "k").rglob("CURRENT")
    whole = current.read_bytes()
    current.write_bytes(b"\xff\xfe")
    assert (await ask(knowledge)).failure == "unusable"
    current.write_bytes(whole)
    assert (await ask(knowledge)).failure == "unusable"
    clock.advance(AGAIN_S)
    assert sources(await ask(knowledge)) == ["towers.md"]


async def test_no_damage_raises(tmp_path: Path) -> None:
    """Sixty times a file of the library is cut, overwritten, changed or taken away: there is an answer or a failure."""
    shelve(tmp_path / "good", encoder().encode, [Leaf(f"The tower of Z{n} has {n} bells.") for n in range(60)])
    dice = random.Random(20_261_122)
    endings = set()
    for number in range(60):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "good", folder)
        victim = dice.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        raw = bytearray(victim.read_bytes())
        match dice.choice(["cut", "flip", "noise", "gone"]):
            case "cut":
                victim.write_bytes(raw[: dice.randrange(len(raw) + 1)])
            case "flip":
                for _ in range(dice.choice([1, 10, 500])):
                    raw[dice.randrange(len(raw))] ^= dice.randrange(1, 256)
                victim.write_bytes(raw)
            case "noise":
                victim.write_bytes(dice.randbytes(len(raw)))
            case _:
                victim.unlink()
        knowledge = Knowledge(folder, encoder().encode)
        searched = await ask(knowledge)
        endings.add(searched.failure)
        knowledge.close()
        shutil.rmtree(folder)
    assert endings == {"", "unusable"}


async def test_a_library_of_another_encoder_is_unusable(tmp_path: Path) -> None:
    """Its vectors mean nothing to this one."""
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    other = Knowledge(tmp_path / "k", lambda texts: -encoder().encode(texts))
    assert (await ask(other)).failure == "unusable"
    other.close()


class Held:
    """An encoder that waits until it may go on: what searches stands still."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.held = False

    def __call__(self, texts: Sequence[str]) -> Any:
        if self.held:
            assert self.go.wait(30)
        return encoder().encode(texts)


async def test_a_search_that_takes_too_long_is_late_and_the_loop_is_free(tmp_path: Path) -> None:
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    held = Held()
    knowledge = Knowledge(tmp_path / "k", held)
    assert (await ask(knowledge)).failure == ""
    held.held = True
    before_s = time.monotonic()
    assert (await ask(knowledge, timeout_s=0.05)).failure == "late"
    assert time.monotonic() - before_s < 5
    held.go.set()
    assert sources(await ask(knowledge)) == ["towers.md"]
    knowledge.close()


async def test_more_searches_than_can_wait_go_without(tmp_path: Path) -> None:
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    held = Held()
    knowledge = Knowledge(tmp_path / "k", held)
    await ask(knowledge)
    held.held = True
    waiting = [asyncio.create_task(ask(knowledge)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await ask(knowledge)).failure == "busy"
    held.go.set()
    assert {one.failure for one in await asyncio.gather(*waiting)} == {""}
    assert (await ask(knowledge)).failure == "", "who has waited makes room"
    knowledge.close()


async def test_a_client_that_leaves_makes_room(tmp_path: Path) -> None:
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    held = Held()
    knowledge = Knowledge(tmp_path / "k", held)
    await ask(knowledge)
    held.held = True
    waiting = [asyncio.create_task(ask(knowledge)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0.05)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    held.go.set()
    assert sources(await ask(knowledge)) == ["towers.md"]
    knowledge.close()


async def test_many_calls_at_once_have_the_same_answer(knowledge: Knowledge, tmp_path: Path) -> None:
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    found = await asyncio.gather(*(ask(knowledge) for _ in range(8 * THREADS)))
    assert {tuple(sources(one)) for one in found} == {("towers.md",)}


async def test_it_can_be_warm_before_the_first_call_and_closed_at_any_time(tmp_path: Path) -> None:
    for leaves in ((), (BELLS,)):
        knowledge = Knowledge(tmp_path / "k", encoder().encode)
        if leaves:
            shelve(tmp_path / "k", encoder().encode, leaves)
        knowledge.begin()
        knowledge.close()
        knowledge.close()


@pytest.mark.parametrize(
    "text", ["", "   ", "?!", '"', "a AND (b", "NEAR/3 *", "x" * 1_000_000, "\ud800", "日本語", "\0"], ids=repr
)
async def test_any_text_is_a_question(knowledge: Knowledge, tmp_path: Path, text: str) -> None:
    shelve(tmp_path / "k", encoder().encode, [BELLS])
    assert (await ask(knowledge, Query(text, Rights(None, frozenset())))).failure == ""
