"""Tokens that let one call or one request pass: made for it, once, in time."""

from dataclasses import replace

import pytest

from conclave.safety.api import Finding, Origin, Segment, Severity
from conclave.safety.output.api import ToolCall
from conclave.safety.toolcalls.confirm import PASSED_S, VALID_S, Confirmations, Flagged

CALL = ToolCall("pay", '{"a": 1, "b": 2}')
SAID = Segment(Origin.USER, "My card is 4111", "My card is 4111", "messages[0].content")
CARD = Finding("pii", "pii.card", Severity.HIGH, 1.0, SAID.place, 11, 15)
FOUND = Flagged(SAID, (CARD,))


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_token_lets_its_call_pass_once_however_its_json_is_spelled() -> None:
    desk = Confirmations(b"k" * 32, Clock())
    token, expires_s = desk.of("t", "c", []).token(CALL)
    assert expires_s == Clock.now_s + VALID_S
    assert desk.of("t", "c", [token]).allows(ToolCall("pay", '{"b":2,"a":1}'))
    assert not desk.of("t", "c", [token]).allows(CALL)


@pytest.mark.parametrize(
    ("tenant", "conversation", "call"),
    [("u", "c", CALL), ("t", "d", CALL), ("t", "c", ToolCall("pay", '{"a": 2}')),
     ("t", "c", ToolCall("p", CALL.arguments)),
     ("tc", "", CALL)],
    ids=["tenant", "conversation", "arguments", "tool", "shifted"],
)  # fmt: skip
def test_a_token_is_for_nothing_else(tenant: str, conversation: str, call: ToolCall) -> None:
    desk = Confirmations(b"k" * 32, Clock())
    token, _ = desk.of("t", "c", []).token(CALL)
    assert not desk.of(tenant, conversation, [token]).allows(call)
    assert desk.of("t", "c", [token]).allows(CALL)


def test_a_token_ends_and_cannot_be_made_longer() -> None:
    clock = Clock()
    desk = Confirmations(b"k" * 32, clock)
    token, expires_s = desk.of("t", "c", []).token(CALL)
    assert not desk.of("t", "c", [token.replace(str(expires_s), str(expires_s + 60))]).allows(CALL)
    clock.now_s += VALID_S
    assert not desk.of("t", "c", [token]).allows(CALL)


def test_another_key_makes_other_tokens() -> None:
    token, _ = Confirmations(b"k" * 32, Clock()).of("t", "c", []).token(CALL)
    assert not Confirmations(b"j" * 32, Clock()).of("t", "c", [token]).allows(CALL)


@pytest.mark.parametrize(
    "token", ["", ".", "..", "tc1.x.y", "tc1.1.\u00e9", "tc1.\u0661.x", "tc1." + "9" * 90 + ".x", "\ud800.1.x"]
)
def test_what_is_no_token_is_none(token: str) -> None:
    assert not Confirmations(b"k" * 32, Clock()).of("t", "c", [token]).allows(CALL)


def test_a_second_expert_may_propose_the_confirmed_call_again_within_its_request() -> None:
    desk = Confirmations(b"k" * 32, Clock())
    token, _ = desk.of("t", "c", []).token(CALL)
    request = desk.of("t", "c", [token])
    assert request.allows(CALL)
    assert request.allows(CALL)
    assert not request.allows(ToolCall("pay", "{}"))
    assert not desk.of("t", "c", [token]).allows(CALL)


def test_a_request_passes_once_with_its_token() -> None:
    desk = Confirmations(b"k" * 32, Clock())
    token, expires_s = desk.of("t", "c", [], key_id="key").token_of([FOUND])
    assert expires_s == Clock.now_s + VALID_S
    assert desk.of("t", "c", [token], key_id="key").lets([FOUND])
    assert not desk.of("t", "c", [token], key_id="key").lets([FOUND])


@pytest.mark.parametrize(
    ("tenant", "key_id", "conversation", "found"),
    [
        ("u", "key", "c", [FOUND]),
        ("t", "other", "c", [FOUND]),
        ("t", None, "c", [FOUND]),
        ("t", "key", "d", [FOUND]),
        ("t", "key", "c", [replace(FOUND, segment=replace(SAID, text="My card is 4112"))]),
        ("t", "key", "c", [replace(FOUND, segment=replace(SAID, origin=Origin.TOOL))]),
        ("t", "key", "c", [replace(FOUND, findings=(replace(CARD, kind="pii.iban"),))]),
        ("t", "key", "c", [replace(FOUND, findings=(replace(CARD, end=14),))]),
        ("t", "key", "c", [FOUND, replace(FOUND, segment=replace(SAID, text="another"))]),
    ],
    ids=["tenant", "key", "no_key", "conversation", "text", "origin", "kind", "span", "more"],
)
def test_the_token_of_a_request_is_for_nothing_else(
    tenant: str, key_id: str | None, conversation: str, found: list[Flagged]
) -> None:
    desk = Confirmations(b"k" * 32, Clock())
    token, _ = desk.of("t", "c", [], key_id="key").token_of([FOUND])
    other = desk.of(tenant, conversation, [token], key_id=key_id)
    assert not other.lets(found)
    assert desk.of("t", "c", [token], key_id="key").lets([FOUND])


def test_the_token_of_a_request_ends() -> None:
    clock = Clock()
    desk = Confirmations(b"k" * 32, clock)
    token, _ = desk.of("t", "c", []).token_of([FOUND])
    clock.now_s += VALID_S
    assert not desk.of("t", "c", [token]).lets([FOUND])


def test_what_was_confirmed_needs_nobody_once_it_is_history_and_somebody_where_it_is_said_again() -> None:
    clock = Clock()
    desk = Confirmations(b"k" * 32, clock)
    token, _ = desk.of("t", "c", []).token_of([FOUND])
    assert desk.of("t", "c", [token]).lets([FOUND])
    past = replace(FOUND, past=True)
    assert desk.of("t", "c", []).lets([past])
    assert not desk.of("t", "c", []).lets([past, FOUND])
    assert not desk.of("t", "d", []).lets([past])
    clock.now_s += PASSED_S
    assert not desk.of("t", "c", []).lets([past])


def test_no_token_of_a_call_is_one_of_a_request() -> None:
    desk = Confirmations(b"k" * 32, Clock())
    call, _ = desk.of("t", "c", []).token(CALL)
    request, _ = desk.of("t", "c", []).token_of([FOUND])
    assert not desk.of("t", "c", [call]).lets([FOUND])
    assert not desk.of("t", "c", [request]).allows(CALL)
