"""What follows from a band: stricter checks, less reach, fewer requests; never anything milder."""

from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.access.standing import Stood
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import Forbidden
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import cross_check
from conclave.gateway.policy.posture import ALL_OPEN, CONFINED, Postures
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.screening import maker
from conclave.router.api import Classification
from conclave.safety.api import Action
from conclave.safety.detect.learned import LearnedCheck
from conclave.safety.detect.standing import Band
from conclave.safety.detect.turns import TurnRunner

SURE = Classification("math", 0.9, False, {"math": 0.9, "law": 0.1})
CHECKS = [
    {"check": "hidden", "action": "annotate"},
    {"check": "secrets", "action": "observe"},
    {"check": "override", "action": "annotate"},
]


def version(**policy: Any) -> Version:
    document = PolicyDocument.model_validate({"defences": CHECKS, "shift": {"mode": "off"}} | policy)
    return Version(document, Pool({}), classify=lambda _: SURE, model_digest="d", checks=maker(lambda _: [1, 2, 3]))


def bands(tenant: str = "t", **standing: Any) -> Postures:
    return version(standing={"mode": "on"} | standing).bands_for(tenant)


def stood(band: Band, *, followed: bool = True) -> Stood:
    return Stood(0.5, 0.5, band, followed)


def request(*, tools: bool = False) -> ModelRequest:
    needs = frozenset({"tools"}) if tools else frozenset[str]()
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
    return ModelRequest(body, "auto", stream=False, include_usage=False, needs=needs)


def grant(*experts: str) -> Grant:
    return Grant("t", "k", Scope(frozenset(experts) if experts else None), 1e9)


def actions(postures: Postures, band: Band) -> dict[str, Action]:
    runner = postures.by_band[band].screen.runner
    assert runner is not None
    whole = runner.whole if isinstance(runner, TurnRunner) else runner
    return {rule.check.name: Action.ALLOW if rule.observe else rule.action for rule in whole.rules}


def test_named_checks_block_in_the_band_and_the_others_do_as_they_did() -> None:
    postures = bands(watch={"block": ["override"]})
    open_, watch = actions(postures, Band.OPEN), actions(postures, Band.WATCH)
    assert open_ == {"hidden": Action.ANNOTATE, "secrets": Action.ALLOW, "override": Action.ANNOTATE}
    assert watch == open_ | {"override": Action.BLOCK}


def test_any_means_all_that_act_and_leaves_alone_what_only_observes() -> None:
    postures = bands(restricted={"block": ["any"]})
    assert actions(postures, Band.RESTRICTED) == {
        "hidden": Action.BLOCK, "secrets": Action.ALLOW, "override": Action.BLOCK,
    }  # fmt: skip


def test_by_default_a_restricted_caller_may_still_paste_what_honest_people_paste() -> None:
    """A key or an address in a text moves no trust, so it refuses nobody either: it is told or cut out, as ever."""
    checks = [*CHECKS[:1], {"check": "secrets", "action": "annotate"}, {"check": "pii", "action": "redact"}]
    postures = version(defences=checks, standing={"mode": "on"}).bands_for("t")
    assert actions(postures, Band.RESTRICTED) == {
        "hidden": Action.BLOCK, "secrets": Action.ANNOTATE, "pii": Action.REDACT,
    }  # fmt: skip


def test_a_check_that_only_observes_acts_in_no_band_even_where_it_is_named() -> None:
    """By default `watch` names `override`: who is trying that check out is not to be refused by it."""
    checks = [{"check": "override", "action": "observe"}, {"check": "persona", "action": "annotate"}]
    postures = version(defences=checks, standing={"mode": "on"}).bands_for("t")
    assert actions(postures, Band.WATCH) == {"override": Action.ALLOW, "persona": Action.BLOCK}


def test_where_all_checks_observe_no_band_makes_one_act() -> None:
    postures = version(standing={"mode": "on"}, stages={"detect": "observe"}).bands_for("t")
    assert set(actions(postures, Band.RESTRICTED).values()) == {Action.ALLOW}


def test_a_lower_threshold_finds_more_and_is_remembered_apart() -> None:
    postures = bands(watch={"threshold_factor": 0.5})
    runners = [postures.by_band[band].screen.runner for band in (Band.OPEN, Band.WATCH)]
    wholes = [runner.whole for runner in runners if isinstance(runner, TurnRunner)]
    thresholds = [
        rule.check.threshold for whole in wholes for rule in whole.rules if isinstance(rule.check, LearnedCheck)
    ]
    assert thresholds[1] == pytest.approx(thresholds[0] / 2)
    assert wholes[0].version != wholes[1].version


