"""Whatever the policy, the request and the key: never an expert out of reach, never one that cannot."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.access.scope import Scope
from conclave.gateway.call import ModelRequest, Operation
from conclave.gateway.errors import Forbidden, Unsupported
from conclave.gateway.experts.catalog import Capability
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.part import CATEGORIES, VIRTUAL_MODELS
from conclave.gateway.policy.published import Version
from conclave.router.api import Classification, Decision

NAMES = ("a", "b", "c", "d", "quoting", "encoder")
capability = st.sampled_from(get_args(Capability))
expert = st.fixed_dictionaries(
    {"base_url": st.just("http://127.0.0.1:1/v1"), "model": st.sampled_from(["gpt-4o", "unknown"])},
    optional={
        "capabilities": st.lists(capability, unique=True),
        "quality": st.floats(0, 1),
        "price": st.fixed_dictionaries({"input": st.floats(0, 10), "output": st.floats(0, 10)}),
    },
)
row = st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True)
policy = st.fixed_dictionaries(
    {
        "experts": st.fixed_dictionaries(dict.fromkeys(NAMES[:4], expert)),
        "stages": st.fixed_dictionaries({"route": st.sampled_from(["on", "observe", "off"])}),
        "categories": st.dictionaries(st.sampled_from(CATEGORIES[:4]), row, max_size=4),
        "default": st.lists(st.sampled_from(NAMES), max_size=5, unique=True),
        "tenants": st.fixed_dictionaries(
            {"t": st.fixed_dictionaries({}, optional={"experts": row})},
        ),
    }
)
scope = st.builds(Scope, st.none() | st.frozensets(st.sampled_from(NAMES)))
needs = st.frozensets(capability, max_size=3)
model = st.sampled_from([*VIRTUAL_MODELS, *NAMES])
classified = st.builds(
    Classification,
    category=st.sampled_from(CATEGORIES[:6]),
    confidence=st.floats(0, 1),
    unsure=st.booleans(),
    probabilities=st.just({}),
)


task = st.tuples(st.sampled_from(get_args(Operation)), needs)


@given(policy=policy, scope=scope, task=task, model=model, said=classified)
def test_no_decision_leaves_the_reach_or_asks_for_what_an_expert_lacks(
    policy: dict[str, Any],
    scope: Scope,
    task: tuple[Operation, frozenset[str]],
    model: str,
    said: Classification,
) -> None:
    operation, needs = task
    document = complete(PolicyDocument.model_validate(policy), {})
    rules = Version(document, Pool({}), classify=lambda _: said, model_digest="").rules_for("t")
    own = document.tenants["t"].experts
    body = {"messages": [{"role": "user", "content": "x"}], "input": "x", "prompt": "x"}
    if operation in ("embeddings", "moderations"):
        needs |= {operation}
    request = ModelRequest(body, model, stream=False, include_usage=False, needs=needs, operation=operation)
    ways = {operation, "chat"} if operation == "completions" else {operation}

    def decide() -> Decision:
        return rules.decide(request, rules.read(request), scope)

    reach = {name for name in NAMES if scope.reaches(name) and (own is None or name in own)}
    able = {
        name for name in reach if needs <= rules.experts[name].capabilities and ways & rules.experts[name].capabilities
    }
    candidates = able if model in VIRTUAL_MODELS else able & {model}
    if not candidates:
        with pytest.raises((Forbidden, Unsupported)):
            decide()
        return
    decision = decide()
    asked = [step.expert for step in decision.steps]
    assert asked
    assert set(asked) <= candidates
    assert len(asked) == len(set(asked))
    assert decision == decide()
    assert len(asked) == 1 or operation != "embeddings"
