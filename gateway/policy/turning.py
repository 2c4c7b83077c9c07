"""A screen that looks at a conversation's turns together, too, as the policy's `turns` say."""

from dataclasses import replace
from typing import Final

from conclave.gateway.policy.defences import WHOLE
from conclave.gateway.policy.screening import Screen
from conclave.gateway.policy.turns import TurnsSettings
from conclave.safety.api import Action, Origin
from conclave.safety.detect.turns import Course, TurnRunner, views_of_joined
from conclave.safety.runner import Runner

JOINT: Final = ":turns"  # after the version: a joined text is remembered apart


def with_turns(screen: Screen, turns: TurnsSettings, course: Course | None, *, empty: Runner, observe: bool) -> Screen:
    """The same checks over the last turns as one text, and `course` over where the conversation goes.

    `empty` is a runner without a check, for a policy that looks at the course and at nothing else.
    """
    whole = screen.runner if screen.runner is not None else empty
    if not isinstance(whole, Runner):
        return screen
    judging = tuple(rule for rule in whole.rules if rule.check.name in WHOLE and Origin.USER in rule.check.origins)
    joint = None
    if judging and turns.last > 1:
        joint = replace(whole, rules=judging, version=f"{whole.version}{JOINT}", views_of=views_of_joined)
    if joint is None and course is None:
        return screen
    action = turns.crescendo.action
    runner = TurnRunner(
        whole,
        joint,
        turns.last,
        course,
        Action.ALLOW if action == "observe" else Action[action.upper()],
        observe=observe or action == "observe",
    )
    return replace(screen, runner=runner)
