"""A pipeline over a library of documents, with the real search, gate, checks and guard; the experts are fake."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from shelf import Leaf, shelve

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.access.tags import tagged
from conclave.gateway.api import headers
from conclave.gateway.api.chat import parse
from conclave.gateway.api.completions import parse as parse_completion
from conclave.gateway.call import END, SILENCE, Call, Chunk
from conclave.gateway.errors import ConclaveError
from conclave.gateway.experts.pool import Deployment, Pool, PoolEntry
from conclave.gateway.knowledge import Knowledge, Library
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.policy.screening import MakeCheck, maker
from conclave.gateway.policy.seeking import MakeSeeking
from conclave.gateway.record import row_of
from conclave.gateway.testing import FakeExpert
from conclave.router.api import Classification
from conclave.router.encoder import StaticEncoder

ASKED = "How many bells hang in the tower of Zunelor?"
BELLS = Leaf("In the tower of Zunelor hang eleven bells, cast in one summer.", "towers.md", "Bells")
FOUND = Classification("math", 0.9, False, {"math": 0.9, "law": 0.1})


@cache
def encoder() -> StaticEncoder:
    return StaticEncoder.load()


@cache
def checks() -> MakeCheck:
    return maker(encoder().tokens.ids, key=b"k" * 32)


class Head:
    authorization = None
    source = "127.0.0.1"
    origin = None
    host = None
    envelope = None


class Source:
    head = Head()
    gone = False

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        del max_bytes, timeout_s
        return self.body


class Bound:
    """Admits everybody under one scope, as one tenant."""

    def __init__(self, scope: Scope, tenant: str = "t", deadline_s: float = 1e12) -> None:
        self.grant = Grant(tenant, "k", scope, deadline_s=deadline_s)

    async def admit(self, _: object) -> Grant:
        return self.grant


class House:
    """A gateway's pipeline; `policy` is laid over one that asks the experts in their order."""

    def __init__(
        self,
        *experts: FakeExpert,
        folder: Path | None = None,
        leaves: Sequence[Leaf] = (),
        library: Library | None = None,
        scope: Scope | None = None,
        now_s: Callable[[], float] | None = None,
        **policy: Any,
    ) -> None:
        self.experts = {one.name: one for one in experts}
        names = [one.name for one in experts]
        if folder is not None and leaves:
            shelve(folder, encoder().encode, leaves)
        assert library is not None or folder is not None
        self.knowledge = library if library is not None else Knowledge(folder or Path(), encoder().encode)
        can = ["chat", "tools", "n", "logprobs"]
        known = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "capabilities": can}
        built: dict[str, Any] = {
            "experts": dict.fromkeys(names, known),
            "default": names,
            "categories": {"math": names},
        }
        for name, part in policy.pop("experts", {}).items():
            built["experts"] = {**built["experts"], name: part}
        document = PolicyDocument.model_validate(built | policy)
        entries = {one.name: PoolEntry([Deployment("one", one)], transport_retries=0) for one in experts}
        self.version = Version(
            document,
            Pool(entries),
            classify=lambda _: FOUND,
            model_digest="d",
            checks=checks(),
            seeks=MakeSeeking(encoder()),
        )
        self.calls: list[Call] = []
        self.shown: list[Chunk] = []  # of the last call
        deadline_s = 1e12 if now_s is None else now_s() + 60
        self.pipeline = Pipeline(
            access=Bound(scope or Scope(), deadline_s=deadline_s),  # type: ignore[arg-type]  # a test's own
            policy=Published(self.version),
            record=self.calls.append,
            digest_key=b"k",
            knowledge=self.knowledge,
            **({"now_s": now_s} if now_s is not None else {}),
        )

    async def run(self, body: dict[str, Any], *, completion: bool = False) -> list[Chunk]:
        """All that the client gets; raises what the call ends with."""
        parser = tagged(parse_completion if completion else parse, None)
        call = Call(
            f"req_{len(self.calls)}",
            Source(json.dumps(body).encode()),
            parser,
            datetime.now(UTC),
            self.pipeline.now_s(),
        )
        return [chunk async for chunk in self.pipeline.answer(call)]

    async def ended(self, body: dict[str, Any]) -> ConclaveError | None:
        """What the call ends with; None if it was answered."""
        try:
            self.shown = await self.run(body)
        except ConclaveError as error:
            return error
        return None

    @property
    def call(self) -> Call:
        """The last one."""
        return self.calls[-1]

    @property
    def row(self) -> dict[str, Any]:
        """What the record keeps of it."""
        return row_of(self.call, datetime.now(UTC), lambda _: "digest")

    @property
    def header(self) -> str | None:
        """What `x-conclave-retrieval` says of it."""
        return dict(headers.call_headers(self.call)).get(b"x-conclave-retrieval", b"").decode() or None

    def sent(self, expert: str, number: int = -1) -> list[dict[str, Any]]:
        """The messages that an expert was sent."""
        messages: list[dict[str, Any]] = self.experts[expert].asked[number].body["messages"]
        return messages

    def close(self) -> None:
        if isinstance(self.knowledge, Knowledge):
            self.knowledge.close()


def ask(text: Any = ASKED, mode: Any = None, **more: Any) -> dict[str, Any]:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]} | more
    return body | ({"conclave": {"retrieval": mode}} if mode is not None else {})


def explained(chunks: list[Chunk]) -> dict[str, Any]:
    """The `conclave` object of an answer."""
    found: dict[str, Any] = [one for one in chunks if one is not END and one is not SILENCE][-1].event["conclave"]
    return found


def text(chunks: list[Chunk]) -> str:
    events = [one.event for one in chunks if one is not END and one is not SILENCE]
    choices = [choice for event in events for choice in event["choices"]]
    return "".join((choice.get("message") or choice.get("delta") or {}).get("content") or "" for choice in choices)


Open = Callable[..., House]


def said(answer: str = "eleven [1]", name: str = "a", **more: Any) -> FakeExpert:
    """An expert that answers this."""
    return FakeExpert(name, answer=answer, **more)
