"""Trial: what is held of an answer, what is heard of it, and what is taken out again before it is shown."""

import json
from typing import Any

import pytest

from conclave.gateway.call import SILENCE, Chunk, ModelRequest
from conclave.gateway.errors import ExpertFailed
from conclave.gateway.reply import KEEP_ALIVE_S, Reply
from conclave.gateway.testing import FakeClock
from conclave.gateway.trial import MOST_HELD_BYTES, Trial
from conclave.gateway.usage import Usage


def token(text: str, logprob: float, **others: float) -> dict[str, Any]:
    top = [{"token": name, "logprob": value} for name, value in {text: logprob, **others}.items()]
    return {"token": text, "logprob": logprob, "top_logprobs": top}


def delta(content: str | None = None, *, index: int = 0, tokens: list[Any] | None = None, **more: Any) -> Chunk:
    choice: dict[str, Any] = {"index": index, "delta": {"content": content}, "finish_reason": None, **more}
    if tokens is not None:
        choice["logprobs"] = {"content": tokens}
    return Chunk(json.dumps({"id": "x", "model": "m", "choices": [choice]}).encode())


END = delta(finish_reason="stop")
USAGE = Chunk(b'{"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}')


def reply(clock: FakeClock | None = None, *, stream: bool = True) -> Reply:
    body = {"messages": [{"role": "user", "content": "?"}]}
    now_s = (clock or FakeClock()).now_s
    return Reply(ModelRequest(body, "auto", stream, False, frozenset()), digest_key=b"k", now_s=now_s)


def text(chunks: list[Chunk]) -> str:
    return "".join(one["delta"].get("content") or "" for chunk in chunks for one in chunk.event["choices"])


def test_the_probabilities_of_the_first_choices_tokens_are_heard() -> None:
    trial = Trial()
    trial.take(delta("yes", tokens=[token("yes", -0.1, no=-2.4)]))
    trial.take(delta("!", tokens=[token("!", -0.5)]))
    trial.take(delta("no", index=1, tokens=[token("no", -9.0)]))
    assert trial.heard.answers == ("yes!", "no")
    assert trial.heard.logprobs == (-0.1, -0.5)
    assert trial.heard.first == {"yes": -0.1, "no": -2.4}


ODD: list[object] = [None, 3, [], {}, {"content": 3}, {"content": [3, None, {}]},
       {"content": [{"token": 1, "logprob": "x"}]},
       {"content": [{"token": "a", "logprob": True}]},
       {"content": [{"token": "a", "logprob": 10**400}]}]  # fmt: skip


@pytest.mark.parametrize("logprobs", ODD, ids=[str(number) for number in range(len(ODD))])
def test_probabilities_that_are_none_are_not_heard(logprobs: object) -> None:
    trial = Trial({"logprobs"})
    trial.take(delta("a", logprobs=logprobs))
    assert trial.heard.logprobs == ()
    assert text(list(trial.answer())) == "a"


def test_no_more_alternatives_are_heard_than_anybody_lists() -> None:
    trial = Trial()
    trial.take(delta("a", tokens=[token("a", -0.1, **{f"t{number}": -3.0 for number in range(5000)})]))
    assert len(trial.heard.first) <= 21


def test_what_the_gateway_asked_for_itself_is_taken_out() -> None:
    trial = Trial({"logprobs", "top_logprobs"})
    trial.take(delta("yes", tokens=[token("yes", -0.1)]))
    (chunk,) = trial.answer()
    assert chunk.event["choices"][0]["logprobs"] is None
    assert b"-0.1" not in chunk.data


def test_what_the_client_asked_for_stays_byte_for_byte() -> None:
    trial, chunk = Trial(), delta("yes", tokens=[token("yes", -0.1)])
    trial.take(chunk)
    assert [one.data for one in trial.answer()] == [chunk.data]


def test_pieces_of_one_text_come_as_one_chunk_and_all_else_as_it_came() -> None:
    trial = Trial()
    said = [delta(role="assistant"), *(delta(word) for word in ("a ", "b ", "c")), END, USAGE]
    for chunk in said:
        trial.take(chunk)
    shown = list(trial.answer())
    assert [chunk.data for chunk in (shown[0], *shown[2:])] == [said[0].data, END.data, USAGE.data]
    assert shown[1].event == delta("a b c").event


def piece(text: object, *, name: str = "content", **more: Any) -> Chunk:
    event = {"id": "x", "choices": [{"index": 0, "delta": {name: text}}], **more}
    return Chunk(json.dumps(event).encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (piece("a"), piece("b", name="reasoning_content")),
        (piece("a"), piece("b", usage={"completion_tokens": 2})),
        (delta("a"), delta("b", index=1)),
        (delta("a", tokens=[token("a", -0.1)]), delta("b", tokens=[token("b", -0.2)])),
        (delta("a"), delta("b", finish_reason="stop")),
        (piece("a"), piece(None)),
        (piece([{"index": 0}], name="tool_calls"), piece([{"index": 0}], name="tool_calls")),
    ],
    ids=["channel", "usage", "choice", "asked-logprobs", "end", "null", "tool-calls"],
)
def test_chunks_that_differ_in_more_than_a_text_stay_as_they_came(one: Chunk, other: Chunk) -> None:
    trial = Trial()
    trial.take(one)
    trial.take(other)
    assert [chunk.data for chunk in trial.answer()] == [one.data, other.data]


