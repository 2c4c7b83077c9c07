"""The moderations dialect: texts or parts; nobody is named where the client names nobody."""

import json
from typing import Any

import pytest

from conclave.gateway.api.moderations import parse
from conclave.gateway.errors import InvalidRequest

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


@pytest.mark.parametrize(
    ("inputs", "needs"),
    [
        pytest.param("hi", {"moderations"}, id="text"),
        pytest.param(["hi", "ho"], {"moderations"}, id="texts"),
        pytest.param([{"type": "text", "text": "hi"}, IMAGE], {"moderations", "images"}, id="parts"),
    ],
)
def test_texts_and_parts_are_read_and_a_model_need_not_be_named(inputs: Any, needs: set[str]) -> None:
    request = parse(json.dumps({"input": inputs}).encode())
    assert (request.operation, request.model, request.needs) == ("moderations", "auto", needs)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param({}, "input", id="nothing"),
        pytest.param({"input": []}, "input", id="none"),
        pytest.param({"input": ["hi", IMAGE]}, "input", id="a-mixture"),
        pytest.param({"input": [1]}, "input[0]", id="token-ids"),
        pytest.param({"input": "hi", "model": ""}, "model", id="no-model"),
        pytest.param({"input": "hi", "stream": True}, "stream", id="a-stream"),
    ],
)
def test_what_cannot_be_judged_is_named(body: dict[str, Any], param: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(json.dumps(body).encode())
    assert refused.value.param == param
