"""What the record keeps of a decision is enough to decide again, bit for bit, and a change of it is noticed."""

from collections.abc import Callable
from dataclasses import replace
from math import fsum
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conclave.gateway.access.scope import Scope
from conclave.gateway.call import ModelRequest, Operation
from conclave.gateway.errors import ConclaveError
from conclave.gateway.experts.catalog import Capability
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.asked import Asked
from conclave.gateway.policy.canonical import canonical, document_of
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.overlay import CONTROL
from conclave.gateway.policy.part import CATEGORIES, VIRTUAL_MODELS
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.recorded import Change, IncompleteError, again, as_row, asked_of, basis_of
from conclave.gateway.policy.rules import Rules
from conclave.router.api import Classification, LookUp, Talk, Turn

NAMES = ("a", "b", "c", "quoting")
URL = "http://127.0.0.1:1/v1"
capability = st.sampled_from(get_args(Capability))
names = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
expert = st.fixed_dictionaries(
    {"base_url": st.just(URL), "model": st.sampled_from(["gpt-4o", "unknown"])},
    optional={
        "capabilities": st.lists(capability, unique=True).map(lambda found: ["chat", *found]),
        "quality": st.floats(0, 1),
        "price": st.fixed_dictionaries({"input": st.floats(0, 10), "output": st.floats(0, 10)}),
    },
)
overlay = st.fixed_dictionaries(
    {}, optional={"categories": st.dictionaries(st.sampled_from(CATEGORIES[:4]), names), "default": names}
)
score = st.fixed_dictionaries({"score": st.floats(0, 1), "error": st.floats(0, 0.2), "rows": st.integers(1, 99)})
scores = st.dictionaries(st.sampled_from(CATEGORIES[:4]), st.dictionaries(st.sampled_from(NAMES), score, min_size=1))
policy = st.fixed_dictionaries(
    {
        "experts": st.fixed_dictionaries(dict.fromkeys(NAMES[:3], expert)),
        "stages": st.fixed_dictionaries({"route": st.sampled_from(["on", "on", "observe", "off"])}),
        "categories": st.dictionaries(st.sampled_from(CATEGORIES[:4]), names, max_size=4),
        "default": names,
        "aliases": st.just({"gpt-4": "auto", "big": "b"}),
        "routing": st.fixed_dictionaries(
            {},
            optional={
                "split": st.builds(lambda o, share: {"name": "trial", "share": share, **o}, overlay, st.floats(0, 1)),
                "scores": scores,
                "cascade": st.fixed_dictionaries(
                    {"below": st.floats(0, 1)},
                    optional={
                        "weak": st.sampled_from(NAMES),
                        "categories": st.lists(st.sampled_from(CATEGORIES[:4]), unique=True),
                    },
                ),
                "conversation": st.fixed_dictionaries({"handoff": st.floats(0, 1), "stick": st.booleans()}),
                "unsure": st.fixed_dictionaries({"below": st.floats(0, 1)}),
            },
        ),
        "tenants": st.fixed_dictionaries({"t": st.fixed_dictionaries({}, optional={"experts": names})}),
    }
)


@st.composite
def classifications(draw: st.DrawFn) -> Classification:
    """With all the digits of a real one."""
    weights = draw(st.lists(st.floats(1e-9, 1), min_size=len(CATEGORIES), max_size=len(CATEGORIES)))
    total = fsum(weights)
    found = {name: weight / total for name, weight in zip(CATEGORIES, weights, strict=True)}
    best = max(found, key=lambda name: found[name])
    return Classification(best, found[best], draw(st.booleans()), found)


def as_live(inputs: Asked) -> Asked:
    """A live call classifies nothing for an embedding or a named expert."""
    by_category = inputs.operation in ("chat", "completions") and inputs.model in (*VIRTUAL_MODELS, "gpt-4")
    return inputs if by_category else replace(inputs, found=None, talk=Talk())


