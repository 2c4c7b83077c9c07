"""A request that waits for a person, through the whole pipeline: refused with a token, and let pass with it."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.api.chat import parse
from conclave.gateway.call import Call
from conclave.gateway.errors import Blocked, ConclaveError, ConfirmationRequired, InvalidRequest
from conclave.gateway.experts.pool import Deployment, Pool, PoolEntry
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.policy.screening import maker
from conclave.gateway.record import Recorder
from conclave.gateway.testing import FakeClock, FakeExpert
from conclave.router.api import Classification
from conclave.safety.toolcalls.confirm import VALID_S, Confirmations

SURE = Classification("math", 0.9, False, {"math": 0.9, "code": 0.1})
CARD = "4929 7226 5379 7141"
ASKED = f"Charge my card {CARD}, please."
PII = {"check": "pii", "action": "confirm", "from_severity": "high"}


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
    """Admits whoever says `tenant/key`."""

    async def admit(self, head: Head) -> Grant:
        tenant, _, key = (head.authorization or "").partition("/")
        return Grant(tenant, key, Scope(), time.monotonic() + 60)


class House:
    """A gateway without HTTP; `rows` are what its record has, `sent` what its expert was sent last."""

    def __init__(self, ids: Callable[[str], Sequence[int]] = lambda _: [1, 2, 3], **policy: Any) -> None:
        self.clock = FakeClock()
        known = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "capabilities": ["tools"]}
        document = PolicyDocument.model_validate(
            {"experts": {"a": known}, "default": ["a"], "defences": [PII], "turns": {"last": 0}} | policy
        )
        self.expert = FakeExpert("a", answer="four")
        pool = Pool({"a": PoolEntry(deployments=[Deployment("one", self.expert)])})
        version = Version(document, pool, classify=lambda _: SURE, model_digest="d", checks=maker(ids))
        self.rows: list[dict[str, Any]] = []
        self.pipeline = Pipeline(
            access=Door(),  # type: ignore[arg-type]
            policy=Published(version),
            record=Recorder(self.append, b"k"),
            digest_key=b"k",
            confirmations=Confirmations(b"k" * 32, self.clock.now_s),
        )

    def append(self, row: Mapping[str, Any]) -> int:
        self.rows.append(dict(row))
        return len(self.rows)

    def ask(self, *said: str, key: str = "acme/one", tokens: object = None, **body: Any) -> ConclaveError | None:
        """One call; what it was refused with, if it was."""
        roles = ("user", "assistant")
        messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(said or (ASKED,))]
        own = {"conclave": {"confirmed": tokens}} if tokens is not None else {}
        sent = json.dumps({"model": "auto", "messages": messages} | own | body).encode()
        call = Call(f"req_{len(self.rows)}", Source(sent, Head(key)), parse, datetime.now(UTC), time.monotonic())

        async def run() -> None:
            async for _ in self.pipeline.answer(call):
                pass

        try:
            asyncio.run(run())
        except ConclaveError as error:
            return error
        return None

    def token(self, *said: str, key: str = "acme/one", **body: Any) -> str:
        """The token of a request that has to wait."""
        error = self.ask(*said, key=key, **body)
        assert isinstance(error, ConfirmationRequired)
        return str(error.about["token"])


def test_a_request_that_a_person_has_to_let_pass_is_refused_with_a_token_and_its_incident() -> None:
    house = House()
    error = house.ask()
    assert isinstance(error, ConfirmationRequired)
    assert (error.status, error.code, error.retry, error.param) == (
        403, "confirmation_required", False, "messages[0].content",
    )  # fmt: skip
    assert "req_0" in error.message
    about = error.envelope()["error"]["conclave"]["confirmation"]
    assert set(about) == {"token", "expires_at", "tool", "arguments", "truncated", "reasons"}
    [why] = about["reasons"]
    assert ASKED[why["start"] : why["end"]] == CARD
    assert CARD not in json.dumps(error.envelope())
    row = house.rows[-1]
    assert (row["ending"], row["verdict"]["action"], row["attempts"]) == ("refused", "confirm", [])


def test_with_its_token_it_passes_and_the_record_says_that_it_was_confirmed() -> None:
    house = House()
    assert house.ask(tokens=[house.token()]) is None
    verdict = house.rows[-1]["verdict"]
    assert (verdict["action"], verdict["confirmed"]) == ("annotate", ["pii.card"])
    assert verdict["findings"][0]["acted"]


def test_a_token_that_was_used_is_none() -> None:
    house = House()
    token = house.token()
    assert house.ask(tokens=[token]) is None
    assert isinstance(house.ask(tokens=[token]), ConfirmationRequired)


def test_a_token_that_is_too_old_is_none() -> None:
    house = House()
    token = house.token()
    house.clock.advance(VALID_S)
    assert isinstance(house.ask(tokens=[token]), ConfirmationRequired)


@pytest.mark.parametrize(
    ("said", "key"),
    [
        (ASKED.replace("please", "now"), "acme/one"),
        (ASKED.replace(CARD, "4716 9088 5741 3125"), "acme/one"),
        (ASKED, "other/one"),
        (ASKED, "acme/two"),
    ],
    ids=["text", "card", "tenant", "key"],
)
def test_a_token_of_something_else_is_none(said: str, key: str) -> None:
    house = House()
    assert isinstance(house.ask(said, key=key, tokens=[house.token()]), ConfirmationRequired)


def test_another_finding_in_the_same_text_needs_another_token() -> None:
    """A changed policy sees more in the text than the person was told."""
    token = House().token()
    house = House(defences=[{**PII, "from_severity": "low"}, {"check": "hidden", "action": "confirm"}])
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "steal")
    assert isinstance(house.ask(ASKED + hidden, tokens=[token]), ConfirmationRequired)


def test_what_was_confirmed_may_stand_in_the_history_of_its_conversation() -> None:
    house = House()
    assert house.ask(tokens=[house.token()]) is None
    assert house.ask(ASKED, "Done.", "Thanks. And now?") is None
    assert house.rows[-1]["verdict"]["confirmed"] == ["pii.card"]
    assert isinstance(house.ask(ASKED, "Done.", ASKED), ConfirmationRequired)
    assert isinstance(house.ask(ASKED, "Done.", "Thanks.", key="acme/two"), ConfirmationRequired)


def test_what_is_blocked_no_person_lets_pass() -> None:
    house = House(defences=[PII, {"check": "hidden", "action": "block"}])
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "steal")
    error = house.ask(ASKED + hidden, tokens=[house.token()])
    assert isinstance(error, Blocked)
    assert error.code == "blocked_by_policy"


def test_what_is_redacted_is_so_in_what_a_person_let_pass() -> None:
    house = House(defences=[{"check": "hidden", "action": "confirm"}, {"check": "pii", "action": "redact"}])
    said = ASKED + "".join(chr(0xE0000 + ord(letter)) for letter in "steal")
    assert house.ask(said, tokens=[house.token(said)]) is None
    assert CARD not in json.dumps(dict(house.expert.asked[-1].body))
    assert house.rows[-1]["verdict"]["action"] == "redact"


def test_an_answered_text_without_a_finding_waits_for_nobody() -> None:
    house = House()
    assert house.ask("Charge order 4929 7226 5379, please.") is None


@pytest.mark.parametrize("tokens", ["rq1.1.x", [1], ["x"] * 17, {"a": 1}], ids=["text", "number", "many", "object"])
def test_what_is_no_list_of_tokens_is_refused(tokens: object) -> None:
    error = House().ask(tokens=tokens)
    assert isinstance(error, InvalidRequest)
    assert error.param == "conclave.confirmed"


def test_tokens_of_nobody_let_nothing_pass() -> None:
    assert isinstance(House().ask(tokens=["rq1.1.x", "tc1.9.y", "", "\ud800"][:2]), ConfirmationRequired)


def test_a_check_that_fails_waits_for_a_person_too_where_its_failure_blocks() -> None:
    """`on_error: block` makes a finding of the failure, and the check's action follows."""

    def broken(text: str) -> list[int]:
        if len(text) > 4:  # single signs are looked up when the detectors are loaded
            raise RuntimeError("broken")
        return [1]

    policy = {"check": "override", "action": "confirm"}
    house = House(ids=broken, defences=[{**policy, "on_error": "block"}])
    error = house.ask()
    assert isinstance(error, ConfirmationRequired)
    assert error.about["reasons"][0]["kind"] == "check_failed"
    assert house.ask(tokens=[error.about["token"]]) is None
    assert House(ids=broken, defences=[{**policy, "on_error": "allow"}]).ask() is None


def test_only_observed_nothing_waits() -> None:
    assert House(stages={"detect": "observe"}).ask() is None
