"""What differs between two versions, line by line; and a version as a file that means the same."""

from typing import Any

import pytest
import yaml

from conclave.gateway.policy.canonical import canonical, digest_of, document_of, plain_of
from conclave.gateway.policy.difference import as_yaml, differences
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.source import parse_source

A = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
B = {"base_url": "http://127.0.0.1:2/v1", "model": "n"}


def plain(**parts: Any) -> dict[str, Any]:
    return plain_of(canonical(complete(PolicyDocument.model_validate({"experts": {"a": A, "b": B}} | parts), {})))


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param({"name": "x"}, ['~ name: "default" -> "x"'], id="a-value"),
        pytest.param({"default": ["b", "a"]}, ['~ default: ["a", "b"] -> ["b", "a"]'], id="a-row"),
        pytest.param({"categories": {"code": ["b"]}}, ['+ categories.code: ["b"]'], id="a-new-row"),
        pytest.param(
            {"experts": {"a": A | {"price": {"input": 1, "output": 2}}, "b": B}},
            ["+ experts.a.price.input: 1.0", "+ experts.a.price.output: 2.0"],
            id="a-value-that-became-a-group",
        ),
        pytest.param(
            {"experts": {"b": B, "a": A}, "default": ["a", "b"]},
            ['~ the order of experts: ["a", "b", "quoting", "encoder"] -> ["b", "a", "quoting", "encoder"]'],
            id="the-order-alone",
        ),
        pytest.param(
            {"tenants": {"t": {"limits": {"requests_per_minute": None}}}},
            ["+ tenants.t.limits.requests_per_minute: null"],
            id="a-tenants-null-says-something",
        ),
        pytest.param({"aliases": {"gpt-4o": "auto"}}, ['+ aliases.gpt-4o: "auto"'], id="an-alias"),
    ],
)
def test_a_difference_is_said_by_the_path_of_its_setting(change: dict[str, Any], lines: list[str]) -> None:
    assert [str(one) for one in differences(plain(), plain(**change))] == lines


def test_what_came_is_gone_in_the_other_direction() -> None:
    more = plain(experts={"a": A, "b": B, "c": A | {"deployments": [{"weight": 2}, {"model": "x"}]}})
    came, gone = differences(plain(), more), differences(more, plain())
    assert {one.path for one in came if one.sign == "+"} == {one.path for one in gone if one.sign == "-"}
    told = [str(one) for one in came]
    assert '+ experts.c.model: "m"' in told
    assert "+ experts.c.deployments[0].weight: 2.0" in told
    assert not any("experts.c.quality" in line for line in told), "null says nothing of a new expert"


def test_nothing_in_a_difference_can_steer_a_terminal() -> None:
    (one,) = differences(plain(), plain(name="\x1b[2Jgone"))
    assert str(one) == '~ name: "default" -> "\\u001b[2Jgone"'


ODD = ("on", "no", "null", "1e3", "0o17", "1_000", "12:30", "~", "=", "<<", "a b", "- x", "# no", "null value", "é")


@pytest.mark.parametrize("odd", ODD)
def test_a_version_shown_as_yaml_is_the_same_policy_again(odd: str) -> None:
    said = {
        "name": odd,
        "experts": {"b": B | {"model": odd, "price": {"input": 1e-9, "output": 1e12}}, "a": A},
        "tenants": {"t": {"limits": {"requests_per_minute": None}}},
    }
    document = complete(PolicyDocument.model_validate(said), {})
    text = as_yaml(plain_of(canonical(document)))
    source = parse_source(text, label="shown")
    assert source.problems == ()
    assert digest_of(complete(PolicyDocument.model_validate(source.data["policy"]), {})) == digest_of(document)
    assert yaml.safe_load(text)["policy"]["name"] == odd
    assert document_of(canonical(document)) == document
