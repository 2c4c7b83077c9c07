"""The chat.completions dialect: what is refused, with which words, and what travels on."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.api.chat import parse
from conclave.gateway.errors import InvalidRequest

USER = {"role": "user", "content": "hi"}


def body(**more: Any) -> bytes:
    return json.dumps({"model": "auto", "messages": [USER], **more}).encode()


def test_a_plain_request_is_read() -> None:
    request = parse(body())
    assert (request.model, request.stream, request.include_usage, request.needs) == ("auto", False, False, frozenset())


def test_unknown_fields_travel_on() -> None:
    assert parse(body(top_k=3)).body["top_k"] == 3


def test_null_is_as_good_as_absent() -> None:
    fields = ["stream", "n", "temperature", "tools", "stop", "response_format", "stream_options", "conclave"]
    assert parse(body(**dict.fromkeys(fields))).needs == frozenset()


@pytest.mark.parametrize(
    ("more", "needs"),
    [
        ({"tools": [{"type": "function"}]}, {"tools"}),
        ({"n": 2}, {"n"}),
        ({"n": 1, "tools": []}, set()),
        ({"logprobs": True}, {"logprobs"}),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json_schema"}),
        ({"response_format": {"type": "json_object"}}, {"json_mode"}),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, {"images"}),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}, {"type": "file"}]}]}, {"audio", "files"}),
        ({"messages": [{"role": "user", "content": [{"type": "text"}, {"type": "video"}]}]}, set()),
    ],
    ids=["tools", "n", "none", "logprobs", "schema", "json", "image", "audio", "unknown-part"],
)
def test_what_an_expert_must_be_able_to_do_is_read_off_the_request(more: dict[str, Any], needs: set[str]) -> None:
    assert parse(body(**more)).needs == needs


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0]"),
        ({"n": -1}, "n"),
        ({"n": 0}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"stop": 3}, "stop"),
        ({"tools": {}}, "tools"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
    ],
)
def test_a_wrong_field_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(body(**more))
    assert refused.value.param == param
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  ",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"model":NaN}',
        b'{"a":"\\ud800"}',
        b"[" * 200_000,
        b'{"a":1e999}',
    ],
    ids=["empty", "blank", "cut", "list", "null", "string", "binary", "nan", "surrogate", "deep", "huge-number"],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(data)
    assert refused.value.code == "invalid_json"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["model", "messages", "stream", "n", "tools", "stop", "conclave", "x"]), JSON_VALUES
    )
)
def test_any_object_is_read_or_refused(value: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        assert parse(json.dumps(value).encode()).model
