"""Tokens that let one call pass: made for it, once, in time."""

import pytest

from conclave.safety.output.api import ToolCall
from conclave.safety.toolcalls.confirm import VALID_S, Confirmations

CALL = ToolCall("pay", '{"a": 1, "b": 2}')


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_token_lets_its_call_pass_once_however_its_json_is_spelled() -> None:
    desk = Confirmations(b"k" * 32, Clock())
    token, expires_s = desk.token("t", "c", CALL)
    assert expires_s == Clock.now_s + VALID_S
    assert desk.take(token, "t", "c", ToolCall("pay", '{"b":2,"a":1}'))
    assert not desk.take(token, "t", "c", CALL)


@pytest.mark.parametrize(
    ("tenant", "conversation", "call"),
    [("u", "c", CALL), ("t", "d", CALL), ("t", "c", ToolCall("pay", '{"a": 2}')),
     ("t", "c", ToolCall("p", CALL.arguments)),
     ("tc", "", CALL)],
    ids=["tenant", "conversation", "arguments", "tool", "shifted"],
)  # fmt: skip
def test_a_token_is_for_nothing_else(tenant: str, conversation: str, call: ToolCall) -> None:
    desk = Confirmations(b"k" * 32, Clock())
    token, _ = desk.token("t", "c", CALL)
    assert not desk.take(token, tenant, conversation, call)
    assert desk.take(token, "t", "c", CALL)


def test_a_token_ends_and_cannot_be_made_longer() -> None:
    clock = Clock()
    desk = Confirmations(b"k" * 32, clock)
    token, expires_s = desk.token("t", "c", CALL)
    assert not desk.take(token.replace(str(expires_s), str(expires_s + 60)), "t", "c", CALL)
    clock.now_s += VALID_S
    assert not desk.take(token, "t", "c", CALL)


def test_another_key_makes_other_tokens() -> None:
    token, _ = Confirmations(b"k" * 32, Clock()).token("t", "c", CALL)
    assert not Confirmations(b"j" * 32, Clock()).take(token, "t", "c", CALL)


@pytest.mark.parametrize(
    "token", ["", ".", "..", "tc1.x.y", "tc1.1.\u00e9", "tc1.\u0661.x", "tc1." + "9" * 90 + ".x", "\ud800.1.x"]
)
def test_what_is_no_token_is_none(token: str) -> None:
    assert not Confirmations(b"k" * 32, Clock()).take(token, "t", "c", CALL)


def test_a_second_expert_may_propose_the_confirmed_call_again_within_its_request() -> None:
    desk = Confirmations(b"k" * 32, Clock())
    token, _ = desk.token("t", "c", CALL)
    request = desk.of("t", "c", [token])
    assert request.allows(CALL)
    assert request.allows(CALL)
    assert not request.allows(ToolCall("pay", "{}"))
    assert not desk.of("t", "c", [token]).allows(CALL)
