"""A channel: the same verdict however the text arrives, nothing of a blocked span shown, little held, bounded time."""

import itertools
import random
import time
from collections.abc import Sequence

import pytest

from benchmarks.safety.stream_splits import CHECKS, CORPUS, FakeCheck, drawn, expected, fault, plan_of, streamed
from conclave.safety.api import Action, Finding, Severity
from conclave.safety.output.api import Excerpt, OutputCheck, OutputRule
from conclave.safety.output.judging import Judging
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import Channel, judged

A, R, B = Action.ANNOTATE, Action.REDACT, Action.BLOCK
PLANS = [plan_of(actions) for actions in ((R, R, R, R, A), (A, R, B, R, A), (B, R, R, A, R), (R, A, A, B, B))]
PLANS += [plan_of(actions, led=True) for actions in ((B, A, A, A, A), (R, R, A, A, R))]


@pytest.mark.parametrize("plan", PLANS, ids=["redact", "block-code", "block-package", "block-host", "led", "led-too"])
@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_every_split_in_two_and_letter_by_letter_gives_the_verdict_of_the_whole(plan: Plan, text: str) -> None:
    whole = expected(plan, text)
    splits: list[Sequence[int]] = [(at,) for at in range(len(text) + 1)]
    for cuts in (*splits, range(1, len(text)), range(1, len(text), 2)):
        assert fault(plan, text, list(cuts), whole) is None, cuts


def test_random_texts_in_random_splits_give_the_verdict_of_the_whole() -> None:
    for plan, text, cuts, whole in itertools.islice(drawn(random.Random(1)), 2_000):
        assert fault(plan, text, cuts, whole) is None, (text, cuts, [rule.action for rule in plan.rules])


def rule(check: OutputCheck, action: Action = R, **more: object) -> OutputRule:
    return OutputRule(check, action, **more)  # type: ignore[arg-type]


def package(action: Action = R) -> Plan:
    return Plan.of([rule(CHECKS[0], action)])


def test_prose_without_triggers_passes_at_once() -> None:
    channel = Channel(package(), Judging(package().rules))
    for word in ("The", " quick", " red", " fox"):
        assert channel.feed(word) == word


def test_a_trigger_holds_until_the_line_is_judged_and_no_longer() -> None:
    channel = Channel(package(), Judging(package().rules))
    assert channel.feed("do pip install ") == "do "
    assert channel.feed("good") == ""
    assert channel.feed(" more\nnext") == "pip install good more\nnext"


def test_a_check_that_only_tells_holds_nothing_and_tells() -> None:
    plan = package(A)
    judging = Judging(plan.rules)
    channel = Channel(plan, judging)
    assert channel.feed("pip install evil") == "pip install evil"
    assert channel.finish() == ""
    assert [(one.start, one.end) for one in judging.verdict.findings] == [(12, 16)]


def test_a_block_is_held_whole_only_for_a_check_that_must_see_it_whole() -> None:
    text = "```py\nimport os\nx = 1\n"
    for plan, shown in ((plan_of((A, A, R, A, A)), "```py\n"), (plan_of((R, A, A, A, A)), text)):
        assert Channel(plan, Judging(plan.rules)).feed(text) == shown


def test_what_is_better_than_a_mark_takes_its_place() -> None:
    class Fixes(FakeCheck):
        def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
            return [
                Finding("p", "p.f", Severity.LOW, 1.0, "", f.start, f.end, instead="requests")
                for f in super().inspect(excerpt)
            ]

    plan = Plan.of([rule(Fixes("p", "reqeusts", ["pip install"]))])
    assert judged(plan, "pip install reqeusts\n")[1] == "pip install requests\n"


def test_a_finding_longer_than_a_window_is_cut_out_to_its_end() -> None:
    plan = plan_of((A, R, A, A, A))
    text = "see https://bad.example/" + "q" * 1_000 + " end"
    assert judged(plan, text)[1] == "see [link removed] end"


def test_severity_below_the_policys_is_told_only() -> None:
    class Mild(FakeCheck):
        def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
            return [Finding("p", "p.f", Severity.LOW, 1.0, "", f.start, f.end) for f in super().inspect(excerpt)]

    plan = Plan.of([rule(Mild("p", "evil", ["evil"]), B, from_severity=Severity.HIGH)])
    judging, shown = judged(plan, "an evil word")
    assert (shown, judging.action) == ("an evil word", A)


def test_a_policy_that_observes_notes_and_does_nothing() -> None:
    plan = Plan.of([rule(CHECKS[0], Action.ALLOW, observe=True)])
    judging, shown = judged(plan, "pip install evil")
    verdict = judging.verdict
    assert (shown, verdict.action, len(verdict.findings), verdict.acted) == ("pip install evil", Action.ALLOW, 1, ())


def test_more_findings_than_are_told_are_cut_out_all_the_same() -> None:
    class Many(FakeCheck):
        def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
            places = [at for at, letter in enumerate(excerpt.text) if letter == "x"]
            return [Finding("m", "m.f", Severity.HIGH, 1.0, "", at, at + 1) for at in places]

    plan = Plan.of([rule(Many("m", "", ["x"], unit="block"))])
    assert "x" not in judged(plan, "```\n" + "x y " * 500 + "\n```\n")[1]


