"""`next_step` with an expert on trial, whatever happens: at most one escalation, and no second answer once shown."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.router.api import (
    Abstains,
    Act,
    Assessment,
    ClosedBook,
    Decision,
    LookUp,
    NoStepLeft,
    Outcome,
    Risk,
    Step,
    next_step,
)
from conclave.router.gates.cascade import Cascade, staged

ROW = Decision(tuple(Step(name, "fallback") for name in "abcd"), "category", "math")
STAGED = staged(ROW, Cascade(below=0.5), "abcd")
UNSURE = Outcome(accepted=False, unsure=True, confidence=0.1)
FAILED = Outcome(accepted=False, error="no")
FINAL = Outcome(accepted=False, error="no", final=True, rejected=True)
MOST_STEPS = 12


def play(decision: Decision, ends: list[str], shows: list[bool]) -> tuple[list[Step], list[Outcome], bool]:
    """Take steps until an answer is accepted or none is left, each ending as told; only trials can be unsure."""
    taken: list[Step] = []
    outcomes: list[Outcome] = []
    shown = False
    for end, shows_a_word in zip(ends, shows, strict=True):
        try:
            step = next_step(decision, outcomes, shown=shown, resumable=True)
        except NoStepLeft:
            break
        taken.append(step)
        if step.kept or end == "accepted" or (end == "unsure" and not step.on_trial):
            outcomes.append(Outcome(accepted=True))
            break
        shown = shown or (shows_a_word and not step.on_trial)  # of a trial nothing is shown before it is accepted
        outcomes.append({"unsure": UNSURE, "failed": FAILED, "final": FINAL}[end])
    return taken, outcomes, shown


ENDS = st.lists(st.sampled_from(["accepted", "unsure", "failed", "final"]), min_size=MOST_STEPS, max_size=MOST_STEPS)
SHOWS = st.lists(st.booleans(), min_size=MOST_STEPS, max_size=MOST_STEPS)


@given(ENDS, SHOWS)
def test_it_ends_and_never_escalates_twice(ends: list[str], shows: list[bool]) -> None:
    taken, outcomes, _ = play(STAGED, ends, shows)
    assert len(taken) < MOST_STEPS
    assert sum(step.reason == "escalated" for step in taken) <= 1
    assert sum(outcome.unsure for outcome in outcomes) <= 1
    assert [step.on_trial for step in taken].count(True) == 1


@given(ENDS, SHOWS)
def test_an_escalation_follows_an_unsure_answer_and_nothing_else_does(ends: list[str], shows: list[bool]) -> None:
    taken, outcomes, _ = play(STAGED, ends, shows)
    for before, step in zip(outcomes, taken[1:], strict=False):
        assert (step.reason == "escalated") == before.unsure


@given(ENDS, SHOWS)
def test_a_kept_answer_is_the_last_resort_and_never_follows_a_word(ends: list[str], shows: list[bool]) -> None:
    taken, outcomes, shown = play(STAGED, ends, shows)
    kept = [number for number, step in enumerate(taken) if step.kept]
    if kept:
        assert not shown
        assert kept == [len(taken) - 1] == [2]
        assert taken[-1].expert == taken[0].expert
    elif any(outcome.unsure for outcome in outcomes) and not shown:
        assert outcomes[-1].accepted  # with an answer in hand nobody goes away without one


@given(ENDS, SHOWS)
def test_the_same_outcomes_give_the_same_steps(ends: list[str], shows: list[bool]) -> None:
    assert play(STAGED, ends, shows) == play(STAGED, ends, shows)


@pytest.mark.parametrize("outcome", [FAILED, FINAL], ids=["failed", "final"])
def test_after_a_failure_on_trial_the_strong_expert_is_a_fallback(outcome: Outcome) -> None:
    assert next_step(STAGED, [outcome]) == Step("b", "fallback")


def test_after_an_unsure_answer_the_strong_expert_is_asked_whatever_the_weak_one_thought_of_the_request() -> None:
    assert next_step(STAGED, [UNSURE]) == Step("b", "escalated")


@pytest.mark.parametrize("outcome", [FAILED, FINAL], ids=["failed", "final"])
def test_if_the_strong_expert_fails_the_unsure_answer_is_kept(outcome: Outcome) -> None:
    assert next_step(STAGED, [UNSURE, outcome]) == Step("a", "kept", kept=True)


def test_a_word_of_the_strong_expert_is_continued_by_others() -> None:
    assert next_step(STAGED, [UNSURE, FAILED], shown=True, resumable=True) == Step("c", "fallback")
    with pytest.raises(NoStepLeft):
        next_step(STAGED, [UNSURE, FAILED], shown=True)


def test_an_unsure_answer_with_nobody_to_ask_is_kept() -> None:
    alone = Decision((Step("a", "trial", on_trial=True),), "category", "math")
    assert next_step(alone, [UNSURE]).kept


CLOSED = Decision(
    (
        Step("a", "closed_book", on_trial=True),
        Step("a", "documents", look_up=True),
        Step("b", "fallback", look_up=True),
    ),
    "category",
    "math",
    look_up=LookUp("always", now=True, if_unsure=True, reason="always"),
    closed_book=ClosedBook(robust="r"),
)
CAUTIOUS = replace(CLOSED, closed_book=ClosedBook(abstain=True))


def heard(act: Act, risk: Risk = Risk.KNOWN) -> Outcome:
    """An answer that was not accepted as it is."""
    return Outcome(accepted=False, confidence=0.9, known=Assessment(risk, 0.1, act))


UNKNOWING = heard(Act.RETRIEVE, Risk.IGNORANCE)


@pytest.mark.parametrize(
    ("outcomes", "step"),
    [
        ([], Step("a", "closed_book", on_trial=True)),
        ([UNKNOWING], Step("a", "documents", look_up=True)),
        ([heard(Act.RETRIEVE, Risk.UNKNOWN)], Step("a", "documents", look_up=True)),
        ([heard(Act.COMPARE)], Step("a", "documents", on_trial=True, look_up=True)),
        ([heard(Act.ROUTE)], Step("r", "robust", look_up=True)),
        ([heard(Act.COMPARE), heard(Act.REASK, Risk.MISLED)], Step("a", "reask", kept=True)),
        ([heard(Act.COMPARE), FAILED], Step("a", "kept", kept=True)),
        ([heard(Act.COMPARE), FINAL], Step("a", "kept", kept=True)),
        ([heard(Act.ROUTE), FAILED], Step("a", "kept", kept=True)),
        ([UNKNOWING, FAILED], Step("a", "kept", kept=True)),
        ([FAILED], Step("a", "fallback", look_up=True)),
        ([FINAL], Step("a", "fallback", look_up=True)),
        ([FAILED, FAILED], Step("b", "fallback", look_up=True)),
    ],
    ids=[
        "first alone", "does not know", "nobody can tell", "knows, and looking up pays", "knows better than documents",
        "was led astray", "failed with documents", "was refused with documents", "the robust one failed",
        "does not know, and failed", "failed alone", "was refused alone", "failed twice",
    ],
)  # fmt: skip
def test_each_row_of_the_action_table_names_one_step(outcomes: list[Outcome], step: Step) -> None:
    assert next_step(CLOSED, outcomes) == step


@pytest.mark.parametrize(
    ("outcomes", "abstains"),
    [
        ([heard(Act.ABSTAIN, Risk.IGNORANCE)], True),
        ([UNKNOWING, FAILED], True),
        ([heard(Act.RETRIEVE, Risk.UNKNOWN), FAILED], False),
        ([heard(Act.COMPARE), FAILED], False),
        ([heard(Act.COMPARE), heard(Act.REASK, Risk.MISLED)], False),
        ([FAILED], False),
    ],
    ids=["nothing helps", "failed with documents", "nobody can tell", "knows", "knows better", "failed alone"],
)
def test_only_who_does_not_know_abstains(outcomes: list[Outcome], abstains: bool) -> None:
    if not abstains:
        assert next_step(CAUTIOUS, outcomes)
        return
    with pytest.raises(Abstains):
        next_step(CAUTIOUS, outcomes)


def test_nobody_abstains_in_the_middle_of_an_answer() -> None:
    going_on = next_step(CAUTIOUS, [UNKNOWING, FAILED], shown=True, resumable=True)
    assert going_on == Step("b", "fallback", look_up=True)
    with pytest.raises(NoStepLeft) as none:
        next_step(CAUTIOUS, [UNKNOWING, FAILED], shown=True)
    assert not isinstance(none.value, Abstains)


ACTS = st.lists(st.tuples(st.sampled_from([*Act, None]), st.sampled_from(Risk), st.booleans()), max_size=MOST_STEPS)


@given(ACTS, st.booleans(), st.sampled_from([None, "r"]))
def test_whatever_is_heard_at_most_one_call_follows_an_answer(
    acts: list[tuple[Act | None, Risk, bool]], abstain: bool, robust: str | None
) -> None:
    """An answer that was put aside is followed by one more call, and by no third."""
    decision = replace(CLOSED, closed_book=ClosedBook(robust, abstain))
    outcomes: list[Outcome] = []
    steps: list[Step] = []
    for act, risk, fails in acts:
        try:
            steps.append(next_step(decision, outcomes))
        except NoStepLeft:
            break
        if steps[-1].kept:
            break
        known = Assessment(risk, 0.5, act) if act is not None and steps[-1].on_trial and not fails else None
        outcomes.append(FAILED if known is None else Outcome(accepted=False, known=known))
        assert [next_step(decision, outcomes[:at]) for at in range(len(outcomes))] == steps, "the same again"
    aside = next((place for place, one in enumerate(outcomes) if one.aside), None)
    if aside is not None:
        assert len(outcomes) <= aside + 2
