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
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
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


@pytest.mark.parametrize(
    ("more", "needs"),
    [
        pytest.param({"modalities": ["text", "audio"]}, {"audio"}, id="an-answer-to-hear"),
        pytest.param({"audio": {"voice": "alloy", "format": "wav"}}, {"audio"}, id="a-voice"),
        pytest.param({"modalities": ["text"], "audio": None}, set(), id="text-only"),
        pytest.param({"functions": [{"name": "f"}], "function_call": "auto"}, {"tools"}, id="functions"),
        pytest.param({"messages": [USER, {"role": "tool", "content": "7"}]}, {"tools"}, id="what-a-tool-said"),
        pytest.param(
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "1"}]}]}, {"tools"}, id="calls-of-tools"
        ),
        pytest.param(
            {"messages": [USER, {"role": "assistant", "function_call": {"name": "f"}}]}, {"tools"}, id="function-call"
        ),
        pytest.param({"messages": [USER, {"role": "assistant", "audio": {"id": "a"}}]}, {"audio"}, id="said-before"),
        pytest.param({"stream": True, "n": 3, "logprobs": True}, {"n", "logprobs"}, id="a-stream-of-several"),
    ],
)
def test_nothing_that_an_expert_must_be_able_to_do_is_overlooked(more: dict[str, Any], needs: set[str]) -> None:
    assert parse(body(**more)).needs == needs


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("-0.1e-7", -0.1e-7),
        ('"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        ('{"a": [1, null, {"b": true}]}', {"a": [1, None, {"b": True}]}),
    ],
    ids=["a-long-integer", "a-small-number", "a-surrogate-pair", "an-object"],
)
def test_an_unknown_field_keeps_its_value(text: str, value: Any) -> None:
    data = body()[:-1] + b', "unknown": ' + text.encode() + b"}"
    assert parse(data).body["unknown"] == value


def test_of_a_key_given_twice_the_last_counts_for_the_gateway_and_for_the_expert() -> None:
    request = parse(body()[:-1] + b', "model": "strong", "n": 1, "n": 2}')
    assert (request.model, request.body["model"], request.body["n"], request.needs) == ("strong", "strong", 2, {"n"})


@pytest.mark.parametrize("seed", ["-Infinity", "1e999", "9" * 5000], ids=["infinity", "too-large", "too-long"])
def test_a_number_that_nobody_could_read_again_is_refused(seed: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(body()[:-1] + b', "seed": ' + seed.encode() + b"}")
    assert refused.value.code == "invalid_json"
