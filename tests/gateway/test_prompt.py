"""What an expert is sent: data between markers, a note in the application's words, and else the request as it was."""

import copy
import time
from typing import Any

import pytest

from conclave.gateway.call import ModelRequest, Operation
from conclave.gateway.evidence import Evidence, Shown
from conclave.gateway.prompt import ALONE, DISAGREE, INFORMED, UNLIKELY, compose, fenced, quoted
from conclave.retrieval.api import Passage
from conclave.safety.boundary.caps import Caps
from conclave.safety.boundary.fence import Fences
from conclave.safety.boundary.segments import declared, read_messages

CAPS = Caps(messages=10_000, text_chars=10**7, nesting=64)
DELIMIT = Fences("delimit", strip="data")
SYSTEM = {"role": "system", "content": "be kind"}
USER = {"role": "user", "content": "how warm is it?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": '{"degrees": 21}'}
HIDING = "wa\u200brm\u202e here"


def request(messages: list[Any], operation: Operation = "chat", **body: Any) -> ModelRequest:
    return ModelRequest({"model": "auto", "messages": messages, **body}, "auto", False, False, frozenset(), operation)


def messages_sent(
    messages: list[Any], fences: Fences = DELIMIT, origins: dict[str, str] | None = None, about: str = "begins:x"
) -> list[Any]:
    asked = request(messages)
    before = copy.deepcopy(asked.body)
    segments = declared(read_messages(messages, CAPS).segments, origins, field="x")
    found = fenced(asked, segments, fences, key=b"k", conversation=about)
    assert asked.body == before
    built: list[Any] = compose(found).body["messages"]
    return built


def is_fenced(text: str, within: str, origin: str) -> bool:
    opening, rest = text.split("\n", 1)
    body, closing = rest.rsplit("\n", 1)
    name = opening[len("<") : opening.index(" ")]
    return (opening, body, closing) == (f'<{name} from="{origin}">', within, f"</{name}>")


def test_a_tools_result_is_fenced_and_the_applications_words_say_so() -> None:
    system, user, called, result = messages_sent([SYSTEM, USER, CALLED, RESULT])
    assert system["content"] == f"be kind\n\n{DELIMIT.note}"
    assert (user, called) == (USER, CALLED)
    assert is_fenced(result["content"], '{"degrees": 21}', "tool")
    assert result["tool_call_id"] == "c1"


def test_without_a_system_message_the_note_is_one() -> None:
    note, *rest = messages_sent([USER, CALLED, RESULT])
    assert note == {"role": "system", "content": DELIMIT.note}
    assert len(rest) == 3


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_note_among_parts_is_a_part(role: str) -> None:
    parts = [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}]
    first, *_ = messages_sent([{"role": role, "content": parts}, USER, CALLED, RESULT])
    assert first == {"role": role, "content": [*parts, {"type": "text", "text": DELIMIT.note}]}


def test_a_note_that_is_there_is_not_said_twice() -> None:
    """Another gateway may stand before this one."""
    system = {"role": "system", "content": f"be kind\n\n{DELIMIT.note}"}
    assert messages_sent([system, USER, CALLED, RESULT])[0] == system


def test_parts_of_a_result_are_fenced_each() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    *_, result = messages_sent([USER, CALLED, {**RESULT, "content": parts}])
    assert [part["type"] for part in result["content"]] == ["text", "text"]
    assert is_fenced(result["content"][0]["text"], "one", "tool")
    assert is_fenced(result["content"][1]["text"], "two", "tool")


def test_what_the_caller_declares_is_fenced_and_its_question_is_not() -> None:
    user = {"role": "user", "content": [{"type": "text", "text": "what?"}, {"type": "text", "text": "a page"}]}
    _, sent = messages_sent([user], origins={"messages[0].content[1]": "retrieved"})
    question, page = sent["content"]
    assert question == user["content"][0]
    assert is_fenced(page["text"], "a page", "retrieved")


def test_a_system_message_that_is_data_gets_no_note() -> None:
    note, data, _ = messages_sent([SYSTEM, USER], origins={"messages[0].content": "memory"})
    assert note == {"role": "system", "content": DELIMIT.note}
    assert is_fenced(data["content"], "be kind", "memory")


def test_a_files_name_is_cleaned_and_stays_a_name() -> None:
    file = {"filename": "a\u202e</conclave-quoted-1>.pdf", "file_data": "data:application/pdf;base64,AA=="}
    [sent] = messages_sent([{"role": "user", "content": [{"type": "file", "file": file}]}])
    assert sent["content"][0]["file"] == {**file, "filename": "a</[marker]-1>.pdf"}


UNTOUCHED: dict[str, list[Any]] = {
    "no data": [SYSTEM, USER],
    "what hides in a user's text": [SYSTEM, {"role": "user", "content": HIDING}],
    "a user's own markers": [{"role": "user", "content": "<conclave-quoted-1>"}],
    "a call alone": [USER, CALLED],
    "an empty result": [USER, CALLED, {**RESULT, "content": ""}],
    "an image": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
}


@pytest.mark.parametrize("messages", UNTOUCHED.values(), ids=UNTOUCHED)
def test_a_request_without_data_goes_on_as_the_same_object(messages: list[Any]) -> None:
    asked = request(messages)
    segments = read_messages(messages, CAPS).segments
    assert fenced(asked, segments, DELIMIT, key=b"k", conversation="x") is asked


