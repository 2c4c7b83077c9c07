"""`next_step`: fallback and abstaining in one pure function."""

import pytest

from conclave.router.api import Classification, Decision, LookUp, NoStepLeft, Outcome, Step, next_step

FIRST, SECOND, THIRD = Step("code", "category"), Step("general", "fallback"), Step("local", "fallback")
DECISION = Decision(steps=(FIRST, SECOND, THIRD), reason="category", row="code")
FAILED = Outcome(accepted=False, error="no answer")


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [([], FIRST), ([FAILED], SECOND), ([FAILED, FAILED], THIRD)],
    ids=["nothing tried", "one failed", "two failed"],
)
def test_steps_are_taken_in_the_decisions_order(outcomes: list[Outcome], expected: Step) -> None:
    assert next_step(DECISION, outcomes, shown=False) == expected


def test_no_step_is_left_after_the_last() -> None:
    with pytest.raises(NoStepLeft):
        next_step(DECISION, [FAILED, FAILED, FAILED], shown=False)


def test_a_decision_without_steps_has_none_to_take() -> None:
    with pytest.raises(NoStepLeft):
        next_step(Decision(steps=(), reason="none", row="default"), [], shown=False)


@pytest.mark.parametrize("outcomes", [[], [FAILED]], ids=["first", "second"])
def test_nobody_else_is_asked_once_the_client_has_seen_a_word(outcomes: list[Outcome]) -> None:
    with pytest.raises(NoStepLeft):
        next_step(DECISION, outcomes, shown=True)


def test_what_was_shown_may_be_continued_by_the_next_expert_if_it_is_resumable() -> None:
    assert next_step(DECISION, [FAILED], shown=True, resumable=True) == SECOND


def test_an_answer_that_has_begun_is_worth_one_more_try_by_the_last_expert() -> None:
    assert next_step(DECISION, [FAILED] * 3, shown=True, resumable=True) == Step("local", "resume")
    with pytest.raises(NoStepLeft):
        next_step(DECISION, [FAILED] * 4, shown=True, resumable=True)


def test_a_final_outcome_ends_the_search_although_steps_are_left() -> None:
    with pytest.raises(NoStepLeft):
        next_step(DECISION, [Outcome(accepted=False, error="the request is invalid", final=True)], shown=False)


def test_the_same_arguments_give_the_same_step() -> None:
    """A decision can be replayed: nothing but the arguments counts."""
    assert next_step(DECISION, [FAILED], shown=False) is next_step(DECISION, (FAILED,), shown=False)


def test_the_runner_up_is_the_second_most_probable_category() -> None:
    probabilities = {"law": 0.2, "code": 0.7, "math": 0.1}
    assert Classification("code", 0.7, unsure=False, probabilities=probabilities).runner_up == "law"


NOW = LookUp("auto", now=True, if_unsure=True, reason="r")
LATER = LookUp("auto", now=False, if_unsure=True, reason="r")
NOT = LookUp("auto", now=False, if_unsure=False, reason="r")
TRIAL = Decision((Step("weak", "trial", on_trial=True), Step("strong", "escalated"), SECOND), "category", "code")
UNSURE = Outcome(accepted=False, unsure=True)


@pytest.mark.parametrize(
    ("decision", "look_up", "given"),
    [
        (DECISION, NOW, [True, True, True]),
        (DECISION, LATER, [False, False, False]),
        (DECISION, NOT, [False, False, False]),
        (DECISION, None, [False, False, False]),
        (TRIAL, NOW, [True, True, True]),
        (TRIAL, LATER, [False, True, True]),
        (TRIAL, NOT, [False, False, False]),
    ],
)
def test_the_steps_that_are_given_documents(decision: Decision, look_up: LookUp | None, given: list[bool]) -> None:
    looked = decision.looking_up(look_up)
    assert [step.look_up for step in looked.steps] == given
    assert looked.look_up is look_up
    assert [step.expert for step in looked.steps] == [step.expert for step in decision.steps]


@pytest.mark.parametrize(
    ("look_up", "outcomes", "given"),
    [
        (LATER, [], False),
        (LATER, [UNSURE], True),
        (LATER, [FAILED], False),
        (LATER, [FAILED, FAILED], False),
        (NOW, [], True),
        (NOW, [UNSURE], True),
        (NOW, [FAILED], True),
        (NOW, [FAILED, FAILED], True),
        (NOT, [UNSURE], False),
    ],
)
def test_documents_that_are_for_an_unsure_trial_are_not_for_a_failed_one(
    look_up: LookUp, outcomes: list[Outcome], *, given: bool
) -> None:
    assert next_step(TRIAL.looking_up(look_up), outcomes).look_up is given


def test_a_fallback_after_a_failed_trial_is_called_one_with_documents_or_without() -> None:
    assert next_step(TRIAL.looking_up(NOW), [FAILED]) == Step("strong", "fallback", look_up=True)
    assert next_step(TRIAL.looking_up(LATER), [FAILED]) == Step("strong", "fallback")
    assert next_step(TRIAL.looking_up(LATER), [UNSURE]) == Step("strong", "escalated", look_up=True)
