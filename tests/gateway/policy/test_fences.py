"""The policy's fences: for all, for one tenant, and what a caller may declare of its own texts."""

from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import InvalidRequest
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Version
from conclave.router.api import Classification

SURE = Classification("math", 0.9, False, {"math": 0.9, "law": 0.1})
RESULT = {"role": "tool", "tool_call_id": "1", "content": "it i\u200bs warm"}


def sent(policy: dict[str, Any], *, tenant: str = "t", origins: Any = None, text: str = "what?") -> tuple[str, str]:
    """The texts of the user and of the tool, as an expert is sent them."""
    version = Version(PolicyDocument.model_validate(policy), Pool({}), classify=lambda _: SURE, model_digest="d")
    rules = version.rules_for(tenant)
    body = {"model": "auto", "messages": [{"role": "user", "content": text}, RESULT], "conclave": {"origins": origins}}
    request = ModelRequest(body, "auto", False, False, frozenset())
    messages = rules.fence(request, rules.read(request), b"k").body["messages"]
    return messages[-2]["content"], messages[-1]["content"]


def test_by_default_data_is_delimited_and_stripped_and_users_texts_are_as_written() -> None:
    user, tool = sent({}, text="a\u200bb")
    assert user == "a\u200bb"
    assert tool.startswith("<conclave-quoted-")
    assert tool.splitlines()[1] == "it is warm"


@pytest.mark.parametrize(
    ("fences", "tool"),
    [
        ({"mode": "off"}, "it is warm"),
        ({"mode": "off", "strip": "off"}, "it i\u200bs warm"),
        ({"mode": "mark"}, "it\u00a6is\u00a6warm"),
        ({"mode": "mark", "mark": "~"}, "it~is~warm"),
    ],
    ids=["off", "not even stripped", "marked", "a sign of one's own"],
)
def test_each_mode_does_what_it_says(fences: dict[str, str], tool: str) -> None:
    assert tool in sent({"fences": fences})[1]


def test_a_tenant_may_have_fences_of_its_own() -> None:
    policy = {"fences": {"strip": "off"}, "tenants": {"acme": {"fences": {"mode": "off"}}}}
    assert sent(policy, tenant="acme")[1] == "it i\u200bs warm"  # what it does not say is as for all
    assert "it i\u200bs warm" in sent(policy)[1].splitlines()


def test_what_the_caller_declares_is_fenced() -> None:
    user, _ = sent({}, origins={"messages[0].content": "file"})
    assert user.splitlines()[0].endswith('from="file">')


@pytest.mark.parametrize("origins", [{"messages[5].content": "file"}, {"messages[0].content": "system"}, [], "file"])
def test_a_wrong_declaration_is_a_400_that_says_where(origins: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent({}, origins=origins)
    assert (refused.value.status, refused.value.param) == (400, "conclave.origins")


@pytest.mark.parametrize(
    "fences",
    [{"mode": "on"}, {"mark": "ab"}, {"mark": "a"}, {"mark": " "}, {"mark": ""}, {"strip": "user"}, {"nonce": 1}],
    ids=["mode", "two signs", "a letter", "a space", "nothing", "strip", "unknown"],
)
def test_fences_that_cannot_be_meant_are_refused(fences: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PolicyDocument.model_validate({"fences": fences})