look_up = st.builds(
    LookUp,
    mode=st.sampled_from(["auto", "always", "required"]),
    now=st.booleans(),
    if_unsure=st.booleans(),
    reason=st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace").decode()),
    **dict.fromkeys(("probability", "p_wrong", "p_fix", "p_harm"), st.floats(0, 1)),
    **dict.fromkeys(("value", "threshold", "saving"), st.floats(-2000, 2000)),
)
turn = st.builds(Turn, st.floats(0, 1), st.sampled_from(CATEGORIES), st.booleans())
asked = st.builds(
    Asked,
    model=st.sampled_from([*VIRTUAL_MODELS, "gpt-4", "big", *NAMES]),
    operation=st.sampled_from(get_args(Operation)),
    needs=st.frozensets(capability, max_size=2),
    reach=st.none() | st.frozensets(st.sampled_from(NAMES)),
    found=st.none() | classifications(),
    talk=st.builds(Talk, st.none() | st.sampled_from(NAMES), st.booleans(), st.lists(turn, max_size=2).map(tuple)),
    look_up=st.none() | look_up,
).map(as_live)


def version(document: PolicyDocument, model_digest: str = "m" * 64) -> Version:
    def never(_: str) -> Classification:
        raise AssertionError("a replay has no text")

    return Version(document, Pool({}), classify=never, model_digest=model_digest)


def written(rules: Rules, inputs: Asked) -> dict[str, Any]:
    """The row as it stands in the journal: canonical JSON, sorted keys."""
    decision = as_row(rules.choose(inputs), inputs, rules.arm, rules.basis)
    row = {"model": inputs.model, "operation": inputs.operation, "tenant": "t", "decision": decision}
    return msgspec.json.decode(msgspec.json.encode(row, order="sorted"), type=dict[str, Any])


@settings(max_examples=80, deadline=None)  # a policy with scores is solved anew: up to 0.1 s on a busy core
@given(policy=policy, inputs=asked, conversation=st.text(max_size=3))
def test_a_recorded_decision_comes_out_the_same_under_the_stored_policy(
    policy: dict[str, Any], inputs: Asked, conversation: str
) -> None:
    """Whatever the policy, the request, the key, the conversation and the classification."""
    document = complete(PolicyDocument.model_validate(policy), {})
    rules = version(document).rules_for("t")
    if rules.arms is not None:
        rules = rules.arms.of("t", conversation)
    try:
        row = written(rules, inputs)
    except ConclaveError:
        assume(False)
    stored = version(document_of(canonical(document)), model_digest="").rules_for("t")
    assert stored.basis == version(document).rules_for("t").basis
    assert again(stored, row) == []
    assert asked_of(row) == inputs


@pytest.fixture
def rules(publish: Callable[..., Version]) -> Rules:
    return publish().rules_for("any")


@pytest.fixture
def inputs(classifier: Any) -> Asked:
    return Asked("auto", "chat", frozenset(), None, classifier.says)


def test_what_differs_is_named_with_both_sides(rules: Rules, inputs: Asked) -> None:
    row = written(rules, inputs)
    changed = replace(rules, table=replace(rules.table, rows={"code": ("fast",)}))
    (change,) = again(changed, row)
    assert change == Change("steps", row["decision"]["steps"], [{"expert": "fast", "reason": "category"}])


def test_what_conclave_itself_comes_to_otherwise_is_no_difference(rules: Rules, inputs: Asked) -> None:
    """Prices of the catalog, or the table that the solver made: the policy did not say them."""
    row = written(rules, inputs)
    table = replace(rules.table, rows={"code": ("fast",)})
    moved = replace(rules, table=table, basis=basis_of(rules.experts, table))
    with pytest.raises(IncompleteError, match="comes to others"):
        again(moved, row)
    nobody = {name: replace(one, capabilities=frozenset({"embeddings"})) for name, one in rules.experts.items()}
    with pytest.raises(IncompleteError, match="comes to others"):
        again(replace(rules, experts=nobody, basis=basis_of(nobody, rules.table)), row)
    with pytest.raises(ConclaveError):  # what the row names as its basis is what there is
        again(replace(rules, experts=nobody), row)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": None},
        {"steps": [{"expert": 7}]},
        {"needs": "audio"},
        {"probabilities": {"code": "much"}},
        {"confidence": None},
        {"talk": []},
        {"arm": {}},
    ],
    ids=str,
)
def test_a_row_of_another_shape_says_so(rules: Rules, inputs: Asked, change: dict[str, Any]) -> None:
    row = written(rules, inputs)
    row["decision"] |= change
    with pytest.raises(IncompleteError, match="not as Conclave writes it"):
        again(rules, row)


