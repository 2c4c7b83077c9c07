"""Texts are put back where they were read from; nothing else of the body changes, and the body itself never does."""

import copy
from typing import Any

import pytest

from conclave.gateway.redaction import replaced
from conclave.safety.boundary.caps import Caps
from conclave.safety.boundary.segments import read_inputs, read_messages

BODY: dict[str, Any] = {
    "model": "auto",
    "messages": [
        {"role": "system", "content": "be kind"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "refusal": "no",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "done"},
        {"role": "user", "content": [{"type": "file", "file": {"filename": "a.txt", "file_data": "x"}}]},
    ],
}
CAPS = Caps(messages=100, text_chars=10_000, nesting=64)
PLACES = {segment.place: segment.text for segment in read_messages(BODY["messages"], CAPS).segments}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_that_the_boundary_names_can_be_written(place: str) -> None:
    before = copy.deepcopy(BODY)
    changed = replaced(BODY, {place: "NEW"})
    assert before == BODY
    found = {segment.place: segment.text for segment in read_messages(changed["messages"], CAPS).segments}
    assert found == {**PLACES, place: "NEW"}


@pytest.mark.parametrize(
    "given", ["one", ["one", "two"], [{"type": "text", "text": "one"}]], ids=["text", "texts", "parts"]
)
@pytest.mark.parametrize("field", ["input", "prompt"])
def test_inputs_can_be_written_too(given: object, field: str) -> None:
    body = {"model": "m", field: given}
    place = read_inputs(given, CAPS, place=field).segments[0].place
    changed = replaced(body, {place: "NEW"})
    assert read_inputs(changed[field], CAPS, place=field).segments[0].text == "NEW"
    assert body == {"model": "m", field: given}


def test_several_places_change_at_once() -> None:
    changed = replaced(BODY, {"messages[0].content": "A", "messages[3].content": "B"})
    assert (changed["messages"][0]["content"], changed["messages"][3]["content"]) == ("A", "B")
    assert changed["messages"][1] is BODY["messages"][1]


def test_what_was_read_out_of_a_file_takes_its_place_and_an_image_stays() -> None:
    changed = replaced(BODY, {"messages[4].content[0].inside": "cut", "messages[1].content[1].inside": "cut"})
    assert changed["messages"][4]["content"] == [{"type": "text", "text": "cut"}]
    assert changed["messages"][1] == BODY["messages"][1]