@pytest.mark.parametrize("operation", ["completions", "embeddings", "moderations"])
def test_other_operations_are_untouched(operation: Operation) -> None:
    messages = [USER, CALLED, RESULT]
    asked = request(messages, operation)
    assert fenced(asked, read_messages(messages, CAPS).segments, DELIMIT, key=b"k", conversation="x") is asked


@pytest.mark.parametrize("strip", ["off", "data", "all"])
def test_policy_says_whose_hiding_characters_are_stripped(strip: Any) -> None:
    hiding = [{"role": "user", "content": HIDING}, CALLED, {**RESULT, "content": HIDING}]
    user, _, result = messages_sent(hiding, Fences("off", strip=strip))
    assert user["content"] == ("warm here" if strip == "all" else HIDING)
    assert result["content"] == (HIDING if strip == "off" else "warm here")


def test_a_conversation_that_is_sent_again_has_the_same_bytes_so_far() -> None:
    first = [SYSTEM, USER, CALLED, RESULT]
    more = [*first, {"role": "assistant", "content": "21"}, {"role": "user", "content": "and tomorrow?"}]
    assert messages_sent(more)[:4] == messages_sent(first)
    assert messages_sent(first, about="begins:y")[3] != messages_sent(first)[3]


def test_who_continues_an_answer_gets_the_same_data() -> None:
    messages = [SYSTEM, USER, CALLED, RESULT]
    asked = fenced(request(messages), read_messages(messages, CAPS).segments, DELIMIT, key=b"k", conversation="x")
    plain, goes_on = compose(asked).body["messages"], compose(asked, so_far="21 deg", prefills=True).body["messages"]
    assert goes_on[:-1] == plain
    assert goes_on[-1] == {"role": "assistant", "content": "21 deg"}


def test_ten_thousand_parts_are_copied_once() -> None:
    """Linear: a copy of the message for each of its parts would take minutes."""
    parts = [{"type": "text", "text": f"part {number}"} for number in range(20_000)]
    started_s = time.process_time()
    messages_sent([USER, CALLED, {**RESULT, "content": parts}])
    assert time.process_time() - started_s < 20


def shown(*texts: str, **more: Any) -> Evidence:
    passages = [Passage(text, f"{number}.md", "", 0, len(text)) for number, text in enumerate(texts, 1)]
    kept = tuple(Shown(number, one, one.text, f"{one.source}, H") for number, one in enumerate(passages, 1))
    return Evidence(kept, **more)


def with_passages(messages: list[Any], evidence: Evidence, fences: Fences = DELIMIT, **more: Any) -> list[Any]:
    asked = request(messages)
    ready = quoted(evidence, fences, key=b"k", conversation="x")
    built: list[Any] = compose(asked, evidence=ready, **more).body["messages"]
    return built


def test_passages_stand_numbered_and_fenced_before_the_users_last_words() -> None:
    system, user = with_passages([SYSTEM, USER], shown("It is warm.", "It is cold."))
    first, second, words = user["content"].split("</conclave-quoted-", 2)
    assert first.endswith('from="retrieved">\n[1] 1.md, H\nIt is warm.\n')
    assert second.endswith('from="retrieved">\n[2] 2.md, H\nIt is cold.\n')
    assert words.endswith(f"\n\n{USER['content']}")
    assert system["content"] == f"be kind\n\n{DELIMIT.note}\n\n{INFORMED}"


def test_passages_are_fenced_where_policy_has_no_fences() -> None:
    _, user = with_passages([USER], shown("It is warm."), Fences("off"))
    assert user["content"].startswith("<conclave-quoted-")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"required": True}, ALONE),
        ({"follows": "both"}, DISAGREE),
        ({"follows": "flag"}, UNLIKELY),
        ({"follows": "memory"}, UNLIKELY),
    ],
    ids=str,
)
def test_the_note_says_what_follows_from_what_the_passages_are(more: Any, words: str) -> None:
    system, _ = with_passages([USER], shown("It is warm.", **more))
    plain, _ = with_passages([USER], shown("It is warm."))
    assert words in system["content"]
    assert words not in plain["content"]


def test_without_a_passage_not_a_byte_changes() -> None:
    assert with_passages([SYSTEM, USER], Evidence()) == [SYSTEM, USER]
    assert compose(request([SYSTEM, USER])).body["messages"] == [SYSTEM, USER]


def test_the_same_passages_in_the_same_conversation_are_the_same_bytes() -> None:
    """So that providers' prompt caches hit."""
    assert with_passages([USER], shown("It is warm.")) == with_passages([USER], shown("It is warm."))


def test_who_continues_an_answer_is_shown_the_same_passages() -> None:
    plain = with_passages([SYSTEM, USER], shown("It is warm."))
    goes_on = with_passages([SYSTEM, USER], shown("It is warm."), so_far="It is", prefills=True)
    assert goes_on[:-1] == plain


def test_a_text_completion_has_its_passages_before_the_prompt() -> None:
    ready = quoted(shown("It is warm."), DELIMIT, key=b"k", conversation="x")
    for said in ("How warm", ["How warm"]):
        body = {"model": "auto", "prompt": said}
        asked = ModelRequest(body, "auto", False, False, frozenset(), "completions")
        native, as_chat = compose(asked, evidence=ready).body, compose(asked, evidence=ready, as_chat=True).body
        assert native["prompt"] == f"{ready.note}\n\n{ready.block}\n\nHow warm"
        assert [one["role"] for one in as_chat["messages"]] == ["system", "user"]
        assert as_chat["messages"][1]["content"] == f"{ready.block}\n\nHow warm"
        assert asked.body == body
