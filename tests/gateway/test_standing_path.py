"""Calls through the whole pipeline, rows through the followers: attackers meet a stricter gateway, others do not."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.access.standing import KEY_BLOCKED, LocalStandings, Vetting
from conclave.gateway.api.chat import parse
from conclave.gateway.call import Call
from conclave.gateway.errors import Blocked, ConclaveError, Forbidden
from conclave.gateway.experts.pool import Deployment, Pool, PoolEntry
from conclave.gateway.followers.api import Noted, Row
from conclave.gateway.followers.ooda import OodaWatch
from conclave.gateway.followers.standing import KeyStandings
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.policy.screening import maker
from conclave.gateway.record import Recorder
from conclave.gateway.testing import FakeClock, FakeExpert
from conclave.router.api import Classification
from conclave.safety.detect.standing import BASE
from conclave.safety.ooda.sanctions import Sanctions

SURE = Classification("math", 0.9, False, {"math": 0.9, "code": 0.1})


def unseen(text: str) -> str:
    return "".join(chr(0xE0000 + ord(character)) for character in text)


@dataclass
class Head:
    authorization: str | None = None
    source: str = "127.0.0.1"
    origin: str | None = None
    host: str | None = None
    envelope: str | None = None


@dataclass
class Source:
    body: bytes
    head: Head = field(default_factory=Head)
    gone: bool = False

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        assert max_bytes
        assert timeout_s
        return self.body


class Door:
    """Admits whoever names a key, in the standing that it has."""

    def __init__(self, house: "House") -> None:
        self.house = house

    async def admit(self, head: Head) -> Grant:
        door = self.house.vetting.at_door("acme", head.authorization)
        until_s = time.monotonic() + 60
        return Grant("acme", head.authorization, Scope(), until_s, standing=door.trust, imposed=door.imposed)


class House:
    """A gateway without HTTP: rows reach the followers when `follow` is called, as the journal's thread does."""

    def __init__(self, **policy: Any) -> None:
        self.clock = FakeClock()
        known = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "capabilities": ["tools"]}
        checks = {"defences": [{"check": "hidden", "action": "block"}]}
        document = PolicyDocument.model_validate({"experts": {"a": known}, "default": ["a"]} | checks | policy)
        pool = Pool({"a": PoolEntry(deployments=[Deployment("one", FakeExpert("a", answer="four"))])})
        version = Version(document, pool, classify=lambda _: SURE, model_digest="d", checks=maker(lambda _: [1, 2, 3]))
        self.published = Published(version)
        self.standings = LocalStandings(now_s=self.clock.now_s)
        sanctions = Sanctions(now_s=self.clock.now_s)
        self.vetting = Vetting(self.standings, sanctions, self.published.bands_for)
        self.rows: list[dict[str, Any]] = []
        self.followed = 0
        self.keys = KeyStandings(self.standings)
        self.ooda = OodaWatch(
            orders=lambda: self.published.current.orders,
            sanctions=sanctions,
            append=self.append,
            now_s=self.clock.now_s,
        )
        self.pipeline = Pipeline(
            access=Door(self),  # type: ignore[arg-type]
            policy=self.published,
            record=Recorder(self.append, b"k"),
            digest_key=b"k",
            vetting=self.vetting,
        )

    def append(self, row: Mapping[str, Any]) -> int:
        self.rows.append(dict(row))
        return len(self.rows)

    def ask(self, key: str, *said: str, **body: Any) -> ConclaveError | None:
        """One call; what it was refused with, if it was."""
        roles = ("user", "assistant")
        messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(said)]
        sent = json.dumps({"model": "auto", "messages": messages} | body).encode()
        call = Call(f"req_{len(self.rows)}", Source(sent, Head(key)), parse, datetime.now(UTC), time.monotonic())

        async def run() -> None:
            async for _ in self.pipeline.answer(call):
                pass

        try:
            asyncio.run(run())
        except ConclaveError as error:
            return error
        return None

    def follow(self) -> None:
        new = self.rows[self.followed :]
        raws = [msgspec.json.encode(row) for row in new]
        rows = [
            Row("c", self.followed + at, "h", msgspec.json.decode(raw, type=Noted), raw) for at, raw in enumerate(raws)
        ]
        self.followed = len(self.rows)
        self.keys.follow(rows)
        self.ooda.follow(rows)
        self.ooda.tick()

    @property
    def stood(self) -> dict[str, Any]:
        return cast(dict[str, Any], [row for row in self.rows if row["kind"] == "call"][-1]["standing"])


BAD = f"look{unseen('steal')}"


def test_a_refused_call_lowers_its_key_and_no_other_once_the_record_was_read() -> None:
    house = House()
    assert isinstance(house.ask("k1", BAD), Blocked)
    assert house.standings.trust_of("key:k1") == BASE
    house.follow()
    assert house.standings.trust_of("key:k1") == pytest.approx(BASE * 0.1)
    assert house.standings.trust_of("key:k2") == BASE


def test_rows_that_come_twice_count_once() -> None:
    house = House()
    house.ask("k1", BAD)
    house.follow()
    after = house.standings.trust_of("key:k1")
    house.followed = 0
    house.follow()
    assert house.standings.trust_of("key:k1") == after