def test_tools_are_refused_where_the_band_says_so_and_nowhere_else() -> None:
    postures = bands()
    with pytest.raises(Forbidden) as refused:
        postures.hold(stood(Band.RESTRICTED), grant(), request(tools=True))
    assert (refused.value.code, refused.value.param) == (CONFINED, "tools")
    postures.hold(stood(Band.RESTRICTED), grant(), request())
    postures.hold(stood(Band.WATCH), grant(), request(tools=True))
    postures.hold(stood(Band.RESTRICTED, followed=False), grant(), request(tools=True))
    postures.hold(None, grant(), request(tools=True))


@pytest.mark.parametrize(
    ("scope", "left"), [((), {"a", "b"}), (("a", "c"), {"a"}), (("c",), set())], ids=["all", "some", "none"]
)
def test_a_band_narrows_what_a_key_reaches_and_never_widens_it(scope: tuple[str, ...], left: set[str]) -> None:
    postures = bands(restricted={"experts": ["a", "b"]})
    held, _ = postures.hold(stood(Band.RESTRICTED), grant(*scope), request())
    assert held.scope.experts == frozenset(left)


def test_only_observed_nothing_follows() -> None:
    postures = bands(mode="observe")
    assert postures.counts
    assert postures.band(0.1, 0.1, Band.OPEN) == (Band.RESTRICTED, False)
    assert postures.at_door(0.1, Band.OPEN) is None


def test_off_nothing_is_counted() -> None:
    assert not bands(mode="off").counts
    assert not ALL_OPEN.counts


@pytest.mark.parametrize(
    ("of", "key", "conversation", "band"),
    [
        ("both", 0.9, 0.1, Band.RESTRICTED),
        ("both", 0.1, 0.9, Band.RESTRICTED),
        ("key", 0.9, 0.1, Band.OPEN),
        ("conversation", 0.1, 0.9, Band.OPEN),
    ],
)
def test_whose_standing_counts_is_for_policy_to_say(of: str, key: float, conversation: float, band: Band) -> None:
    assert bands(of=of).band(key, conversation, Band.OPEN) == (band, True)


def test_what_the_loop_imposes_counts_only_where_policy_lets_it() -> None:
    quiet = version(standing={"mode": "observe"}, ooda={"mode": "on"}).bands_for("t")
    assert quiet.band(0.9, 0.9, Band.WATCH) == (Band.WATCH, True)
    assert quiet.band(0.1, 0.9, Band.OPEN) == (Band.RESTRICTED, False)
    observing = bands()
    assert observing.band(0.9, 0.9, Band.WATCH) == (Band.OPEN, True)


def test_the_door_takes_the_bands_request_limit() -> None:
    postures = bands(restricted={"requests_per_minute": 3})
    assert postures.at_door(0.1, Band.OPEN) == 3
    assert postures.at_door(0.9, Band.OPEN) is None


def test_a_tenant_may_have_bands_of_its_own() -> None:
    policy = version(standing={"mode": "on"}, tenants={"lab": {"standing": {"mode": "off"}}})
    assert policy.bands_for("t").follows
    assert not policy.bands_for("lab").counts


def test_turns_are_read_together_in_every_band_unless_policy_says_none() -> None:
    assert all(isinstance(posture.screen.runner, TurnRunner) for posture in bands().by_band)
    off = version(turns={"last": 0}).bands_for("t")
    assert not any(isinstance(posture.screen.runner, TurnRunner) for posture in off.by_band)


@pytest.mark.parametrize(
    ("policy", "key"),
    [
        ({"standing": {"watch": {"experts": ["fats"]}}}, "policy.standing.watch.experts[0]"),
        (
            {"tenants": {"lab": {"standing": {"restricted": {"experts": ["fast", "fats"]}}}}},
            "policy.tenants.lab.standing.restricted.experts[1]",
        ),
    ],
    ids=["for all", "for a tenant"],
)
def test_a_band_that_names_an_unknown_expert_is_a_mistake(policy: dict[str, Any], key: str) -> None:
    (problem,) = cross_check(policy, ["fast"], lambda _: "c.yaml:1")
    assert problem.key == key
    assert "did you mean 'fast'?" in problem.message


@pytest.mark.parametrize(
    "wrong",
    [
        {"standing": {"mode": "maybe"}},
        {"standing": {"watch": {"block": ["nothing"]}}},
        {"standing": {"watch": {"threshold_factor": 0}}},
        {"standing": {"restricted": {"experts": []}}},
        {"ooda": {"blocked": 1}},
        {"ooda": {"every_s": 0}},
        {"turns": {"last": 100}},
        {"turns": {"crescendo": {"topics": {"x": ["one example"]}}}},
        {"turns": {"crescendo": {"topics": {"Not a name": ["a", "b", "c", "d"]}}}},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PolicyDocument.model_validate(wrong)
