"""What is told of an expert's own answer by rules: whether two answers are one, and how sure a memory is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.evidence import Aside, Evidence
from conclave.gateway.policy.hearing import compiled, memory_of, one_answer
from conclave.gateway.policy.retrieval import ClosedBookSettings
from conclave.router.api import Act, Assessment, Decision, LookUp, Outcome, Risk, Step
from conclave.router.gates.cascade import Heard
from conclave.safety.context.conflict import Memory

WHO = "Who designed the old lighthouse of Dorven?"
WHEN = "In which year was the lighthouse of Dorven built?"


@pytest.mark.parametrize(
    ("question", "left", "right", "one"),
    [
        (WHO, "Mira Vael", "The lighthouse of Dorven was designed by Mira Vael [1].", True),
        (WHO, "Mira Vael", "Tolan Kerr [2]", False),
        (WHO, "It was Vael.", "Mira Vael did.", True),
        (WHEN, "1840", "It was built in 1840 [1, 2].", True),
        (WHEN, "2", "It was built in 1840 [2].", False),
        (WHEN, "1840", "In 1841.", False),
        (WHO, "Mira Vael", "Of that nothing is said here and nothing can be told from it at all.", True),
        ("Is Dorven a port?", "Yes.", "No, it is not.", False),
        ("Is Dorven a port?", "Yes, it is a port.", "Yes [1]", True),
        ("", "", "", True),
    ],
    ids=[
        "a sentence", "another name", "part of it", "a year", "a citation is no value", "another year", "unread",
        "yes and no", "yes twice", "nothing",
    ],
)  # fmt: skip
def test_two_answers_are_one_where_their_values_are(question: str, left: str, right: str, one: bool) -> None:
    assert one_answer(question, left, right) is one
    assert one_answer(question, right, left) is one


@given(st.text(), st.text(), st.text())
def test_whatever_people_and_experts_say_can_be_compared(question: str, left: str, right: str) -> None:
    assert one_answer(question, left, right) is one_answer(question, left, right)
    assert one_answer(question, left, left)


@pytest.mark.parametrize(
    ("answers", "confidence", "memory"),
    [
        (("Mira Vael",), 0.8, Memory("Mira Vael", 0.8)),
        (("Kerr", "Mira Vael", "mira vael"), 1.0, Memory("Mira Vael", 2 / 3)),
        (("Mira Vael",), None, Memory("Mira Vael", 0.0)),
        (("Mira Vael", "mira vael."), None, Memory("Mira Vael", 1.0)),
        (("I don't know.",), 0.9, Memory("", 0.9)),
        ((), None, Memory("", 0.0)),
    ],
    ids=["confident", "most samples", "no evidence", "samples alone", "admits", "silent"],
)
def test_a_memory_is_as_sure_as_its_evidence(
    answers: tuple[str, ...], confidence: float | None, memory: Memory
) -> None:
    assert memory_of(Outcome(accepted=False, confidence=confidence), Heard(answers)) == memory


STEPS = (Step("a", "closed_book", on_trial=True), Step("a", "documents", look_up=True))
NOW = LookUp("always", now=True, if_unsure=True, reason="always")


@pytest.mark.parametrize(
    ("now", "likely", "act", "accepted"),
    [(True, -0.1, Act.COMPARE, False), (False, -0.1, Act.ANSWER, True), (True, -2.0, Act.RETRIEVE, False)],
    ids=["sure, and it pays", "sure", "unsure"],
)
def test_an_own_answer_is_judged_by_how_sure_it_is(*, now: bool, likely: float, act: Act, accepted: bool) -> None:
    hearing = compiled(ClosedBookSettings())
    assert hearing is not None
    look_up = NOW if now else LookUp("auto", now=False, if_unsure=True, reason="it knows")
    outcome = hearing.judged(Decision(STEPS, "x", "x", look_up=look_up), Heard(("a b c d e",), (likely,)))
    assert outcome.known is not None
    assert (outcome.known.act, outcome.accepted, outcome.unsure) == (act, accepted, False)


def test_silence_with_documents_gives_way_to_the_answer_without() -> None:
    hearing = compiled(ClosedBookSettings())
    assert hearing is not None
    first = Outcome(accepted=False, confidence=0.9, known=Assessment(Risk.KNOWN, 0.1, Act.COMPARE))
    aside = Aside(WHO, Heard(("Mira Vael",)), first, Evidence())
    outcome = hearing.compared(aside, Heard(("",), silent=True))
    assert outcome.known is not None
    assert (outcome.accepted, outcome.known.act) == (False, Act.REASK)


def test_without_the_setting_nobody_is_heard() -> None:
    assert compiled(None) is None
