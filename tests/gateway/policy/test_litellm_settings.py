"""What a policy may say of an expert behind litellm, and what it is told if it says too much."""

from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.policy.document import ExpertSettings


def test_deployments_add_to_the_experts_parameters() -> None:
    expert = ExpertSettings.model_validate(
        {
            "kind": "litellm",
            "model": "bedrock/amazon.nova-lite-v1:0",
            "params": {"aws_region_name": "eu-west-1", "max_tokens": 100},
            "deployments": [{"params": {"aws_region_name": "us-east-1"}}, {"weight": 2}],
        }
    )
    assert [place.params for place in expert.resolved_deployments()] == [
        {"aws_region_name": "us-east-1", "max_tokens": 100},
        {"aws_region_name": "eu-west-1", "max_tokens": 100},
    ]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param({"model": "claude-haiku-4-5"}, "must name its provider", id="no-provider"),
        pytest.param({"model": "/claude"}, "must name its provider", id="an-empty-provider"),
        pytest.param({"model": "anthropic/"}, "must name its provider", id="an-empty-model"),
        pytest.param({}, "model is missing", id="no-model"),
        pytest.param({"params": {"api_key": "sk-1"}}, "api_key looks like a key", id="a-key"),
        pytest.param({"params": {"aws_secret_access_key": "s"}}, "looks like a key", id="aws-secret"),
        pytest.param({"params": {"aws_session_token": "s"}}, "looks like a key", id="a-token"),
        pytest.param({"params": {"vertex_credentials": "{}"}}, "looks like a key", id="credentials"),
        pytest.param({"params": {"api_base": "http://h"}}, "the gateway sets it", id="an-address"),
        pytest.param({"params": {"mock_response": "hi"}}, "the gateway sets it", id="a-canned-answer"),
        pytest.param({"params": {"success_callback": ["x"]}}, "the gateway sets it", id="a-callback"),
        pytest.param({"params": {"Region": "x"}}, "", id="a-name-with-capitals"),
        pytest.param({"params": ["x"]}, "", id="a-list"),
        pytest.param({"documents": "docs"}, "documents belongs to", id="documents"),
        pytest.param({"base_url": "http://u:p@h"}, "no user", id="password-in-the-url"),
    ],
)
def test_what_does_not_fit_is_named(said: dict[str, Any], words: str) -> None:
    whole = {"kind": "litellm", **({} if said == {} else {"model": "anthropic/claude-haiku-4-5"}), **said}
    with pytest.raises(ValidationError) as refused:
        ExpertSettings.model_validate(whole)
    assert words in str(refused.value)


def test_a_limit_of_tokens_is_no_key() -> None:
    assert ExpertSettings(kind="litellm", model="anthropic/claude-x", params={"max_tokens": 5}).params


def test_parameters_are_for_litellm_alone() -> None:
    with pytest.raises(ValidationError, match="params belongs to an expert of kind litellm"):
        ExpertSettings(base_url="http://h/v1", model="m", params={"a": 1})
