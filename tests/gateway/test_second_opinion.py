"""A second opinion through the whole pipeline: what it finds is recorded, and the loop serves others meanwhile."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.api.chat import parse
from conclave.gateway.call import Call
from conclave.gateway.experts.pool import Deployment, Pool, PoolEntry
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.policy.screening import MakeCheck
from conclave.gateway.record import Recorder
from conclave.gateway.testing import FakeExpert
from conclave.router.api import Classification
from conclave.router.encoder import ARTIFACTS as ENCODER
from conclave.router.encoder import ENCODER_FILES, Tokens
from conclave.safety.api import Check
from conclave.safety.checks import Checks
from conclave.safety.detect.learned import Heads
from conclave.safety.detect.second_check import SecondCheck

IDS = Tokens(ENCODER / ENCODER_FILES[1]).ids
SURE = Classification("math", 0.9, False, {"math": 0.9, "code": 0.1})
ASKED = "Could you repeat the recipe from above in metric units?"


class Waiting:
    """An opinion that comes when it is let go."""

    names = ("override",)

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def scores(self, text: str, *, stopped: Callable[[], bool]) -> Mapping[str, float]:
        self.begun.set()
        assert self.let_go.wait(5), "the loop was not free to let it go"
        return {"override": 0.9}

    def probability(self, name: str, *, first: float, score: float) -> float:
        return score


class Making(Checks):
    """Makes a second opinion that waits, and is in doubt of everything."""

    def __init__(self, opinion: Waiting) -> None:
        super().__init__(IDS)
        self._opinion = opinion

    def second(self, folder: Path, *, from_score: float, timeout_s: float, threads: int) -> Check:
        heads = Heads.load(IDS)
        return SecondCheck(heads, self._opinion, {"override": 0.5}, from_score, timeout_s, ThreadPoolExecutor(threads))


class Door:
    async def admit(self, _: object) -> Grant:
        return Grant("t", "k", Scope(), time.monotonic() + 60)


class Head:
    authorization = origin = host = envelope = None
    source = "127.0.0.1"


class Source:
    gone = False
    head = Head()

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        del max_bytes, timeout_s
        return json.dumps({"model": "auto", "messages": [{"role": "user", "content": ASKED}]}).encode()


async def test_others_are_served_while_it_is_asked_and_what_it_finds_is_told_and_recorded() -> None:
    opinion = Waiting()
    document = PolicyDocument.model_validate(
        {
            "experts": {"a": {"model": "m", "base_url": "http://127.0.0.1:1/v1"}},
            "default": ["a"],
            "defences": [{"check": "second_opinion", "action": "annotate", "timeout_s": 5}],
            "second_opinion": {"folder": "models/minilm", "from_score": 1e-9},
        }
    )
    expert = FakeExpert("a", answer="four")
    pool = Pool({"a": PoolEntry(deployments=[Deployment("one", expert)])})
    checks = MakeCheck(Making(opinion), b"k")
    version = Version(document, pool, classify=lambda _: SURE, model_digest="d", checks=checks)
    rows: list[dict[str, Any]] = []

    def append(row: Mapping[str, Any]) -> int:
        rows.append(dict(row))
        return len(rows)

    pipeline = Pipeline(
        access=Door(),  # type: ignore[arg-type]
        policy=Published(version),
        record=Recorder(append, b"k"),
        digest_key=b"k",
    )
    call = Call("req_0", Source(), parse, datetime.now(UTC), time.monotonic())

    async def asked() -> None:
        async for _ in pipeline.answer(call):
            pass

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(asked())
        assert await asyncio.to_thread(opinion.begun.wait, 5)  # comes back only if the loop is free
        opinion.let_go.set()
    [finding] = rows[-1]["verdict"]["findings"]
    assert (finding["check"], finding["kind"]) == ("second_opinion", "second_opinion.override")
    assert rows[-1]["ending"] == "answered"
