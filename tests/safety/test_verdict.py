"""Redaction cuts what was found out of the texts where it stands, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.safety.api import Action, Finding, Origin, Segment, Severity
from conclave.safety.verdict import NOTHING, Ran, Verdict, consequence, joined, redacted


def segment(text: str, place: str = "m") -> Segment:
    return Segment(Origin.USER, text, text, place)


def finding(start: int, end: int, place: str = "m", check: str = "c") -> Finding:
    return Finding(check, "k", Severity.LOW, 1.0, place, start, end)


def test_a_finding_is_replaced_by_the_mark_of_its_check() -> None:
    [left] = redacted([segment("my key is 12345, keep it")], [finding(10, 15)], lambda *_: "[gone]")
    assert left.text == left.folded == "my key is [gone], keep it"


def test_overlapping_findings_are_one_cut() -> None:
    found = [finding(4, 8), finding(2, 6), finding(5, 7)]
    [left] = redacted([segment("0123456789")], found, lambda *_: "*")
    assert left.text == "01*89"


def test_only_the_segments_with_findings_change() -> None:
    one, two = segment("aaa", "m1"), segment("bbb", "m2")
    left = redacted([one, two], [finding(0, 1, "m2")], lambda *_: "*")
    assert left == (one, segment("*bb", "m2"))
    assert left[0] is one


@given(
    text=st.text(max_size=40),
    spans=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6),
)
def test_nothing_that_was_found_is_left_and_all_else_is(text: str, spans: list[tuple[int, int]]) -> None:
    size = len(text)
    found = [finding(min(a, b, size), min(max(a, b), size)) for a, b in spans if min(a, b, size) < min(max(a, b), size)]
    cut = {at for one in found for at in range(one.start, one.end)}
    [left] = redacted([segment(text)], found, lambda *_: "")
    assert left.text == "".join(character for at, character in enumerate(text) if at not in cut)


def test_two_stages_make_one_verdict_of_which_the_strictest_action_counts() -> None:
    first = Verdict(Action.ANNOTATE, (finding(0, 0),), (finding(0, 0),), (Ran("parts", 1.0),))
    second = Verdict(Action.ALLOW, (finding(1, 2),), (), (Ran("c", 2.0),))
    both = joined(first, second)
    assert (both.action, len(both.findings), len(both.acted)) == (Action.ANNOTATE, 2, 1)
    assert [ran.check for ran in both.ran] == ["parts", "c"]
    assert joined(NOTHING, second) is second


@pytest.mark.parametrize(
    ("action", "severity", "follows"),
    [
        (Action.BLOCK, Severity.MEDIUM, Action.BLOCK),
        (Action.BLOCK, Severity.LOW, Action.ANNOTATE),
        (Action.REDACT, Severity.LOW, Action.ANNOTATE),
        (Action.ANNOTATE, Severity.LOW, Action.ANNOTATE),
        (Action.ALLOW, Severity.LOW, Action.ALLOW),
    ],
)
def test_what_is_milder_than_policy_says_is_annotated_at_most(
    action: Action, severity: Severity, follows: Action
) -> None:
    found = Finding("c", "k", severity, 1.0, "m", 0, 1)
    assert consequence(action, found, from_severity=Severity.MEDIUM) is follows
