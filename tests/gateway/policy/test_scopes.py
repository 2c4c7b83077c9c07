"""What a key that is bound to scopes reaches, and that nothing on the way of a call ever widens it."""

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.access.tags import tagged
from conclave.gateway.api.chat import parse
from conclave.gateway.call import Call
from conclave.gateway.errors import ConclaveError, ExpertFailed, Forbidden, InvalidRequest
from conclave.gateway.experts.pool import Deployment, Pool, PoolEntry
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.policy.scopes import Permissions, compiled, tools_of
from conclave.gateway.testing import FakeExpert
from conclave.router.api import Classification
from conclave.router.conversation import IN_LOOP, STAYS

EXPERTS = ("a", "b", "c", "d")
TOOLS = ("search", "shell", "mail")
SCOPES = ("code.read", "code.synth", "law.synth", "ops.synth")


def permissions(**scopes: Any) -> Permissions:
    known = {name.replace("_", "."): said for name, said in scopes.items()}
    return compiled(PolicyDocument.model_validate({"scopes": known}).scopes)


def offer(*names: str, **more: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": name}} for name in names], **more}


KNOWN = permissions(
    code_read={"experts": ["a", "b"]},
    code_synth={"experts": ["b", "c"], "tools": ["search"], "expert_masks": {"b": [0, 2]}},
    ops_synth={"experts": ["d"], "tools": ["shell"]},
    any_synth={},
)
BOUND = Scope(None, ("code.read", "code.synth", "ops.synth"))


def reached(scope: Scope, body: dict[str, Any]) -> str:
    """The experts that are left, as one word, or what refused the request."""
    try:
        left = KNOWN.granted(scope, body).experts
    except Forbidden as error:
        return error.code or ""
    return "all" if left is None else "".join(sorted(left))


@pytest.mark.parametrize(
    ("scope", "body", "left"),
    [
        (Scope(), {}, "all"),
        (Scope(), offer("shell"), "all"),
        (Scope(frozenset("ab")), {}, "ab"),
        (BOUND, {}, "abcd"),
        (BOUND, offer("search"), "bc"),
        (BOUND, offer("shell"), "d"),
        (BOUND, offer("search", "shell"), "outside_scope"),
        (BOUND, offer("mail"), "outside_scope"),
        (Scope(frozenset("cd"), BOUND.named), offer("search"), "c"),
        (Scope(frozenset("a"), BOUND.named), offer("search"), ""),
        (BOUND, {"conclave": {"scope": "code.read"}}, "ab"),
        (BOUND, offer("search", conclave={"scope": "code.read"}), "outside_scope"),
        (BOUND, {"conclave": {"scope": "any.synth"}}, "outside_scope"),
        (Scope(), {"conclave": {"scope": "code.read"}}, "ab"),
        (Scope(frozenset("bd")), {"conclave": {"scope": "code.read"}}, "b"),
        (Scope(), {"conclave": {"scope": "no.synth"}}, "outside_scope"),
        (Scope(None, ("gone.synth",)), {}, "outside_scope"),
        (Scope(None, ("gone.synth", "code.read")), {}, "ab"),
        (Scope(None, ()), {}, "outside_scope"),
        (Scope(None, ("any.synth",)), offer("mail", "shell"), "all"),
    ],
)  # fmt: skip
def test_a_request_gets_what_one_scope_of_its_key_allows_whole(scope: Scope, body: dict[str, Any], left: str) -> None:
    assert reached(scope, body) == left


@pytest.mark.parametrize("field", ["models", "fallbacks"])
@pytest.mark.parametrize("scope", [BOUND, Scope(frozenset("ab"))], ids=["scopes", "experts"])
def test_a_bound_key_cannot_have_a_provider_ask_another_model(field: str, scope: Scope) -> None:
    """The expert is fixed; a provider that routes itself would be told otherwise by the body."""
    assert reached(scope, {field: ["somebody/dearer"]}) == "outside_scope"
    assert reached(Scope(), {field: ["somebody/dearer"]}) == "all"


def test_two_scopes_never_make_a_third_that_has_the_experts_of_one_and_the_tools_of_the_other() -> None:
    assert "a" not in reached(BOUND, offer("search"))
    assert "b" not in reached(BOUND, offer("shell"))


def test_the_inner_experts_of_a_local_model_are_those_of_the_first_scope_that_reaches_it() -> None:
    assert KNOWN.granted(BOUND, {}).masks == {}  # code.read reaches b without a mask
    assert KNOWN.granted(BOUND, offer("search")).masks == {"b": (0, 2)}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, set()),
        ({"tools": []}, set()),
        (offer("search", "mail"), {"search", "mail"}),
        ({"functions": [{"name": "old"}]}, {"old"}),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, {"c"}),
        ({"tools": [{"type": "web_search", "name": "search"}]}, {"web_search", "search"}),
        ({"tools": [{"type": "mcp", "server_url": "https://x"}]}, {"mcp"}),
        ({"tools": [{"name": "anthropic_style"}]}, {"anthropic_style"}),
        ({"tools": [{"type": "function", "function": {"name": "good"}, "name": "evil"}]}, {"good", "evil"}),
        ({"tools": [{"type": "function"}, {}, "x", None, 7, {"function": {"name": ["l"]}}]}, {"?"}),
        ({"tools": {"type": "function"}}, {"?"}),
        ({"web_search_options": {}, "mcp_servers": [{}]}, {"web_search", "mcp_servers"}),
        ({"enable_search": True, "compound_custom": {"tools": {}}}, {"web_search", "compound_custom"}),
        ({"data_sources": [{"type": "azure_search"}]}, {"data_sources"}),
        ({"enable_search": False, "web_search": None}, set()),
    ],
)  # fmt: skip
def test_every_way_to_offer_a_tool_counts(body: dict[str, Any], names: set[str]) -> None:
    assert tools_of(body) == names


