"""What the shipped catalog says of a model's name, and what it says of a name it does not know."""

import math
from typing import get_args

import pytest

from conclave.gateway.experts.catalog import DEFAULT_CAPABILITIES, Capability, Facts, shipped, whole


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        pytest.param("gpt-4o", "gpt-4o", id="as-it-is"),
        pytest.param("gpt-4o-2024-08-06", "gpt-4o", id="dated-snapshot"),
        pytest.param("gpt-4o-mini-2024-07-18", "gpt-4o-mini", id="longer-name"),
        pytest.param("gpt-3.5-turbo-0125", "gpt-3.5-turbo", id="short-date"),
        pytest.param("gpt-4.1-latest", "gpt-4.1", id="latest"),
    ],
)
def test_a_name_or_its_snapshot_is_known(name: str, known_as: str) -> None:
    assert shipped().facts(name) is shipped().models[known_as]


@pytest.mark.parametrize("name", ["gpt-5-pro", "gpt-4o-audio-preview", "gpt", "", "llama3.2:3b", "my-gpt-4o"])
def test_a_mere_beginning_is_not_enough(name: str) -> None:
    """`gpt-5-pro` costs twelve times what `gpt-5` does."""
    assert shipped().facts(name) == Facts()


def test_an_unknown_model_is_taken_to_do_what_nearly_every_server_does() -> None:
    assert Facts().capabilities == DEFAULT_CAPABILITIES == {"tools", "json_mode", "json_schema", "n", "logprobs"}
    assert (Facts().input, Facts().output, Facts().window_tokens) == (None, None, None)


@pytest.mark.parametrize("name", sorted(shipped().models))
def test_every_entry_is_whole(name: str) -> None:
    facts = shipped().models[name]
    assert facts.capabilities <= set(get_args(Capability))
    assert facts.input is not None
    assert facts.output is not None
    if "chat" in whole(facts.capabilities):
        assert 0 < facts.input < facts.output < math.inf
        assert facts.window_tokens
    else:  # what writes no text is not paid for writing, and a moderation for nothing
        assert 0 <= facts.input < math.inf
        assert 0 <= facts.output < math.inf


@pytest.mark.parametrize(
    ("said", "chats"),
    [
        pytest.param([], True, id="nothing-special"),
        pytest.param(["tools"], True, id="tools"),
        pytest.param(["tools", "embeddings"], True, id="tools-and-embeddings"),
        pytest.param(["embeddings"], False, id="embeddings"),
        pytest.param(["completions"], False, id="completions"),
        pytest.param(["moderations", "images"], False, id="moderations-of-images"),
        pytest.param(["images"], True, id="images"),
        pytest.param(["chat", "completions"], True, id="said"),
    ],
)
def test_that_an_expert_chats_goes_without_saying_unless_it_is_there_for_something_else(
    said: list[str], chats: bool
) -> None:
    assert whole(said) == ({*said, "chat"} if chats else set(said))
