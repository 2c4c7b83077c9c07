"""What is remembered of conversations: who answered, and how turns were classified; bounded, and forgotten in time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.call import ModelRequest
from conclave.gateway.policy.remembered import NO_THREAD, Conversations, open_loop
from conclave.gateway.testing import FakeClock
from conclave.router.api import Classification
from conclave.safety.boundary.caps import Caps
from conclave.safety.boundary.segments import read_messages

CAPS = Caps(messages=99, text_chars=9999, nesting=9)
FOUND = Classification("math", 0.9, False, {"math": 0.9, "code": 0.1})
HI: dict[str, Any] = {"role": "user", "content": "hi"}
HELLO: dict[str, Any] = {"role": "assistant", "content": "hello"}


def calls(*ids: object) -> dict[str, Any]:
    made = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(name: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": "4"}


def thread(home: Conversations, messages: list[Any], tenant: str = "t", **more: Any) -> Any:
    body = {"messages": messages, **more}
    segments = read_messages(messages, CAPS).segments
    return home.of(tenant, ModelRequest(body, "auto", False, False, frozenset()), segments)


@pytest.mark.parametrize(
    ("messages", "is_open"),
    [
        ([HI], False),
        ([HI, HELLO], False),
        ([HI, calls("a")], True),
        ([HI, calls("a"), result("a")], True),
        ([HI, calls("a", "b"), result("b")], True),
        ([HI, calls("a"), result("a"), HI], False),
        ([HI, calls("a", "b"), result("a"), HI], True),
        ([HI, calls("a"), HI], True),
        ([HI, calls("a"), HI, result("a")], True),
        ([HI, calls("a"), result("a"), HELLO, HI], False),
        ([HI, {"role": "assistant", "function_call": {"name": "f", "arguments": ""}}], True),
        ([HI, {"role": "assistant", "function_call": {"name": "f"}}, {"role": "function", "name": "f"}, HI], False),
        ([HI, result("a")], True),
        ([], False),
    ],
    ids=["first", "said", "called", "result", "half", "spoken", "half-spoken", "unanswered", "late", "over", "legacy",
         "legacy-over", "orphan", "empty"],
)  # fmt: skip
def test_a_tool_loop_is_open_until_all_results_are_there_and_somebody_spoke(messages: list[Any], is_open: bool) -> None:
    assert open_loop(messages).open == is_open


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["user", "assistant", "tool"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "tool_calls", "id", "tool_call_id", "function_call"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(json_like)
def test_no_messages_are_too_odd(messages: object) -> None:
    assert open_loop(messages).open in {True, False}


def test_who_answered_a_conversation_is_known_to_its_next_turn() -> None:
    home = Conversations()
    home.note(thread(home, [HI]), "a")
    assert thread(home, [HI, HELLO, HI]).before == "a"


def test_a_conversation_that_begins_is_nobodys_although_its_words_are_known() -> None:
    home = Conversations()
    home.note(thread(home, [HI]), "a")
    assert thread(home, [HI]).before is None


def test_tenants_share_nothing() -> None:
    home = Conversations()
    home.note(thread(home, [HI]), "a")
    assert thread(home, [HI, HELLO, HI], tenant="u").before is None


def test_a_name_tells_conversations_apart_that_begin_alike() -> None:
    home = Conversations()
    one: dict[str, Any] = {"conclave": {"conversation": "1"}}
    two: dict[str, Any] = {"conclave": {"conversation": "2"}}
    home.note(thread(home, [HI], **one), "a")
    home.note(thread(home, [HI], **two), "b")
    assert thread(home, [HI, HELLO, HI], **one).before == "a"
    assert thread(home, [HI, HELLO, HI], **two).before == "b"


def test_the_id_of_a_tool_call_tells_who_made_it_although_another_answered_since() -> None:
    home = Conversations()
    home.note(thread(home, [HI]), "a", ["call_1"])
    home.note(thread(home, [HI]), "b")  # another conversation that begins alike
    assert thread(home, [HI, calls("call_1"), result("call_1")]).before == "a"
    assert thread(home, [HI, calls("call_9"), result("call_9")]).before == "b"


def test_an_hour_later_it_is_forgotten() -> None:
    clock = FakeClock()
    home = Conversations(now_s=clock.now_s, keep_s=3600)
    home.note(thread(home, [HI]), "a")
    clock.advance(3600)
    assert thread(home, [HI, HELLO, HI]).before == "a"
    clock.advance(1)
    assert thread(home, [HI, HELLO, HI]).before is None


def test_the_oldest_goes_when_there_are_too_many() -> None:
    home = Conversations(most=2)
    for name in ("one", "two", "three"):
        home.note(thread(home, [{"role": "user", "content": name}]), "a")
    before = [thread(home, [{"role": "user", "content": name}, HELLO, HI]).before for name in ("one", "two", "three")]
    assert before == [None, "a", "a"]


def test_a_text_is_classified_once_for_a_tenant_and_a_classifier() -> None:
    home, asked = Conversations(), list[str]()

    def classify(text: str) -> Classification:
        asked.append(text)
        return FOUND

    for tenant, about in (("t", "1"), ("t", "1"), ("u", "1"), ("t", "2")):
        assert thread(home, [HI], tenant).memo("2+2?", classify, about) is FOUND
    assert len(asked) == 3


def test_no_more_classifications_are_kept_than_may_be() -> None:
    home, asked = Conversations(most_texts=2), list[str]()

    def classify(text: str) -> Classification:
        asked.append(text)
        return FOUND

    for text in ("a", "b", "a", "c", "a", "b"):
        thread(home, [HI]).memo(text, classify, "1")
    assert asked == ["a", "b", "c", "b"]  # `b` was the one not used for longest


@pytest.mark.parametrize("operation", ["embeddings", "completions", "moderations"])
def test_what_is_no_chat_is_no_conversation(operation: Any) -> None:
    home = Conversations()
    found = home.of("t", ModelRequest({}, "auto", False, False, frozenset(), operation), ())
    assert found is NO_THREAD
    home.note(found, "a")
    assert found.memo("x", lambda _: FOUND, "1") is FOUND


def test_a_text_with_half_a_character_is_remembered_too() -> None:
    home = Conversations()
    assert thread(home, [HI]).memo("\ud800", lambda _: FOUND, "1") is FOUND