class Broken(FakeCheck):
    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        raise RuntimeError("bug")


@pytest.mark.parametrize(("on_error", "shown"), [("allow", "a evil b\n"), ("block", "a [x removed]\n")])
def test_a_check_that_raises_does_what_its_on_error_says_and_the_record_says_so(on_error: str, shown: str) -> None:
    plan = Plan.of([rule(Broken("x", "evil", ["evil"]), on_error=on_error)])
    judging, said = judged(plan, "a evil b\n")
    assert said == shown
    assert judging.verdict.ran[0].error == "RuntimeError"
    assert [one.kind for one in judging.verdict.findings] == (["check_failed"] if on_error == "block" else [])


@pytest.mark.parametrize(("on_error", "seen"), [("allow", 1), ("block", 2)])
def test_a_check_that_used_up_its_time_is_not_asked_again(on_error: str, seen: int) -> None:
    plan = Plan.of([rule(FakeCheck("x", "evil", ["evil"]), A, on_error=on_error, timeout_s=1.5)])
    ticks = itertools.count()
    judging = Judging(plan.rules, now_s=lambda: 2.0 * next(ticks))
    channel = Channel(plan, judging)
    channel.feed("evil\nevil\n")
    channel.finish()
    verdict = judging.verdict
    assert len(verdict.findings) == seen
    assert (verdict.ran[0].late, verdict.ran[0].error) == (True, "late")


def test_who_goes_on_from_what_was_let_go_is_judged_from_there() -> None:
    plan = plan_of((R, R, R, A, A))
    judging = Judging(plan.rules)
    channel = Channel(plan, judging)
    assert channel.feed("a [x](http://b) pip install ev") == "a "
    channel.drop()
    assert channel.held == 0
    assert channel.feed("pip install ") + channel.feed("evil\nb") == "pip install [package removed]\nb"
    assert channel.finish() == ""
    assert [(one.kind, one.start) for one in judging.verdict.findings] == [("package.found", 14)]


def test_a_dropped_block_begins_again_at_its_fence() -> None:
    plan = plan_of((A, A, R, A, A))
    channel = Channel(plan, Judging(plan.rules))
    assert channel.feed("```py\ndef bad(): return\n") == "```py\n"
    channel.drop()
    assert channel.feed("x = 1\n```\n") == "x = 1\n```\n"


@pytest.mark.parametrize("drop_at", range(0, 90, 3))
def test_a_second_half_after_a_drop_leaks_nothing(drop_at: int) -> None:
    text = "intro words\npip install evil now\n```sh\npip install evil\n```\nsee https://bad.x/y end of it all\n"
    plan = plan_of((R, R, A, A, A))
    channel = Channel(plan, Judging(plan.rules))
    shown = channel.feed(text[:drop_at])
    held = channel.held
    channel.drop()
    shown += channel.feed(text[drop_at - held :]) + channel.finish()
    assert shown == judged(plan, text)[1]


def test_a_text_that_is_code_as_a_whole_is_a_block_whatever_it_holds() -> None:
    plan = plan_of((A, A, R, A, A))
    assert judged(plan, "x\n```\ndef bad(): return", code=True)[1] == "x\n```\n[code removed]"


HOSTILE = {
    "megabyte line": "a" * 1_000_000,
    "a line of triggers": "pip install " * 40_000,
    "a line of links": "[a](http://b) " * 30_000,
    "empty lines": "\n" * 300_000,
    "fences": "```\n" * 100_000,
    "open brackets": "[" * 400_000,
    "open tags": "<a " * 130_000,
    "backslashes": "\\" * 400_000,
    "spaces and quotes": " >" * 200_000,
    "invisible": "\u200b" * 200_000,
    "marks": "e" + "\u0301" * 200_000,
    "carriage returns": "\r" * 300_000,
    "random": "".join(random.Random(3).choices("`~\n\r <>[]()\\|pip install htp:/.\u200b\U0001f600", k=300_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_take_bounded_time_and_room(name: str) -> None:
    """About a second a megabyte on a free core; the limit is for a busy one."""
    plan = plan_of((R, R, A, A, A))
    text = HOSTILE[name]
    channel = Channel(plan, Judging(plan.rules))
    started_s = time.process_time()
    held = 0
    for at in range(0, len(text), 10_000):
        channel.feed(text[at : at + 10_000])
        held = max(held, channel.held)
    channel.finish()
    assert time.process_time() - started_s < 15
    assert held <= 256


def test_a_huge_block_is_judged_in_parts_and_not_held_beyond_them() -> None:
    plan = plan_of((A, A, R, A, A))
    filler = "x = 1\n" * 20_000
    text = f"```py\n{filler}def bad(): return\n{filler}```\nok"
    whole = expected(plan, text)
    assert len(whole.findings) == 1
    found = streamed(plan, text, list(range(1_000, len(text), 1_000)))
    assert (found.findings, found.shown) == (whole.findings, whole.shown)
    assert found.held <= 66_536