@pytest.mark.parametrize("wanted", ["", 7, ["code.read"], {"name": "code.read"}, True])
def test_what_is_no_name_of_a_scope_is_refused(wanted: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"conclave\.scope"):
        KNOWN.granted(Scope(), {"conclave": {"scope": wanted}})


@pytest.mark.parametrize(
    ("scopes", "words"),
    [
        ({"code": {}}, "pattern"),
        ({"code.eval": {}}, "pattern"),
        ({"code.cross": {}}, "pattern"),
        ({"Code.READ": {}}, "pattern"),
        ({"code.read": {"tools": ["search"]}}, "the right read has no tools"),
        ({"code.synth": {"experts": []}}, "at least 1"),
        ({"code.synth": {"experts": ["a"], "expert_masks": {"b": [1]}}}, "not among"),
        ({"code.synth": {"expert_masks": {"a": []}}}, "at least 1"),
        ({"code.synth": {"expert_masks": {"a": [-1]}}}, "greater than or equal to 0"),
        ({"code.synth": {"indices": ["x"]}}, "extra"),
    ],
)  # fmt: skip
def test_what_no_scope_can_be_is_refused(scopes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PolicyDocument.model_validate({"scopes": scopes})


@dataclass(frozen=True)
class Head:
    authorization: str | None = None
    source: str = "127.0.0.1"
    origin: str | None = None
    host: str | None = None
    envelope: str | None = None


@dataclass
class Source:
    body: bytes
    head: Head = field(default_factory=Head)
    gone: bool = False

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        del max_bytes, timeout_s
        return self.body


class Bound:
    """Admits everybody under one scope."""

    def __init__(self, scope: Scope, tenant: str) -> None:
        self.grant = Grant(tenant, "k", scope, deadline_s=1e12)

    async def admit(self, _: object) -> Grant:
        return self.grant


def some(dice: random.Random, names: tuple[str, ...], least: int = 1) -> list[str]:
    return dice.sample(names, dice.randint(least, len(names)))


def any_policy(dice: random.Random) -> dict[str, Any]:
    """Rows, aliases, a cascade, an A/B test, tenants and scopes, as they fall."""
    known = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "capabilities": ["tools", "logprobs"]}
    routing: dict[str, Any] = {}
    if dice.random() < 0.5:
        weak, strong = dice.sample(EXPERTS, 2)
        routing["cascade"] = {"weak": weak, "strong": strong, "below": 0.99, "without_evidence": "escalate"}
    if dice.random() < 0.5:
        routing["split"] = {"name": "other", "share": 0.5, "categories": {"code": some(dice, EXPERTS)}}
    if dice.random() < 0.3:
        routing["pins"] = {"math": dice.choice(EXPERTS)}
    scopes = {}
    for name in some(dice, SCOPES):
        tools = None if dice.random() < 0.3 or name.endswith("read") else some(dice, TOOLS)
        scopes[name] = {"experts": None if dice.random() < 0.2 else some(dice, EXPERTS), "tools": tools}
    return {
        "experts": dict.fromkeys(dice.sample(EXPERTS, len(EXPERTS)), known),
        "categories": {"code": some(dice, EXPERTS)},
        "default": some(dice, EXPERTS),
        "aliases": {"gpt": dice.choice([*EXPERTS, "auto", "auto:cheap"])},
        "routing": routing,
        "tenants": {"t": {"experts": some(dice, EXPERTS)}} if dice.random() < 0.4 else {},
        "scopes": scopes,
    }


