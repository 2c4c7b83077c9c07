"""The older completions: what a chat can stand in for, what it cannot, and how its answer is written."""

import json
from typing import Any

import pytest

from conclave.gateway.api.completions import as_text, parse
from conclave.gateway.call import END, SILENCE, Chunk
from conclave.gateway.errors import InvalidRequest

HEAD = {"id": "chatcmpl-7", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def body(**more: Any) -> bytes:
    return json.dumps({"model": "auto", "prompt": "once"} | more).encode()


@pytest.mark.parametrize(
    ("more", "needs"),
    [
        pytest.param({}, set(), id="a-text"),
        pytest.param({"prompt": ["once"]}, set(), id="a-list-of-one"),
        pytest.param({"suffix": None, "echo": False, "best_of": 1, "logprobs": None, "n": 1}, set(), id="defaults"),
        pytest.param({"n": 2}, {"n"}, id="several-answers"),
        pytest.param({"prompt": ["once", "twice"]}, {"completions"}, id="several-prompts"),
        pytest.param({"prompt": [1, 2]}, {"completions"}, id="token-ids"),
        pytest.param({"prompt": [[1], [2]]}, {"completions"}, id="lists-of-token-ids"),
        pytest.param({"suffix": "end"}, {"completions"}, id="suffix"),
        pytest.param({"echo": True}, {"completions"}, id="echo"),
        pytest.param({"best_of": 3, "n": 2}, {"completions"}, id="best-of"),
        pytest.param({"logprobs": 0}, {"completions"}, id="logprobs-of-what-was-chosen"),
        pytest.param({"max_tokens": 0}, {"completions"}, id="no-tokens"),
    ],
)
def test_what_no_chat_can_do_needs_an_expert_for_completions(more: dict[str, Any], needs: set[str]) -> None:
    request = parse(body(**more))
    assert (request.operation, request.needs) == ("completions", needs)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        pytest.param({"prompt": None}, "prompt", id="no-prompt"),
        pytest.param({"prompt": []}, "prompt", id="empty-list"),
        pytest.param({"prompt": ["a", 1]}, "prompt", id="a-mixture"),
        pytest.param({"logprobs": True}, "logprobs", id="logprobs-of-a-chat"),
        pytest.param({"best_of": -1}, "best_of", id="best-of-less-than-none"),
        pytest.param({"max_tokens": -1}, "max_tokens", id="fewer-than-none"),
        pytest.param({"modalities": ["text", "audio"]}, "modalities", id="sound"),
        pytest.param({"audio": {"voice": "a", "format": "wav"}}, "audio", id="a-voice"),
        pytest.param({"tools": [{"type": "function"}]}, "tools", id="tools"),
        pytest.param({"functions": [{"name": "f"}]}, "functions", id="functions"),
        pytest.param({"response_format": {"type": "json_object"}}, "response_format", id="a-shape"),
        pytest.param({"messages": [{"role": "user", "content": "a"}]}, "messages", id="a-chat"),
    ],
)
def test_a_wrong_field_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(body(**more))
    assert refused.value.param == param


def test_what_only_a_chat_has_may_be_null() -> None:
    assert parse(body(tools=None, response_format=None)).needs == set()


def written(event: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(as_text(Chunk(json.dumps(event).encode())).data)
    return found


def test_a_chats_answer_becomes_a_text_completion_with_all_that_is_not_text_left_alone() -> None:
    message = {"role": "assistant", "content": "upon a time", "reasoning_content": "a tale?"}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    event = {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE, "conclave": {"expert": "e"}}
    said = {"index": 0, "text": "upon a time", "logprobs": None, "finish_reason": "length"}
    assert written(event) == event | {"id": "cmpl-7", "object": "text_completion", "choices": [said]}


@pytest.mark.parametrize(
    ("delta", "finish", "text"),
    [
        pytest.param({"role": "assistant", "content": ""}, None, "", id="role"),
        pytest.param({"content": "upon"}, None, "upon", id="text"),
        pytest.param({"content": None, "reasoning_content": "hm"}, None, "", id="reasoning"),
        pytest.param({"refusal": "no"}, None, "no", id="refusal"),
        pytest.param({}, "stop", "", id="end"),
    ],
)
def test_an_event_of_a_chat_becomes_one_of_a_text_completion(delta: Any, finish: str | None, text: str) -> None:
    choice = {"index": 1, "delta": delta, "finish_reason": finish}
    (said,) = written({**HEAD, "object": "chat.completion.chunk", "choices": [choice]})["choices"]
    assert said == {"index": 1, "text": text, "logprobs": None, "finish_reason": finish}


def test_the_usage_event_stays() -> None:
    event = {**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    assert written(event) == event | {"id": "cmpl-7", "object": "text_completion"}


def test_what_is_a_text_completion_already_keeps_its_bytes() -> None:
    native = Chunk(b'{"id": "x",  "object":"text_completion","choices":[{"text":"a","logprobs":{"tokens":["a"]}}]}')
    for chunk in (native, SILENCE, END):
        assert as_text(chunk) is chunk


def test_a_text_completion_by_another_name_keeps_its_choices() -> None:
    choice = {"index": 0, "text": "a", "logprobs": {"tokens": ["a"]}, "finish_reason": None}
    assert written({"id": "cmpl-1", "object": "completion", "choices": [choice]})["choices"] == [choice]
