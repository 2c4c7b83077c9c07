"""The embeddings dialect: what becomes a request, and which words refuse the rest."""

import json
from typing import Any

import pytest

from conclave.gateway.api.body import MOST_INPUTS
from conclave.gateway.api.embeddings import parse
from conclave.gateway.errors import InvalidRequest


def body(**more: Any) -> bytes:
    return json.dumps({"model": "auto", "input": "hi"} | more).encode()


@pytest.mark.parametrize(
    "inputs", ["hi", ["hi", "ho"], [1, 2], [[1, 2], [3]], [""]], ids=["text", "texts", "ids", "lists-of-ids", "empty"]
)
def test_an_input_is_a_text_texts_or_token_ids(inputs: Any) -> None:
    request = parse(body(input=inputs, dimensions=8, top_k=1))
    assert (request.operation, request.needs, request.stream) == ("embeddings", {"embeddings"}, False)
    assert request.body["input"] == inputs
    assert request.body["top_k"] == 1


@pytest.mark.parametrize(
    ("more", "param"),
    [
        pytest.param({"input": []}, "input", id="none"),
        pytest.param({"input": None}, "input", id="null"),
        pytest.param({"input": 5}, "input", id="a-number"),
        pytest.param({"input": {"a": 1}}, "input", id="an-object"),
        pytest.param({"input": ["hi", 1]}, "input", id="a-mixture"),
        pytest.param({"input": [1, [2]]}, "input", id="another-mixture"),
        pytest.param({"input": [[]]}, "input[0]", id="a-text-without-ids"),
        pytest.param({"input": [-1]}, "input[0]", id="a-negative-id"),
        pytest.param({"input": [2**40]}, "input[0]", id="a-huge-id"),
        pytest.param({"input": [True]}, "input[0]", id="a-truth"),
        pytest.param({"input": [["hi"]]}, "input[0][0]", id="a-text-too-deep"),
        pytest.param({"input": ["x"] * (MOST_INPUTS + 1)}, "input", id="too-many"),
        pytest.param({"model": ""}, "model", id="no-model"),
        pytest.param({"dimensions": 0}, "dimensions", id="no-dimensions"),
        pytest.param({"encoding_format": "int8"}, "encoding_format", id="a-format-nobody-knows"),
        pytest.param({"stream": True}, "stream", id="a-stream"),
    ],
)
def test_what_cannot_be_embedded_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(body(**more))
    assert (refused.value.param, refused.value.status) == (param, 400)