def any_request(dice: random.Random) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"question {dice.randrange(3)}"}]
    if dice.random() < 0.4:  # the conversation goes on, perhaps where a tool was called
        calls = [{"id": "call_1", "type": "function", "function": {"name": dice.choice(TOOLS), "arguments": "{}"}}]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        messages.append({"role": "tool", "tool_call_id": "call_1", "content": "done"})
        if dice.random() < 0.5:
            messages += [{"role": "assistant", "content": "well"}, {"role": "user", "content": "shorter"}]
    body: dict[str, Any] = {"model": dice.choice(["auto", "auto", "auto:best", "gpt", *EXPERTS]), "messages": messages}
    if dice.random() < 0.5:
        body |= offer(*some(dice, TOOLS))
    if dice.random() < 0.3:
        body["conclave"] = {"scope": dice.choice(SCOPES)}
    body["stream"] = dice.random() < 0.5
    return body


def may(policy: dict[str, Any], scope: Scope, body: dict[str, Any], expert: str) -> bool:
    """The claim, in its plainest words: one scope of the key allows this expert with all of these tools."""
    offered = {tool["function"]["name"] for tool in body.get("tools", [])}
    wanted = body.get("conclave", {}).get("scope")
    names = [name for name in scope.named or [wanted] if name in policy["scopes"] and wanted in (None, name)]
    for name in names:
        said = policy["scopes"][name]
        tools = [] if name.endswith(".read") else said["tools"]
        if (said["experts"] is None or expert in said["experts"]) and (tools is None or offered <= set(tools)):
            break
    else:
        if scope.named is not None or wanted is not None:
            return False
    mine = scope.experts is None or expert in scope.experts
    return mine and expert in policy["tenants"].get("t", {}).get("experts", EXPERTS)