def test_of_equal_categories_the_runner_up_is_the_same_in_whatever_order_they_stand(rules: Rules) -> None:
    """A category of the policy's own stands last in a live call, and where its name says in the record."""
    found = Classification("code", 0.5, unsure=False, probabilities={"code": 0.5, "law": 0.25, "a_own": 0.25})
    inputs = Asked("auto", "chat", frozenset(), None, found)
    assert again(rules, written(rules, inputs)) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("reason", "unsure"), ("row", "default"), ("confidence", 0.9000000000000001), ("category", "law")],
)
def test_a_row_that_was_changed_does_not_come_out_the_same(rules: Rules, inputs: Asked, key: str, value: Any) -> None:
    row = written(rules, inputs)
    row["decision"][key] = value
    changed = again(rules, row)
    if key == "confidence":  # an input of the choice: it is taken as recorded
        assert changed == []
    else:
        assert changed


def test_a_row_of_an_older_conclave_says_what_it_lacks(rules: Rules, inputs: Asked) -> None:
    row = written(rules, inputs)
    del row["decision"]["needs"]
    with pytest.raises(IncompleteError, match="older Conclave"):
        again(rules, row)
    with pytest.raises(IncompleteError, match="before an expert was chosen"):
        again(rules, {**row, "decision": None})


def test_an_arm_is_replayed_under_its_own_rules(publish: Callable[..., Version], inputs: Asked) -> None:
    version = publish(routing={"split": {"name": "cheap", "share": 0.5, "categories": {"code": ["free"]}}})
    rules = version.rules_for("any")
    assert rules.arms is not None
    for arm, expert in ((CONTROL, "strong"), ("cheap", "free")):
        chosen = rules.arms.named(arm)
        assert chosen is not None
        row = written(chosen, inputs)
        assert row["decision"]["steps"][0]["expert"] == expert
        assert again(rules, row) == []
        assert again(rules, {**row, "decision": {**row["decision"], "arm": "cheap" if arm == CONTROL else CONTROL}})
    with pytest.raises(IncompleteError, match="no arm 'gone'"):
        again(rules, {**row, "decision": {**row["decision"], "arm": "gone"}})


def test_the_request_is_classified_once_and_only_where_a_category_counts(
    publish: Callable[..., Version], ask: Callable[..., ModelRequest], classifier: Any
) -> None:
    rules = publish().rules_for("any")
    for model, times in (("auto", 1), ("strong", 1), ("gpt-4o", 2)):
        request = ask(model=model)
        rules.asked(request, rules.read(request), Scope())
        assert len(classifier.asked) == times


def test_another_look_up_is_another_decision(rules: Rules, inputs: Asked) -> None:
    now = LookUp("auto", now=True, if_unsure=True, reason="r", value=0.1)
    row = written(rules, replace(inputs, look_up=now))
    assert row["decision"]["look_up"]["value"] == 0.1
    assert all(step["look_up"] for step in row["decision"]["steps"])
    assert again(rules, row) == []
    row["decision"]["look_up"]["now"] = row["decision"]["look_up"]["if_unsure"] = False
    assert [change.path for change in again(rules, row)] == ["steps"]


def test_a_row_without_a_look_up_says_nothing_of_one(rules: Rules, inputs: Asked) -> None:
    decision = written(rules, inputs)["decision"]
    assert "look_up" not in decision
    assert all("look_up" not in step for step in decision["steps"])
