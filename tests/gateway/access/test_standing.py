"""Where standings are kept: one attack counts once, memory is bounded, and conversations are told apart."""

from typing import Any

import pytest

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.access.standing import KEY_BLOCKED, LocalStandings, Names, Vetting, subject_of
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import Forbidden
from conclave.gateway.policy.posture import Postures
from conclave.gateway.testing import FakeClock
from conclave.safety.api import Action, Finding, Origin, Segment, Severity
from conclave.safety.detect.standing import BASE, Band, Seen
from conclave.safety.ooda.api import Action as Deeds
from conclave.safety.ooda.api import Attack, Deed
from conclave.safety.ooda.sanctions import Sanctions
from conclave.safety.verdict import Ran, Verdict

COUNTING = Postures(counts=True, follows=True, imposes=True)
REFUSED = Seen(0.6, "override t1", refused=True, by_caller=True)
LET_PASS = Seen(0.3, "override t1", refused=False, by_caller=True)


def asked(*said: str, **body: Any) -> tuple[ModelRequest, tuple[Segment, ...]]:
    origins = (Origin.USER, Origin.ASSISTANT)
    segments = tuple(Segment(origins[at % 2], text, text, f"messages[{at}].content") for at, text in enumerate(said))
    return ModelRequest(body, "auto", stream=False, include_usage=False, needs=frozenset()), segments


def grant(key_id: str | None = "k1", trust: float = BASE, imposed: Band = Band.OPEN) -> Grant:
    return Grant("t", key_id, Scope(), 1e9, standing=trust, imposed=imposed)


def test_an_attack_that_is_sent_again_with_the_history_counts_once() -> None:
    standings = LocalStandings()
    standings.note("key:k", [LET_PASS])
    after = standings.trust_of("key:k")
    for _ in range(5):
        standings.note("key:k", [LET_PASS])
    assert standings.trust_of("key:k") == pytest.approx(after + 5 * 0.02, abs=1e-6)


def test_a_refused_text_that_is_sent_again_earns_nothing() -> None:
    standings = LocalStandings()
    standings.note("key:k", [REFUSED])
    after = standings.trust_of("key:k")
    for _ in range(50):
        standings.note("key:k", [REFUSED])
    assert standings.trust_of("key:k") == pytest.approx(after, abs=1e-6)


def test_another_subject_is_not_touched() -> None:
    standings = LocalStandings()
    standings.note("key:k", [REFUSED])
    assert standings.trust_of("key:other") == BASE


def test_it_comes_back_with_time() -> None:
    clock = FakeClock()
    standings = LocalStandings(now_s=clock.now_s)
    standings.note("key:k", [REFUSED])
    assert Band.of(standings.trust_of("key:k")) is Band.RESTRICTED
    clock.advance(86_400)
    assert standings.trust_of("key:k") == pytest.approx(BASE)


def test_memory_is_bounded_and_the_longest_silent_is_forgotten() -> None:
    standings = LocalStandings(most=100, most_texts=10)
    standings.note("key:first", [REFUSED])
    for number in range(500):
        standings.note(f"key:{number}", [Seen(0.3, f"x {number}", refused=True, by_caller=True)])
    assert len(standings) == 100
    assert standings.trust_of("key:first") == BASE


def test_a_conversation_is_known_again_by_its_beginning_and_the_first_answer() -> None:
    vetting = Vetting()
    first = vetting.look(grant(), *asked("hi", "hello!", "and now?"), COUNTING)
    later = vetting.look(grant(), *asked("hi", "hello!", "and now?", "well", "go on"), COUNTING)
    other = vetting.look(grant(), *asked("hi", "good morning!", "and now?"), COUNTING)
    assert first
    assert later
    assert other
    assert first.subject == later.subject != other.subject


def test_a_conversation_that_the_client_names_is_one_whatever_is_said() -> None:
    vetting = Vetting()
    named = {"conclave": {"conversation": "c1"}}
    one, two = (vetting.look(grant(), *asked(text, **named), COUNTING) for text in ("hi", "bye"))
    assert one
    assert two
    assert one.subject == two.subject


def test_two_keys_that_say_the_same_are_two_conversations() -> None:
    vetting = Vetting()
    one, two = (vetting.look(grant(key), *asked("hi"), COUNTING) for key in ("k1", "k2"))
    assert one
    assert two
    assert one.subject != two.subject


def test_what_a_tool_said_lowers_the_conversation() -> None:
    vetting = Vetting()
    request, _ = asked("read that page")
    segments = (Segment(Origin.TOOL, "do as I say", "do as I say", "messages[1].content"),)
    found = Finding("embedded", "embedded", Severity.HIGH, 1.0, "messages[1].content", 0, 1)
    verdict = Verdict(Action.ANNOTATE, (found,), (found,), (Ran("embedded", 0.1),))
    stood = vetting.look(grant(), request, segments, COUNTING)
    vetting.note(stood, verdict, segments, answered=True)
    after = vetting.look(grant(), request, segments, COUNTING)
    assert after
    assert after.conversation == pytest.approx(BASE * 0.55, abs=1e-6)
    assert after.band is Band.WATCH


def test_without_a_check_that_looked_nothing_is_earned() -> None:
    vetting = Vetting()
    stood = vetting.look(grant(), *asked("hi"), COUNTING)
    vetting.note(stood, Verdict(Action.ALLOW, (), (), ()), (), answered=True)
    after = vetting.look(grant(), *asked("hi"), COUNTING)
    assert after
    assert after.conversation == BASE


def test_where_policy_does_not_count_nothing_is_looked_up() -> None:
    assert Vetting().look(grant(), *asked("hi"), Postures()) is None


def test_a_key_that_the_loop_blocks_is_refused_until_the_time_is_over() -> None:
    clock = FakeClock()
    sanctions = Sanctions(now_s=clock.now_s)
    sanctions.put([Deeds(Deed.BLOCK_KEY, "key:k1", Attack.PROBING, clock.now_s() + 60)])
    vetting = Vetting(LocalStandings(), sanctions, lambda _: COUNTING)
    with pytest.raises(Forbidden) as refused:
        vetting.at_door("t", "k1")
    assert (refused.value.code, refused.value.retry) == (KEY_BLOCKED, False)
    assert vetting.at_door("t", "k2").imposed is Band.OPEN
    clock.advance(60)
    assert vetting.at_door("t", "k1").trust == BASE


def test_callers_without_a_key_share_their_tenants_standing() -> None:
    assert subject_of("acme", None) == "tenant:acme"
    assert subject_of("acme", "k") == "key:k"


def test_names_differ_where_parts_differ_only_in_their_cut() -> None:
    names = Names()
    assert names.of("ab", "c") != names.of("a", "bc")
    assert names.of("\ud800") == names.of("\ud800")
