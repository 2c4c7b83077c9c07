"""Trust falls fast, rises slowly, and comes back within a day."""

import pytest

from conclave.safety.api import Action, Finding, Origin, Segment, Severity
from conclave.safety.detect.standing import BASE, DAY_S, Band, Standing, blame_of, seen_in, worst
from conclave.safety.verdict import Verdict

SEGMENTS = (
    Segment(Origin.USER, "mine", "mine", "messages[0].content"),
    Segment(Origin.TOOL, "a page", "a page", "messages[1].content"),
)


def finding(check: str = "override", place: int = 0, **more: object) -> Finding:
    about = {"kind": check, "severity": Severity.MEDIUM, "confidence": 1.0, "start": 0, "end": 1} | more
    return Finding(check=check, place=f"messages[{place}].content", **about)  # type: ignore[arg-type]


def verdict(*found: Finding, action: Action = Action.ANNOTATE) -> Verdict:
    return Verdict(action, found, found, ())


@pytest.mark.parametrize(
    ("trust", "band"),
    [(1.0, Band.OPEN), (0.701, Band.OPEN), (0.7, Band.WATCH), (0.4, Band.WATCH), (0.399, Band.RESTRICTED)],
)
def test_the_bands_begin_where_the_page_says(trust: float, band: Band) -> None:
    assert Band.of(trust) is band


def test_a_stranger_is_open() -> None:
    assert Band.of(Standing().trust_at(5.0)) is Band.OPEN


@pytest.mark.parametrize(
    ("severity", "left"), [(Severity.LOW, 0.7), (Severity.MEDIUM, 0.5), (Severity.HIGH, 0.1)], ids=str
)
def test_what_was_refused_takes_its_whole_share(severity: Severity, left: float) -> None:
    after = Standing(1.0, 10.0).after(blame_of(severity, refused=True), 10.0)
    assert after.trust == pytest.approx(left)


@pytest.mark.parametrize(
    ("severity", "left"), [(Severity.LOW, 0.85), (Severity.MEDIUM, 0.7), (Severity.HIGH, 0.55)], ids=str
)
def test_what_policy_let_pass_takes_less(severity: Severity, left: float) -> None:
    assert 1 - blame_of(severity, refused=False) == pytest.approx(left)


@pytest.mark.parametrize(
    ("severity", "band"),
    [(Severity.LOW, Band.WATCH), (Severity.MEDIUM, Band.WATCH), (Severity.HIGH, Band.RESTRICTED)],
    ids=str,
)
def test_one_refused_guess_leads_a_stranger_to_watch_and_only_what_is_sure_to_restricted(
    severity: Severity, band: Band
) -> None:
    """Learned checks are medium, and err: one false alarm must not take a new key's tools away."""
    assert Band.of(Standing().after(blame_of(severity, refused=True), 0.0).trust) is band


def test_thirty_clean_calls_undo_one_refusal_and_never_more_than_trust_there_is() -> None:
    standing = Standing(0.1, 0.0)
    for _ in range(30):
        assert Band.of(standing.trust) is not Band.OPEN
        standing = standing.after_clean(0.0)
    assert Band.of(standing.after_clean(0.0).trust) is Band.OPEN
    assert Standing(0.99, 0.0).after_clean(0.0).trust == 1.0


@pytest.mark.parametrize("trust", [0.0, 0.3, 0.8, 1.0])
def test_within_a_day_all_stand_where_they_began(trust: float) -> None:
    standing = Standing(trust, 100.0)
    assert standing.trust_at(100.0) == trust
    assert standing.trust_at(100.0 + DAY_S) == pytest.approx(BASE)


@pytest.mark.parametrize("trust", [0.1, 0.95])
def test_to_look_in_between_changes_nothing(trust: float) -> None:
    whole = Standing(trust, 0.0).trust_at(8000.0)
    halfway = Standing(Standing(trust, 0.0).trust_at(3000.0), 3000.0)
    assert halfway.trust_at(8000.0) == pytest.approx(whole)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    assert Standing(0.1, 100.0).trust_at(50.0) == 0.1


def test_many_findings_in_one_call_are_one_try() -> None:
    found = verdict(finding(), finding("hidden", severity=Severity.HIGH), finding("persona"))
    assert worst(seen_in(found, SEGMENTS, str)) == pytest.approx(0.45)


@pytest.mark.parametrize("check", ["secrets", "pii", "topics"])
def test_a_pasted_key_or_another_subject_blames_nobody(check: str) -> None:
    assert seen_in(verdict(finding(check, severity=Severity.HIGH)), SEGMENTS, str) == ()


def test_a_check_that_failed_blames_nobody() -> None:
    assert seen_in(verdict(finding(kind="check_failed"), action=Action.BLOCK), SEGMENTS, str) == ()


def test_what_is_only_observed_blames_nobody() -> None:
    observed = Verdict(Action.ALLOW, (finding(),), (), ())
    assert seen_in(observed, SEGMENTS, str) == ()


def test_what_a_tool_said_is_not_the_callers_word() -> None:
    (mine,) = seen_in(verdict(finding()), SEGMENTS, str)
    (theirs,) = seen_in(verdict(finding("embedded", place=1)), SEGMENTS, str)
    assert (mine.by_caller, theirs.by_caller) == (True, False)
