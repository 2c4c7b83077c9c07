"""The guard over chunks: bytes untouched where nothing changed, valid events where something did."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from benchmarks.safety.stream_splits import CHECKS
from conclave.gateway.call import Chunk, ModelRequest
from conclave.gateway.errors import Blocked
from conclave.gateway.guard import UNGUARDED, Guard, Guarding
from conclave.gateway.reply import Reply
from conclave.safety.api import Action, Finding, Severity
from conclave.safety.output.api import Authorise, OutputRule, Restorer, Ruling, ToolCall
from conclave.safety.output.plan import Plan

PACKAGE = CHECKS[0]
BAD = "pip install evil"
CUT = "pip install [package removed]"


def guard(action: Action = Action.REDACT, *, stream: bool = True, **more: Any) -> Guard:
    return Guard(Plan.of([OutputRule(PACKAGE, action)]), incident="req_1", stream=stream, **more)


def event(*, index: int = 0, finish: str | None = None, **delta: Any) -> Chunk:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return Chunk(json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode())


def spoken(field: str, text: str) -> Chunk:
    more: dict[str, Any] = {field: text}
    return event(**more)


def said(chunks: Sequence[Chunk], *path: str | int, index: int = 0) -> str:
    found = []
    for chunk in chunks:
        for choice in chunk.event["choices"]:
            value: Any = choice if choice["index"] == index else None
            for step in path:
                try:
                    value = value[step] if value is not None else None
                except (KeyError, IndexError):
                    value = None
            found.append(value or "")
    return "".join(found)


def through(guard: Guard, *chunks: Chunk) -> list[Chunk]:
    return [*(out for chunk in chunks for out in guard.feed(chunk)), *guard.finish()]


def test_without_checks_and_seams_there_is_no_guard() -> None:
    assert Guarding(Plan.of(())).guard([], incident="i", stream=True) is UNGUARDED
    chunk = event(content=BAD)
    assert UNGUARDED.feed(chunk) == (chunk,)


def test_a_chunk_in_which_nothing_changed_goes_on_as_the_very_bytes() -> None:
    chunk = Chunk(b'{ "choices":[ {"index":0,"delta":{"content":"a word "}} ], "x":1.0 }')
    assert list(guard().feed(chunk)) == [chunk]


def test_a_check_that_only_tells_touches_no_byte_and_tells() -> None:
    one = guard(Action.ANNOTATE)
    chunks = [event(content="pip install "), event(content="evil"), event(finish="stop")]
    assert through(one, *chunks) == chunks
    assert one.verdict.reasons == ("package.found",)


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning", "refusal", "something_new"])
def test_every_text_of_a_delta_is_guarded(field: str) -> None:
    out = through(guard(), *(spoken(field, letter) for letter in BAD + "\n"), event(finish="stop"))
    assert said(out, "delta", field) == CUT + "\n"


def test_a_text_deep_in_a_field_that_nobody_knows_is_guarded() -> None:
    pieces = [event(reasoning_details=[{"type": "text", "index": 0, "text": letter}]) for letter in BAD]
    out = through(guard(), *pieces, event(finish="stop"))
    assert said(out, "delta", "reasoning_details", 0, "text") == CUT


def test_what_was_held_comes_before_the_end_of_its_choice() -> None:
    end = event(finish="stop")
    held, last = through(guard(), event(content=BAD), end)[-2:]
    assert said([held], "delta", "content") == CUT.removeprefix("")
    assert last is end


def test_text_in_the_chunk_that_ends_the_choice_keeps_its_order() -> None:
    out = through(guard(), event(content="pip install "), event(content="evil", finish="stop"))
    assert said(out, "delta", "content") == CUT
    assert out[-1].event["choices"][0]["finish_reason"] == "stop"


def test_choices_are_texts_of_their_own() -> None:
    chunks = [event(index=at % 2, content=letter) for letter in BAD for at in (0, 1)]
    out = through(guard(), *chunks)
    assert [said(out, "delta", "content", index=index) for index in (0, 1)] == [CUT, CUT]


def test_the_older_completions_are_guarded_plain_and_streamed() -> None:
    def text(piece: str, finish: str | None = None) -> Chunk:
        return Chunk(json.dumps({"choices": [{"index": 0, "text": piece, "finish_reason": finish}]}).encode())

    out = through(guard(), *map(text, BAD), text("", "stop"))
    assert said(out, "text") == CUT
    assert said(through(guard(stream=False), text(BAD, "stop")), "text") == CUT
    assert said(through(guard(stream=False), text(BAD)), "text") == CUT


def test_the_probabilities_of_words_that_were_held_are_left_out() -> None:
    choice = {
        "index": 0,
        "delta": {"content": BAD},
        "logprobs": {"content": [{"token": "evil"}]},
        "finish_reason": None,
    }
    out = through(guard(), Chunk(json.dumps({"choices": [choice]}).encode()))
    assert b"evil" not in b"".join(chunk.data for chunk in out)


def test_a_plain_answer_is_judged_whole_and_keeps_all_else() -> None:
    message = {"role": "assistant", "content": BAD, "reasoning": "fine"}
    body = {
        "id": "c",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"total_tokens": 3},
    }
    [out] = through(guard(stream=False), Chunk(json.dumps(body).encode()))
    message["content"] = CUT
    assert out.event == body


def test_what_is_blocked_raises_with_place_and_incident() -> None:
    one = guard(Action.BLOCK)
    with pytest.raises(Blocked, match="req_1") as blocked:
        through(one, event(content="see: " + BAD), event(finish="stop"))
    assert (blocked.value.param, blocked.value.code) == ("choices[0].content", "blocked_by_policy")
    assert one.verdict.action is Action.BLOCK


ARGUMENTS = json.dumps({"n": 1.5, "cmd": f"{BAD}\nls", "list": ["a", BAD]})
CLEAN = {"n": 1.5, "cmd": f"{CUT}\nls", "list": ["a", CUT]}


def call(arguments: str, *, at: int = 0, **first: Any) -> Chunk:
    return event(tool_calls=[{"index": at, **first, "function": {"arguments": arguments}}])


def test_arguments_are_judged_as_what_they_say_and_stay_json() -> None:
    pieces = [call(letter) for letter in ARGUMENTS]
    out = through(guard(), call("", id="call_1", type="function"), *pieces, event(finish="tool_calls"))
    assert json.loads(said(out, "delta", "tool_calls", 0, "function", "arguments")) == CLEAN
    assert out[0].event["choices"][0]["delta"]["tool_calls"][0]["id"] == "call_1"
    assert said(out[-1:], "finish_reason") == "tool_calls"


def test_the_older_function_call_and_plain_answers_are_judged_the_same() -> None:
    out = through(guard(), *(event(function_call={"arguments": letter}) for letter in ARGUMENTS), event(finish="stop"))
    assert json.loads(said(out, "delta", "function_call", "arguments")) == CLEAN
    message = {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": ARGUMENTS}}]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    out = through(guard(stream=False), Chunk(json.dumps(body).encode()))
    assert json.loads(said(out, "message", "tool_calls", 0, "function", "arguments")) == CLEAN


@pytest.mark.parametrize("text", ['{"a": ', '{"a": "' + BAD, BAD, "[" * 100_000, '{"a": 1, "a": "' + BAD + '"}'])
def test_arguments_that_are_no_json_are_judged_as_written(text: str) -> None:
    out = through(guard(), call(text), event(finish="stop"))
    got = said(out, "delta", "tool_calls", 0, "function", "arguments")
    assert BAD not in got
    assert len(got) >= len(text)


def test_arguments_pass_at_once_where_nothing_acts() -> None:
    chunks = [call(ARGUMENTS[:9], id="1"), call(ARGUMENTS[9:])]
    one = guard(Action.ANNOTATE)
    assert [out for chunk in chunks for out in one.feed(chunk)] == chunks
    one.finish()
    assert [found.place for found in one.verdict.findings] == [
        "choices[0].tool_calls[0].function.arguments.cmd", "choices[0].tool_calls[0].function.arguments.list[1]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "code"),
    [(Action.BLOCK, "blocked_by_policy"), (Action.CONFIRM, "confirmation_required"), (Action.ANNOTATE, None)],
)
def test_each_whole_tool_call_is_authorised_once_before_it_goes_on(action: Action, code: str | None) -> None:
    seen: list[ToolCall] = []

    def authorise(one: ToolCall) -> Ruling:
        seen.append(one)
        return Ruling(action, (found,), (found,)) if one.name == "b" else Ruling(Action.ALLOW)

    found = Finding("toolcalls", "toolcalls.x", Severity.HIGH, 1.0, "", 0, 0)

    one = Guard(Plan.of(()), incident="i", stream=True, authorise=authorise)
    chunks = [
        event(tool_calls=[{"index": at, "id": f"c{at}", "function": {"name": name, "arguments": "{"}}])
        for at, name in enumerate("ab")
    ]
    chunks += [call("}", at=0), call("}", at=1)]
    assert all(b"{}" not in out.data for chunk in chunks for out in one.feed(chunk))
    if code is None:
        one.feed(event(finish="tool_calls"))
    else:
        with pytest.raises(Blocked) as blocked:
            one.feed(event(finish="tool_calls"))
        assert blocked.value.code == code
    assert seen == [ToolCall("a", "{}", "c0"), ToolCall("b", "{}", "c1")]
    assert one.verdict.reasons == ("toolcalls.x",)


@pytest.mark.parametrize("action", [Action.ANNOTATE, Action.REDACT, Action.BLOCK], ids=str)
def test_a_check_that_only_observes_says_what_it_would_have_done(action: Action) -> None:
    chunk = event(content=BAD, finish="stop")
    one = Guard(Plan.of([OutputRule(PACKAGE, action, observe=True)]), incident="i", stream=True)
    assert through(one, chunk) == [chunk]
    assert (one.verdict.action, one.verdict.acted, one.verdict.would) == (Action.ALLOW, (), action)
    one.reset()
    assert one.verdict.would is Action.ALLOW, "another expert begins from nothing"


def test_what_a_second_expert_never_heard_of_would_have_done_nothing() -> None:
    one = Guard(Plan.of([OutputRule(PACKAGE, Action.BLOCK, observe=True)]), incident="i", stream=True)
    one.feed(event(content="All is well.\n"))
    one.feed(event(content="pip install ev"))
    one.drop()
    assert one.verdict.would is Action.ALLOW
    assert one.feed(event(content=f"{BAD}\n"))
    assert one.verdict.would is Action.BLOCK


def test_a_check_that_acts_would_have_done_no_more() -> None:
    one = guard(Action.REDACT)
    through(one, event(content=BAD, finish="stop"))
    assert one.verdict.would is one.verdict.action is Action.REDACT


def test_what_would_have_become_of_a_tool_call_is_said_too() -> None:
    found = Finding("toolcalls", "toolcalls.x", Severity.HIGH, 1.0, "", 0, 0)
    ruling = Ruling(Action.ALLOW, (found,), would=Action.CONFIRM)
    one = Guard(Plan.of(()), incident="i", stream=True, authorise=lambda _: ruling)
    through(one, call("{}"), event(finish="tool_calls"))
    assert (one.verdict.action, one.verdict.would) == (Action.ALLOW, Action.CONFIRM)
    one.reset()
    assert one.verdict.would is Action.ALLOW


def test_a_tool_call_that_nobody_could_judge_is_not_made() -> None:
    def broken(_: ToolCall) -> Ruling:
        raise RuntimeError("bug")

    authorise: Authorise = broken
    one = Guard(Plan.of(()), incident="i", stream=True, authorise=authorise)
    with pytest.raises(Blocked, match="check_failed"):
        through(one, call("{}"))


class Vowels:
    """Puts `a` back for `#`, a character late."""

    def __init__(self) -> None:
        self.held = ""

    def feed(self, text: str) -> str:
        text, self.held = (self.held + text)[:-1], (self.held + text)[-1:]
        return text.replace("#", "a")

    def finish(self) -> str:
        return self.held.replace("#", "a")


def test_values_are_put_back_after_the_checks_and_never_sent_to_the_next_expert() -> None:
    make: type[Restorer] = Vowels
    one = guard(restorer=make)
    out = [out for chunk in (event(content="b#d "), event(content="c#t ")) for out in one.feed(chunk)]
    assert one.so_far == "b#d c#t "
    out += through(one, call('{"x": "q#\\""}'), event(finish="stop"))
    assert said(out, "delta", "content") == "bad cat "
    assert json.loads(said(out, "delta", "tool_calls", 0, "function", "arguments")) == {"x": 'qa"'}


def test_an_answer_that_breaks_off_is_judged_as_far_as_it_came() -> None:
    one = guard()
    one.feed(event(content=BAD))
    assert one.verdict.findings == ()
    one.close()
    one.close()
    assert one.verdict.reasons == ("package.found",)


def test_a_second_expert_goes_on_from_what_was_let_go() -> None:
    reply = Reply(ModelRequest({}, "auto", True, False, frozenset()), digest_key=b"k", guard=guard())
    reply.begin()
    out = [*reply.feed(event(role="assistant", content="")), *reply.feed(event(content="so: pip install ev"))]
    assert reply.so_far == "so: "
    reply.begin(prefilled=True)
    out += [*reply.feed(event(content="pip install evil")), *reply.feed(event(finish="stop"))]
    reply.complete()
    out += reply.finish({})
    assert said(out, "delta", "content") == f"so: {CUT}"
    assert out[-1].event["conclave"]["findings"] == ["package.found"]


def test_nothing_counts_as_shown_before_the_guard_let_a_word_go() -> None:
    reply = Reply(ModelRequest({}, "auto", True, False, frozenset()), digest_key=b"k", guard=guard())
    reply.begin()
    for chunk in (event(role="assistant", content=""), event(content="pip install "), event(content="evil")):
        assert list(reply.feed(chunk)) == []
    assert not reply.shown
    reply.begin()
    out = [*reply.feed(event(role="assistant")), *reply.feed(event(content="hello"))]
    assert said(out, "delta", "content") == "hello"


def test_a_trial_is_judged_when_it_is_shown() -> None:
    reply = Reply(ModelRequest({}, "auto", True, False, frozenset()), digest_key=b"k", guard=guard(Action.BLOCK))
    reply.begin(on_trial=True)
    for chunk in (event(content=BAD), event(finish="stop")):
        reply.feed(chunk)
    reply.complete()
    with pytest.raises(Blocked):
        reply.finish({})


def test_a_stream_without_an_end_gives_what_was_held() -> None:
    reply = Reply(ModelRequest({}, "auto", True, False, frozenset()), digest_key=b"k", guard=guard())
    reply.begin()
    reply.feed(event(content=BAD))
    reply.complete()
    out = reply.finish({})
    assert said(out, "delta", "content") == CUT
    assert all(msgspec.json.decode(chunk.data) for chunk in out)
