"""The ordinary openai client against a real gateway process, plain and streaming."""

from collections.abc import Iterator

import openai
import pytest
from processes import Gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


HELLO = [{"role": "user", "content": "hello"}]


def test_a_plain_answer_says_which_expert_gave_it_and_why(client: openai.OpenAI, gateway: Gateway) -> None:
    answer = client.chat.completions.with_raw_response.create(model="auto", messages=HELLO)  # type: ignore[arg-type]
    parsed = answer.parse()
    assert parsed.choices[0].message.content == "echo: hello"
    assert parsed.usage is not None
    explained = parsed.model_extra["conclave"]  # type: ignore[index]
    assert explained["expert"] == answer.headers["x-conclave-expert"] == "echo"
    assert explained["category"] == answer.headers["x-conclave-category"]
    row = gateway.row(answer.headers["x-request-id"])
    assert (row["ending"], row["status"], row["attempts"][0]["expert"]) == ("answered", 200, "echo")
    assert row["usage"]["completion_tokens"] == 2


def test_a_stream_arrives_in_pieces_and_its_last_chunk_explains(client: openai.OpenAI, gateway: Gateway) -> None:
    chunks = list(client.chat.completions.create(model="auto", messages=HELLO, stream=True))  # type: ignore[call-overload]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "echo: one two three four"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    explained = chunks[-1].model_extra["conclave"]
    assert explained["expert"] == "echo"
    row = gateway.row(explained["request_id"])
    assert (row["ending"], row["usage"]["prompt_tokens"]) == ("answered", 3)


def test_usage_comes_last_when_it_was_asked_for(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(  # type: ignore[call-overload]
            model="auto", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 5


def test_an_expert_can_be_asked_by_name(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=HELLO)  # type: ignore[arg-type]
    assert answer.model_extra["conclave"]["reason"] == "named"  # type: ignore[index]


def test_models_lists_experts_and_virtual_models(client: openai.OpenAI) -> None:
    assert {"auto", "auto:cheap", "auto:best", "echo", "paced"} <= {model.id for model in client.models.list()}


def test_an_unknown_model_is_the_clients_not_found_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-9", messages=HELLO)  # type: ignore[arg-type]
    assert refused.value.code == "model_not_found"


def test_the_upstreams_own_refusal_comes_through_in_its_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="picky", messages=HELLO)  # type: ignore[arg-type]
    assert "picky says no" in refused.value.message
    assert refused.value.param == "top_k"
    assert refused.value.response.headers["x-should-retry"] == "false"