async def test_no_expert_and_no_tool_outside_the_scope_is_ever_reached() -> None:
    """600 policies, 6 calls each under two keys of a tenant that share conversations; experts fail as they fall."""
    dice = random.Random(20_261_122)
    seen: Counter[str] = Counter()
    for _ in range(600):
        policy = any_policy(dice)
        down = ExpertFailed("no", kind="connect")
        experts = {
            name: FakeExpert(name, answer="x", failure=down if dice.random() < 0.3 else None) for name in EXPERTS
        }
        pool = Pool({name: PoolEntry([Deployment("one", one)], transport_retries=0) for name, one in experts.items()})
        sure = Classification("code", 0.9, False, {"code": 0.9, "math": 0.1})
        unsure = Classification("math", 0.6, True, {"math": 0.6, "code": 0.4})
        version = Version(
            PolicyDocument.model_validate(policy),
            pool,
            classify=lambda _, both=(sure, unsure): dice.choice(both),
            model_digest="d",
        )
        keys = [
            Scope(
                frozenset(some(dice, EXPERTS)) if dice.random() < 0.3 else None,
                None if dice.random() < 0.2 else tuple(some(dice, SCOPES)),
            )
            for _ in range(2)
        ]
        pipeline = Pipeline(
            access=Bound(keys[0], "t"), policy=Published(version), record=lambda _: None, digest_key=b"k"  # type: ignore[arg-type]
        )  # fmt: skip
        for number in range(6):
            scope, body = keys[number % 2], any_request(dice)
            object.__setattr__(pipeline, "access", Bound(scope, "t"))
            before = {name: len(one.asked) for name, one in experts.items()}
            call = Call("r", Source(json.dumps(body).encode()), tagged(parse, None), datetime.now(UTC), 0.0)
            try:
                async for _ in pipeline.answer(call):
                    pass
                seen["answered"] += 1
            except ConclaveError as error:
                seen[type(error).__name__] += 1
            for name, one in experts.items():
                for prompt in one.asked[before[name] :]:
                    assert may(policy, scope, body, name), (policy, scope, body, name)
                    assert prompt.body.get("tools") == body.get("tools")
                    seen["asked"] += 1
            if call.decision is not None:
                assert all(may(policy, scope, body, step.expert) for step in call.decision.steps)
                seen[call.decision.reason] += 1
                seen["second opinion"] += bool(call.escalated)
                seen["arm"] += call.rules is not None and call.rules.arm == "other"
    assert seen["answered"] > 500
    assert seen["Forbidden"] > 500
    assert seen["asked"] > seen["answered"]  # fallbacks and second experts among them
    ways = ("named", "category", "detour", "cheapest", "best", IN_LOOP, STAYS, "second opinion", "arm")
    assert all(seen[way] for way in ways), seen


def test_a_list_of_models_shows_what_some_request_could_reach() -> None:
    known = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
    document = PolicyDocument.model_validate(
        {"experts": dict.fromkeys(EXPERTS, known), "default": ["a"], "scopes": {"code.read": {"experts": ["b"]}}}
    )
    rules = Version(document, Pool({}), classify=lambda _: None, model_digest="d").rules_for("t")  # type: ignore[arg-type, return-value]
    virtual = ["auto", "auto:cheap", "auto:best"]
    assert rules.models(Scope(None, ("code.read",))) == [*virtual, "b"]
    assert rules.models(Scope(None, ("gone.read",))) == virtual
    assert rules.models(Scope()) == [*virtual, *EXPERTS]


READS = permissions(
    hr_read={"tags": ["hr"]},
    law_read={"tags": ["law", "hr"], "collections": ["law", "wiki"]},
    wiki_read={"collections": ["wiki", "default"]},
    none_read={"tags": [], "collections": []},
)


@pytest.mark.parametrize(
    ("named", "wanted", "tags", "collections"),
    [
        (("hr.read",), None, {"hr"}, None),
        (("law.read",), None, {"law", "hr"}, {"law", "wiki"}),
        (("hr.read", "law.read"), None, {"hr"}, {"law", "wiki"}),
        (("law.read", "wiki.read"), None, {"law", "hr"}, {"wiki"}),
        (("law.read", "wiki.read"), "wiki.read", None, {"wiki", "default"}),
        (("hr.read", "none.read"), None, set(), set()),
        (None, "hr.read", {"hr"}, None),
        (None, None, None, None),
    ],
)
def test_documents_are_those_that_each_of_the_scopes_allows(
    named: tuple[str, ...] | None, wanted: str | None, tags: set[str] | None, collections: set[str] | None
) -> None:
    body = {"conclave": {"scope": wanted}} if wanted else {}
    left = READS.granted(Scope(None, named), body)
    assert (left.tags, left.collections) == (tags, collections)


@pytest.mark.parametrize(
    "said", [{"tags": ["a b"]}, {"tags": "hr"}, {"collections": [""]}, {"collections": [7]}], ids=str
)
def test_a_name_of_documents_that_is_none_is_refused(said: Any) -> None:
    with pytest.raises(ValidationError):
        PolicyDocument.model_validate({"scopes": {"code.read": said}})
