"""A plan whose blocks wait as a whole: nothing of a block with a blocked line is shown, and splits change nothing."""

import random

import pytest

from benchmarks.safety.stream_splits import CHECKS, CORPUS, PIECES, expected, fault
from conclave.safety.api import Action
from conclave.safety.output.api import OutputRule
from conclave.safety.output.judging import Judging
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import PART, Channel

LINES = [check for check in CHECKS if check.unit == "line"]  # without one that must see blocks


def plan_of(action: Action, *, checks: int | None = None) -> Plan:
    return Plan.of([OutputRule(check, action) for check in LINES[:checks]], whole_blocks=True)


def shown(plan: Plan, *pieces: str) -> list[str]:
    channel = Channel(plan, Judging(plan.rules))
    return [*(channel.feed(piece) for piece in pieces), channel.finish()]


def test_of_a_block_with_a_blocked_line_nothing_is_shown() -> None:
    assert shown(plan_of(Action.BLOCK), "go:\n", "```sh\n", "ls\n", "pip install evil\n", "```\n") == [
        *("go:\n", "```sh\n", "", "", "", "")
    ]


def test_a_block_without_one_comes_when_it_is_judged() -> None:
    assert shown(plan_of(Action.BLOCK), "```sh\n", "ls\n", "pip install good\n", "```\n", "bye\n") == [
        *("```sh\n", "", "", "ls\npip install good\n```\n", "bye\n", "")
    ]


def test_where_no_check_blocks_nothing_waits_longer() -> None:
    assert not plan_of(Action.REDACT).holds_blocks
    assert not plan_of(Action.ANNOTATE).holds_blocks


def test_a_long_block_comes_in_parts() -> None:
    plan = plan_of(Action.BLOCK, checks=1)
    channel = Channel(plan, Judging(plan.rules))
    most, text = 0, "```\n" + "ls -l a line of code\n" * 20_000
    out = []
    for at in range(0, len(text), 1_000):
        out.append(channel.feed(text[at : at + 1_000]))
        most = max(most, channel.held)
    out.append(channel.finish())
    assert "".join(out) == text
    assert most <= PART + 1_000


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_every_split_in_two_gives_the_verdict_of_the_whole(text: str) -> None:
    plan = plan_of(Action.BLOCK)
    whole = expected(plan, text)
    for at in range(len(text) + 1):
        assert fault(plan, text, [at], whole) is None, at


def test_random_texts_in_random_splits_give_the_verdict_of_the_whole() -> None:
    draw, plan = random.Random(3), plan_of(Action.BLOCK)
    for _ in range(200):
        text = "".join(draw.choices(PIECES, k=draw.randrange(1, 30)))
        whole = expected(plan, text)
        for count in (1, 5, len(text)):
            cuts = sorted(draw.sample(range(len(text) + 1), min(count, len(text))))
            assert fault(plan, text, cuts, whole) is None, (text, cuts)
