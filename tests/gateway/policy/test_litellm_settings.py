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
        pytest.param({"params": {"api_base": "http://h"}}, "looks like an address", id="an-address"),
        pytest.param({"params": {"aws_sts_endpoint": "http://h"}}, "looks like an address", id="aws-sts"),
        pytest.param({"params": {"aws_bedrock_runtime_endpoint": "http://h"}}, "like an address", id="aws-bedrock"),
        pytest.param({"params": {"s3_endpoint_url": "http://h"}}, "looks like an address", id="a-url"),
        pytest.param({"params": {"dd_agent_host": "h"}}, "looks like an address", id="a-host"),
        pytest.param({"params": {"aws_region_name": "h.example/?"}}, "name of a region", id="a-host-in-a-region"),
        pytest.param({"params": {"vertex_location": "h.example#"}}, "name of a region", id="a-host-in-a-location"),
        pytest.param({"params": {"aws_region_name": ["eu"]}}, "name of a region", id="a-region-that-is-a-list"),
        pytest.param({"params": {"api_version": "http://h"}}, "a name, not an address", id="an-address-as-value"),
        pytest.param({"params": {"vertex_project": {"url": "h"}}}, "a name, not an address", id="a-mapping-as-value"),
        pytest.param({"params": {"anthropic_identity_token_file": "/f"}}, "not a parameter", id="a-file"),
        pytest.param({"params": {"custom_llm_provider": "openai"}}, "not a parameter", id="another-provider"),
        pytest.param({"params": {"use_litellm_proxy": True}}, "looks like an address", id="a-proxy"),
        pytest.param({"params": {"ssl_verify": False}}, "not a parameter", id="tls-off"),
        pytest.param({"params": {"extra_body": {"api_base": "h"}}}, "not a parameter", id="what-goes-into-all"),
        pytest.param({"params": {"aws_regoin_name": "eu"}}, "aws_region_name", id="a-slip"),
        pytest.param({"params": {"mock_response": "hi"}}, "not a parameter", id="a-canned-answer"),
        pytest.param({"params": {"success_callback": ["x"]}}, "not a parameter", id="a-callback"),
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


@pytest.mark.parametrize(
    "params",
    [
        {"aws_region_name": "us-gov-west-1", "aws_role_name": "arn:aws:iam::1:role/x+y", "aws_session_name": "a@b"},
        {"vertex_project": "example.com:p-1", "vertex_location": "europe-west4"},
        {"api_version": "2024-10-21", "drop_params": True, "max_completion_tokens": 5},
        {"stop": ["http://"], "tools": [], "response_format": {"$schema": "https://json-schema.org/"}, "top_k": 1},
        {"dimensions": 256, "input_type": "search_query"},
    ],
    ids=["bedrock", "vertex", "azure", "a-request", "embeddings"],
)
def test_what_a_provider_needs_is_taken(params: dict[str, Any]) -> None:
    assert ExpertSettings(kind="litellm", model="azure/x", params=params).params == params


def test_parameters_are_for_litellm_alone() -> None:
    with pytest.raises(ValidationError, match="params belongs to an expert of kind litellm"):
        ExpertSettings(base_url="http://h/v1", model="m", params={"top_k": 1})