def test_padding_keeps_no_two_pieces_apart() -> None:
    trial = Trial()
    trial.take(piece("a", obfuscation="x1"))
    trial.take(piece("b", obfuscation="y22"))
    (shown,) = trial.answer()
    assert shown.event["choices"][0]["delta"] == {"content": "ab"}


def test_of_several_samples_one_is_shown_that_says_what_most_say() -> None:
    trial = Trial({"n"})
    for index, answer in enumerate(["Lyon", "Paris", " paris."]):
        trial.take(delta(answer, index=index))
        trial.take(delta(index=index, finish_reason="stop"))
    trial.take(USAGE)
    chunks = list(trial.answer())
    assert text(chunks) == "Paris"
    assert {choice["index"] for chunk in chunks for choice in chunk.event["choices"]} == {0}
    assert chunks[-1].event["usage"]


def test_an_answer_that_grows_too_large_has_failed() -> None:
    trial = Trial()
    trial.take(delta("x" * (MOST_HELD_BYTES // 2)))
    with pytest.raises(ExpertFailed) as failed:
        trial.take(delta("x" * (MOST_HELD_BYTES // 2)))
    assert failed.value.kind == "late"


def test_nothing_of_an_answer_on_trial_is_shown_before_its_end() -> None:
    shown = reply()
    shown.begin(on_trial=True)
    assert [shown.feed(chunk) for chunk in (delta(role="assistant"), delta("yes"), END, USAGE)] == [()] * 4
    shown.complete()
    assert (shown.shown, shown.begun, shown.spare) == (False, False, True)
    out = list(shown.finish({"expert": "e"}))
    assert text(out) == "yes"
    assert out[-1].event["conclave"] == {"expert": "e"}
    assert (shown.finish_reason, shown.usage) == ("stop", Usage(prompt_tokens=3, completion_tokens=2))


def test_the_client_hears_meanwhile_that_somebody_is_at_work() -> None:
    clock = FakeClock()
    shown = reply(clock)
    shown.begin(on_trial=True)
    assert not shown.feed(delta("a"))
    clock.advance(KEEP_ALIVE_S)
    assert list(shown.feed(delta("b"))) == [SILENCE]
    assert (shown.shown, shown.begun) == (False, True)
    assert not shown.feed(delta("c"))


def test_an_unsure_answer_is_forgotten_when_another_expert_speaks() -> None:
    shown = reply()
    shown.begin(on_trial=True)
    for chunk in (delta("weak"), END):
        shown.feed(chunk)
    shown.complete()
    shown.begin()
    out = [*shown.feed(delta("strong")), *shown.feed(END)]
    shown.complete()
    assert text([*out, *shown.finish({})]) == "strong"


def test_an_unsure_answer_comes_back_if_nobody_did_better() -> None:
    shown = reply()
    shown.begin(on_trial=True)
    for chunk in (delta("weak"), END):
        shown.feed(chunk)
    shown.complete()
    shown.begin()
    shown.feed(delta(role="assistant"))  # of the one that fails
    shown.recall()
    assert text(list(shown.finish({}))) == "weak"
    assert shown.finish_reason == "stop"


def test_an_answer_that_broke_off_on_trial_does_not_come_back() -> None:
    shown = reply()
    shown.begin(on_trial=True)
    shown.feed(delta("wea"))
    shown.begin()
    assert not shown.spare


def test_nothing_at_all_is_no_answer_on_trial_either() -> None:
    shown = reply()
    shown.begin(on_trial=True)
    with pytest.raises(ExpertFailed) as failed:
        shown.complete()
    assert failed.value.kind == "cut"


@pytest.mark.parametrize(
    ("said", "silent"),
    [
        ({"content": ""}, True),
        ({"content": " \n"}, True),
        ({"content": None, "reasoning_content": "let me think"}, True),
        ({"content": "no"}, False),
        ({"content": None, "refusal": "I cannot"}, False),
        ({"content": None, "tool_calls": [{"id": "call_1"}]}, False),
        ({"content": None, "function_call": {"name": "f"}}, False),
        ({"content": None, "audio": {"id": "a"}}, False),
        ({"content": [{"type": "text", "text": "x"}]}, False),
    ],
    ids=["empty", "blank", "thought", "word", "refusal", "tool", "function", "audio", "parts"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_an_answer_is_silent_that_says_nothing_and_calls_nobody(
    said: dict[str, Any], silent: bool, stream: bool
) -> None:
    choice = {"index": 0, "delta" if stream else "message": {"role": "assistant", **said}, "finish_reason": "stop"}
    trial = Trial()
    trial.take(Chunk(json.dumps({"choices": [choice]}).encode()))
    assert trial.heard.silent is silent


def test_an_attempt_on_trial_that_did_not_say_what_it_used_is_estimated() -> None:
    shown = reply()
    shown.begin(on_trial=True)
    shown.feed(delta("one two three"))
    assert shown.spent(["four five"]).estimated


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_the_ids_of_tool_calls_are_noted(stream: bool) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"delta" if stream else "message": {"tool_calls": [call, call, 3, {"id": None}]}}
    chunk = Chunk(json.dumps({"choices": [{"index": 0, **said, "finish_reason": "tool_calls"}]}).encode())
    shown = reply(stream=stream)
    shown.feed(chunk)
    assert shown.call_ids == ["call_1"]