def test_a_conversation_is_lower_in_its_very_next_turn() -> None:
    house = House(defences=[{"check": "hidden", "action": "annotate"}])
    assert house.ask("k1", BAD) is None
    assert house.stood["conversation"] == BASE
    house.ask("k1", BAD)
    assert house.stood["conversation"] == pytest.approx(BASE * 0.55)
    house.ask("k1", "something else")
    assert house.stood["conversation"] == BASE


def test_in_observe_mode_the_record_says_the_band_and_nothing_follows() -> None:
    house = House(standing={"mode": "observe"})
    house.ask("k1", BAD)
    house.follow()
    assert house.ask("k1", "hello", tools=[{"type": "function", "function": {"name": "f"}}]) is None
    assert (house.stood["band"], house.stood["followed"]) == ("restricted", False)


def test_where_it_counts_a_restricted_key_may_not_offer_tools_until_its_standing_is_back() -> None:
    house = House(standing={"mode": "on"})
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    assert house.ask("k1", "hello", **tools) is None
    house.ask("k1", BAD)
    house.follow()
    refused = house.ask("k1", "hello", **tools)
    assert isinstance(refused, Forbidden)
    assert refused.code == "restricted_standing"
    assert house.ask("k1", "hello") is None
    assert house.ask("k2", "hello", **tools) is None
    house.clock.advance(86_400)
    assert house.ask("k1", "hello", **tools) is None


def test_off_the_record_says_nothing_of_it() -> None:
    house = House(standing={"mode": "off"}, ooda={"mode": "off"})
    house.ask("k1", BAD)
    house.follow()
    assert "standing" not in house.rows[-1]
    assert len(house.standings) == 0


def test_a_malformed_request_moves_nothing() -> None:
    house = House()
    assert house.ask("k1") is not None
    house.follow()
    assert house.standings.trust_of("key:k1") == BASE


def attacked(house: House, seconds: int) -> list[ConclaveError | None]:
    """One attacker and one honest key, a call a second each; what the honest one was refused with."""
    honest: list[ConclaveError | None] = []
    for second in range(seconds):
        house.ask("attacker", f"{BAD} {second}")
        honest.append(house.ask("honest", f"question {second}"))
        house.clock.advance(1)
        house.follow()
    return honest


def test_the_loop_blocks_a_probing_key_for_a_while_and_an_honest_one_never() -> None:
    house = House(ooda={"mode": "on", "every_s": 5})
    honest = attacked(house, 30)
    refused = house.ask("attacker", "hello")
    assert isinstance(refused, Forbidden)
    assert (refused.code, refused.retry) == (KEY_BLOCKED, False)
    assert honest == [None] * 30
    steps = [(row["did"], row["deed"], row["subject"]) for row in house.rows if row["kind"] == "ooda"]
    assert steps == [("imposed", "tighten", "key:attacker"), ("imposed", "block_key", "key:attacker")]
    house.clock.advance(601)
    house.follow()
    assert house.ask("attacker", "hello") is None


def test_by_default_the_loop_only_writes_down_what_it_would_have_done() -> None:
    house = House()
    attacked(house, 30)
    assert not isinstance(house.ask("attacker", "hello"), Forbidden)
    rows = [row for row in house.rows if row["kind"] == "ooda"]
    assert [(row["did"], row["deed"]) for row in rows] == [("would_impose", "tighten"), ("would_impose", "block_key")]
    assert rows[1]["evidence"]["blocked"] >= 10
    assert all(request.startswith("req_") for request in rows[1]["requests"])


def test_what_the_loop_writes_holds_no_text() -> None:
    house = House()
    attacked(house, 30)
    written = json.dumps([row for row in house.rows if row["kind"] == "ooda"])
    assert "look" not in written
    assert "steal" not in written


def turns(house: House, *said: str) -> list[ConclaveError | None]:
    """A chat, whose client sends its whole history with each turn."""
    answers: list[ConclaveError | None] = []
    for number in range(1, len(said) + 1):
        history = [one for text in said[:number] for one in (text, "aha")][:-1]
        answers.append(house.ask("k1", *history))
        house.follow()
    return answers


TOLD = [{"check": "hidden", "action": "annotate"}]
WATCHED = {"mode": "on", "watch": {"block": ["hidden"]}}


def test_a_text_that_was_told_of_and_answered_does_not_refuse_the_turns_after_it() -> None:
    """Its caller is watched from then on, but says nothing new: a false alarm must not end the conversation."""
    house = House(defences=TOLD, standing=WATCHED)
    assert turns(house, BAD, "thank you", "and now?") == [None, None, None]
    assert house.stood["band"] == "watch"


def test_a_new_text_of_a_watched_caller_is_refused_where_an_old_one_passes() -> None:
    house = House(defences=TOLD, standing=WATCHED)
    assert turns(house, BAD)[0] is None
    assert isinstance(house.ask("k1", BAD, "aha", f"look{unseen('take')}"), Blocked)


def test_nobody_else_may_send_what_one_caller_was_let_pass() -> None:
    house = House(defences=TOLD, standing=WATCHED)
    house.ask("k1", BAD)
    house.ask("k2", f"look{unseen('take')}")
    house.follow()
    assert isinstance(house.ask("k2", BAD), Blocked)
    assert house.ask("k1", BAD) is None
