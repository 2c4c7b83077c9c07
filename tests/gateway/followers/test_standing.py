"""The standing of keys, made of rows: whose fault a finding is, and that a row counts once."""

from collections.abc import Mapping
from typing import Any

import pytest

from conclave.gateway.access.standing import LocalStandings
from conclave.gateway.followers.ooda import OodaWatch, observation
from conclave.gateway.followers.standing import KeyStandings
from conclave.gateway.testing import FakeClock
from conclave.safety.detect.standing import BASE, CLEAN_STEP
from conclave.safety.ooda.loop import Orders
from conclave.safety.ooda.sanctions import Sanctions

from .conftest import CALL, Rows

SEGMENTS = [
    {"origin": "user", "place": "messages[0].content", "chars": 9, "digest": "s1"},
    {"origin": "tool", "place": "messages[1].content", "chars": 9, "digest": "s2"},
]
STOOD = {"band": "open", "followed": False, "key": 0.8, "conversation": 0.8}


def call(*findings: Mapping[str, Any], action: str = "annotate", **more: Any) -> dict[str, Any]:
    verdict = {"action": action if findings else "allow", "findings": list(findings), "ran": []}
    return {**CALL, "segments": SEGMENTS, "verdict": verdict, "standing": STOOD, **more}


def found(check: str = "override", place: int = 0, **more: Any) -> dict[str, Any]:
    about = {"kind": check, "severity": "medium", "confidence": 1.0, "start": 0, "end": 1, "view": "written"}
    return {"check": check, "place": f"messages[{place}].content", "acted": True, **about, **more}


@pytest.fixture
def standings() -> LocalStandings:
    return LocalStandings(now_s=FakeClock().now_s)


def trust(standings: LocalStandings) -> float:
    return standings.trust_of(f"key:{CALL['key_id']}")


def test_a_row_that_is_followed_again_counts_once(standings: LocalStandings, row: Rows) -> None:
    follower = KeyStandings(standings)
    follower.follow([row(1, call())])
    follower.follow([row(1, call()), row(2, call())])
    assert trust(standings) == pytest.approx(BASE + 2 * CLEAN_STEP)
    assert follower.position() == {"c": 2}


@pytest.mark.parametrize(
    ("finding", "left"),
    [
        (found(), BASE * 0.7),
        (found("embedded", place=1, severity="high"), BASE + CLEAN_STEP),
        (found("secrets", severity="high"), BASE + CLEAN_STEP),
        (found(acted=False), BASE + CLEAN_STEP),
        (found(kind="check_failed"), BASE + CLEAN_STEP),
    ],
    ids=["the caller's word", "a tool's word", "a pasted key", "only observed", "a check that failed"],
)
def test_only_attacks_of_the_callers_own_move_its_key(
    finding: dict[str, Any], left: float, standings: LocalStandings, row: Rows
) -> None:
    KeyStandings(standings).follow([row(1, call(finding))])
    assert trust(standings) == pytest.approx(left)


def test_many_turns_that_show_the_same_split_order_are_one_attack(standings: LocalStandings, row: Rows) -> None:
    split = found(kind="split.override", view="joined turns")
    later = [{**SEGMENTS[0]}, {**SEGMENTS[0], "place": "messages[2].content", "digest": "s9"}]
    follower = KeyStandings(standings)
    follower.follow([row(1, call(split))])
    once = trust(standings)
    follower.follow([row(2, call({**split, "place": "messages[2].content"}, segments=later))])
    assert trust(standings) == pytest.approx(once + CLEAN_STEP)


@pytest.mark.parametrize(
    "row_data",
    [
        {**CALL},
        call(ending="failed"),
        {key: value for key, value in call().items() if key != "verdict"},
        {"kind": "genesis", "time": CALL["time"]},
    ],
    ids=["policy does not count", "nobody answered", "nobody looked", "no call"],
)
def test_what_says_nothing_of_a_caller_moves_nothing(
    row_data: dict[str, Any], standings: LocalStandings, row: Rows
) -> None:
    KeyStandings(standings).follow([row(1, row_data)])
    assert len(standings) == 0


def test_the_loop_sees_who_called_what_was_decoded_and_what_came_from_data(row: Rows) -> None:
    findings = (found(view="base64"), found("embedded", place=1), found("pii"))
    seen = observation(row(1, call(*findings, action="block", finish_reason="length")), 7.0)
    assert (seen.subject, seen.tenant, seen.text, seen.at_s) == ("key:0123456789ab", "acme", "s1", 7.0)
    assert (seen.blocked, seen.attacks, seen.encoded, seen.in_data) == (True, 2, 1, 1)
    assert (seen.tokens, seen.cut_off, seen.good) == (7, True, True)


def test_the_loop_reads_rows_of_policies_that_count_nothing(row: Rows) -> None:
    seen = observation(row(1, {**CALL, "key_id": None}), 7.0)
    assert (seen.subject, seen.good, seen.blocked, seen.text) == ("tenant:acme", True, False, "s1")


def watch(sanctions: Sanctions, clock: FakeClock) -> OodaWatch:
    orders = Orders("on", 1.0)
    return OodaWatch(orders=lambda: orders, sanctions=sanctions, append=lambda _: None, now_s=clock.now_s)


@pytest.mark.parametrize(
    ("check", "new", "barred"),
    [("override", True, True), ("override", False, False), ("pii", True, False)],
    ids=["a new attack each time", "the same text sent again", "a card number each time"],
)
def test_only_new_attacks_are_probing(check: str, new: bool, barred: bool, row: Rows) -> None:
    """Who sends a refused text again, or pastes what is refused for its own sake, does not look for what passes."""
    clock = FakeClock()
    sanctions = Sanctions(now_s=clock.now_s)
    loop = watch(sanctions, clock)
    for number in range(12):
        texts = [{**SEGMENTS[0], "digest": f"d{number if new else 0}"}]
        loop.follow([row(number, call(found(check), action="block", segments=texts))])
    loop.tick()
    assert (sanctions.barred_s(f"key:{CALL['key_id']}") > 0) is barred


def test_a_refusal_that_is_no_new_attack_still_counts_against_what_was_done(row: Rows) -> None:
    seen = observation(row(1, call(found("pii"), action="block")), 7.0)
    assert (seen.blocked, seen.confined, seen.attacks) == (False, True, 0)
    again = observation(row(1, call(found(), action="block")), 7.0, lambda *_: False)
    assert (again.blocked, again.confined, again.attacks) == (False, True, 0)
