"""Reply: what a client is shown of an answer, and when."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.call import SILENCE, Chunk, ModelRequest
from conclave.gateway.errors import ExpertFailed
from conclave.gateway.reply import Reply
from conclave.gateway.usage import Usage


def delta(content: str | None = None, *, finish: str | None = None, index: int = 0, **more: Any) -> Chunk:
    found = {"content": content} if content is not None else {}
    choice = {"index": index, "delta": found | more, "finish_reason": finish}
    return Chunk(json.dumps({"model": "m", "choices": [choice]}).encode())


USAGE = Chunk(b'{"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}')


def reply(*, stream: bool = True, include_usage: bool = False, **more: Any) -> Reply:
    body = {"messages": [{"role": "user", "content": "?"}], **more}
    return Reply(ModelRequest(body, "auto", stream, include_usage, frozenset()), digest_key=b"k")


def test_a_role_delta_waits_for_the_first_text() -> None:
    shown = reply()
    role = delta(role="assistant")
    assert list(shown.feed(role)) == []
    assert not shown.shown
    word = delta("a")
    assert list(shown.feed(word)) == [role, word]
    assert shown.shown


def test_an_empty_content_is_no_text() -> None:
    shown = reply()
    assert list(shown.feed(delta("", role="assistant"))) == []
    assert not shown.shown


@pytest.mark.parametrize("field", ["reasoning_content", "refusal", "tool_calls"])
def test_reasoning_refusals_and_tool_calls_count_as_shown(field: str) -> None:
    shown = reply()
    assert len(shown.feed(delta(**{field: [{}]}))) == 1
    assert shown.shown


def test_the_last_chunk_carries_the_conclave_object_and_its_own_bytes() -> None:
    shown = reply()
    shown.feed(delta("a"))
    last = delta(finish="stop")
    assert list(shown.feed(last)) == []
    (out,) = shown.finish({"expert": "e"})
    assert out.data == last.data[:-1] + b',"conclave":{"expert":"e"}}'
    assert shown.finish_reason == "stop"


def test_usage_that_the_client_did_not_ask_for_is_kept_from_it_but_counted() -> None:
    shown = reply()
    for chunk in (delta("a"), delta(finish="stop"), USAGE):
        shown.feed(chunk)
    (last,) = shown.finish({})
    assert last.event["choices"][0]["finish_reason"] == "stop"
    assert shown.usage == Usage(prompt_tokens=3, completion_tokens=2)


def test_usage_that_the_client_asked_for_comes_last_with_the_conclave_object() -> None:
    shown = reply(include_usage=True)
    for chunk in (delta("a"), delta(finish="stop"), USAGE):
        shown.feed(chunk)
    closing, last = shown.finish({"expert": "e"})
    assert closing.event["choices"][0]["finish_reason"] == "stop"
    assert last.event["usage"]["total_tokens"] == 5
    assert last.event["conclave"] == {"expert": "e"}


def test_a_choice_that_ended_waits_but_keeps_its_place_before_the_other_choices_text() -> None:
    shown = reply()
    shown.feed(delta("a", index=0))
    end = delta(finish="stop", index=0)
    assert list(shown.feed(end)) == []
    more = delta("b", index=1)
    assert list(shown.feed(more)) == [end, more]


def test_a_stream_without_a_finish_reason_still_ends_with_the_conclave_object() -> None:
    shown = reply()
    shown.feed(delta("a"))
    shown.complete()
    (last,) = shown.finish({"expert": "e"})
    assert last.event == {"model": "m", "choices": [], "conclave": {"expert": "e"}}


def test_an_empty_answer_is_a_failure_not_an_answer() -> None:
    with pytest.raises(ExpertFailed) as failed:
        reply().complete()
    assert failed.value.kind == "cut"


def test_a_plain_answer_waits_whole_and_keeps_its_bytes() -> None:
    body = b'{ "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "x": 1.0 }\n'
    shown = reply(stream=False)
    assert list(shown.feed(Chunk(body))) == []
    (out,) = shown.finish({"expert": "e"})
    assert out.data == body.rstrip()[:-1] + b',"conclave":{"expert":"e"}}'


def test_a_conclave_object_of_an_upstream_conclave_is_replaced() -> None:
    shown = reply(stream=False)
    shown.feed(Chunk(b'{"choices":[],"conclave":{"expert":"theirs"}}'))
    (out,) = shown.finish({"expert": "ours"})
    assert out.event["conclave"] == {"expert": "ours"}
    assert out.data.count(b"conclave") == 1


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"3", b"", b"\xff", b'{"choices":3}', b'{"choices":[3]}', b'{"error":{}}', b"[" * 100_000],
    ids=["cut", "list", "number", "empty", "binary", "choices", "choice", "no-choices", "deep"],
)
def test_what_is_no_completion_is_malformed(data: bytes) -> None:
    with pytest.raises(ExpertFailed) as failed:
        reply().feed(Chunk(data))
    assert failed.value.kind == "malformed"


def test_silence_passes_and_shows_nothing() -> None:
    shown = reply()
    assert list(shown.feed(SILENCE)) == [SILENCE]
    assert (shown.begun, shown.shown) == (True, False)


def test_a_restart_forgets_what_was_held() -> None:
    shown = reply()
    shown.feed(delta(role="assistant"))
    shown.begin()
    word = delta("b")
    assert list(shown.feed(word)) == [word]


@given(st.lists(st.sampled_from(["role", "text", "empty", "finish", "usage"]), max_size=12))
def test_no_chunk_is_lost_doubled_or_reordered(kinds: list[str]) -> None:
    make = {
        "role": lambda: delta(role="assistant"), "text": lambda: delta("a"), "empty": lambda: delta(""),
        "finish": lambda: delta(finish="stop"), "usage": lambda: Chunk(USAGE.data),
    }  # fmt: skip
    shown, chunks = reply(include_usage=True), [make[kind]() for kind in kinds]
    out = [released for chunk in chunks for released in shown.feed(chunk)]
    if chunks:
        shown.complete()
        out += shown.finish({})
        assert [chunk.data for chunk in out[: len(chunks) - 1]] == [chunk.data for chunk in chunks[:-1]]


UNKNOWN = [None, 3, {}, *({"prompt_tokens": value} for value in (-1, True, "3", 2**53))]


@pytest.mark.parametrize("usage", UNKNOWN)
def test_counts_that_are_none_stay_unknown(usage: object) -> None:
    assert Usage.of(usage) == Usage()
