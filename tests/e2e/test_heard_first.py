"""An expert that is heard without documents first, with real processes and the client that people use."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from processes import Gateway, Process, ask, config, launch, until
from shelf import Leaf, shelve

from conclave.router.encoder import StaticEncoder

MODELS = ("sure", "unsure")
ASKED = "How many bells hang in the tower of Zunelor?"
BELLS = "In the tower of Zunelor hang eleven bells, cast in one summer."
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


@pytest.fixture(scope="module")
def gateway(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = config(upstream.port)
    experts = settings["policy"]["experts"]
    for model in MODELS:
        experts[model] = {**experts["echo"], "model": model}
    heard = {"evidence": ["logprobs"], "abstain": True}
    settings["policy"] |= {"default": list(MODELS), "retrieval": {"mode": "always", "closed_book": heard}}
    folder = tmp_path_factory.mktemp("heard")
    shelve(folder / ".conclave" / "knowledge", StaticEncoder.load().encode, [Leaf(BELLS, "towers.md", "Bells")])
    running = launch(folder, settings)
    yield running
    running.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=2) as made:
        yield made


def asked(model: str, *, stream: bool, **retrieval: Any) -> dict[str, Any]:
    return ask(model, ASKED, stream=stream) | {
        "extra_body": {"conclave": {"retrieval": {"mode": "always", **retrieval}}},
    }


@BOTH
def test_who_is_not_sure_is_shown_documents_and_both_calls_are_paid(
    gateway: Gateway, client: openai.OpenAI, stream: bool
) -> None:
    before = len(gateway.rows())
    said = client.chat.completions.create(**asked("unsure", stream=stream))
    last = list(said)[-1] if stream else said
    told = last.model_extra["conclave"]
    assert (told["reason"], told["retrieval"]["used"]) == ("documents", True)
    assert told["hallucination_risk"]["type"] == "ignorance"
    [row] = until(lambda: gateway.rows()[before:], "its row is written")
    assert [one["expert"] for one in row["attempts"]] == ["unsure", "unsure"]
    assert row["usage"]["completion_tokens"] == sum(one["usage"]["completion_tokens"] for one in row["attempts"])
    done = until(
        lambda: (ended := gateway.cli("router", "replay", row["request_id"])).returncode == 0 and ended,
        "the audit table has it",
    )
    assert "same" in done.stdout


@BOTH
def test_a_guess_that_no_document_helps_is_one_422_that_nobody_retries(
    gateway: Gateway, client: openai.OpenAI, stream: bool
) -> None:
    before = len(gateway.rows())
    with pytest.raises(openai.UnprocessableEntityError) as error:
        list(client.chat.completions.create(**asked("unsure", stream=stream, collections=["nowhere"])))
    assert error.value.code == "abstained"
    assert error.value.response.headers["x-should-retry"] == "false"
    rows = until(lambda: gateway.rows()[before:], "its row is written")
    assert [(row["status"], row["code"], len(row["attempts"])) for row in rows] == [(422, "abstained", 1)]


@BOTH
def test_who_is_sure_answers_where_there_are_no_documents(client: openai.OpenAI, stream: bool) -> None:
    said = client.chat.completions.create(**asked("sure", stream=stream, collections=["nowhere"]))
    last = list(said)[-1] if stream else said
    told = last.model_extra["conclave"]
    assert (told["expert"], told["reason"], told["hallucination_risk"]["type"]) == ("sure", "closed_book", "known")
