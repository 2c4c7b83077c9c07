"""The action table: one test a row, and what bounds it."""

import pytest

from conclave.router.api import Act, Risk
from conclave.router.gates.knowing import Heard, agreement, knowing

SURE = ("Paris", "paris.", "The Paris")
TORN = ("Paris", "Lyon", "Nice")


@pytest.mark.parametrize(
    ("heard", "robust", "risk", "act"),
    [
        (Heard(SURE), None, Risk.KNOWN, Act.ANSWER),
        (Heard(SURE, confidence=0.9), None, Risk.KNOWN, Act.ANSWER),
        (Heard(SURE, SURE), None, Risk.KNOWN, Act.ANSWER),
        (Heard(TORN), None, Risk.IGNORANCE, Act.RETRIEVE),
        (Heard(SURE, confidence=0.1), None, Risk.IGNORANCE, Act.RETRIEVE),
        (Heard(TORN, looked_up=True), None, Risk.IGNORANCE, Act.ABSTAIN),
        (Heard(TORN, ("Rome",)), "llama", Risk.IGNORANCE, Act.RETRIEVE),
        (Heard(SURE, ("Rome", "Rome")), None, Risk.MISLED, Act.REASK),
        (Heard(SURE, ("Rome", "Rome"), reasked=True), "llama", Risk.MISLED, Act.ROUTE),
        (Heard(SURE, ("Rome", "Rome"), reasked=True), None, Risk.MISLED, Act.ABSTAIN),
        (Heard(SURE, ("Rome",), supported=True), None, Risk.KNOWN, Act.ANSWER),
        (Heard(("", " ", "")), None, Risk.IGNORANCE, Act.RETRIEVE),
        (Heard(("Paris", "paris", "Lyon")), None, Risk.KNOWN, Act.ANSWER),
        (Heard(("I don\u2019t know.",), confidence=0.99), None, Risk.IGNORANCE, Act.RETRIEVE),
        (Heard(SURE, ("The passages do not say.",)), None, Risk.MISLED, Act.REASK),
    ],
    ids=[
        "agrees", "agrees and is confident", "agrees with context, too", "disagrees", "agrees without confidence",
        "disagrees after a look-up", "disagrees, and context is no reason", "flips", "flips again, another expert",
        "flips again, nobody else", "a trusted passage corrects it", "says nothing",
        "two of three agree", "is sure that it does not know", "documents make it forget",
    ],
)  # fmt: skip
def test_each_row_of_the_table(heard: Heard, robust: str | None, risk: Risk, act: Act) -> None:
    found = knowing(heard, robust=robust)
    assert (found.risk, found.act) == (risk, act)
    assert found.expert == (robust if act is Act.ROUTE else None)
    assert 0 <= found.score <= 1


def test_the_response_names_the_type_and_the_score() -> None:
    assert knowing(Heard(SURE, ("Rome", "Paris"))).hallucination_risk() == {"type": "misled", "score": 0.5}


def test_what_is_consistently_wrong_looks_known() -> None:
    """The blind spot of a proxy without hidden states, on record."""
    assert knowing(Heard(("Lyon", "Lyon", "Lyon"))).act is Act.ANSWER


def test_an_expert_that_was_not_asked_without_context_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="ask it without context"):
        knowing(Heard((), ("Paris",)))


def test_agreement_is_of_all_samples_also_the_silent_ones() -> None:
    assert agreement(("Paris", "paris", "")) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "answer", ["I don't know.", "That is not known to me.", "Sorry, I have no information on that.", "I'm not sure"]
)
def test_who_says_so_does_not_know_however_sure_it_is_of_that(answer: str) -> None:
    found = knowing(Heard((answer,) * 3, confidence=0.99))
    assert (found.risk, found.score, found.reason) == (Risk.IGNORANCE, 1.0, "it says so")


@pytest.mark.parametrize("answer", ["Paris", "Nobody knows it better than Paris.", f"I do not know. {'word ' * 60}"])
def test_an_answer_that_says_more_is_an_answer(answer: str) -> None:
    assert knowing(Heard((answer,) * 3)).risk is Risk.KNOWN
