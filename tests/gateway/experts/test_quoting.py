"""The expert that answers by quoting. The two tables of questions are what its relevance floor was set by."""

import asyncio
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.call import Chunk, ModelRequest
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.evidence import Evidence, Shown
from conclave.gateway.experts.quoting import NO_PASSAGE, QuotedAnswer, QuotingExpert
from conclave.gateway.prompt import Prompt, compose, quoted
from conclave.gateway.reply import Reply
from conclave.retrieval.api import Passage
from conclave.retrieval.docs import index_folder, load_docs
from conclave.retrieval.store import Store
from conclave.safety.boundary.fence import Fences

HANDBOOK = Path(__file__).with_name("handbook")
NEVER_S = 1e9

# What a newcomer asks, and words that the answer must hold.
ANSWERED = {
    "What is Conclave?": "gateway for language models",
    "How do I start the gateway?": "make run",
    "How do I run the tests?": "make test",
    "Can I use the openai Python client?": 'base_url="http://127.0.0.1:8080/v1"',
    "Does streaming work?": "stream=True",
    "Which port does the gateway listen on?": "127.0.0.1:8080",
    "How can I change the port?": "server.port",
    "How do I add an expert?": "policy.experts",
    "How do I connect Ollama?": "OLLAMA_HOST",
    "Where do I put my OPENAI_API_KEY?": "found in the environment",
    "How do I create an API key?": "conclave keys create",
    "How do I revoke a key?": "conclave keys revoke",
    "What happens when an expert fails?": "the next expert",
    "What happens when a key has expired?": "invalid_api_key",
    "Are my prompts stored?": "is not stored",
    "Are prompts written to the logs?": "Logs never contain prompts",
    "How do I verify the audit record?": "conclave audit verify",
    "How do I delete old audit rows?": "conclave audit prune",
    "Which expert answered my question, and why?": "x-conclave-expert",
    "How does the router choose a category?": "calibrated classifier",
    "Is there a Docker image?": "docker compose up",
    "Where are the metrics for Prometheus?": "/metrics",
    "How do I index my own documents?": "policy.documents",
    "What is the request body limit?": "10 MB",
    "How many requests per minute are allowed?": "requests_per_minute",
    "What licence does Conclave have?": "Apache License 2.0",
    "How do I stop the gateway without cutting streams?": "SIGTERM",
    "How do I upgrade?": "conclave migrate",
    "How do I set the log level?": "server.log_level",
    "What is recorded about a call?": "the status, and the tokens",
}
# What has no answer in the handbook, though words of it may stand there.
UNANSWERED = [
    "",
    "Hello",
    "Hi, how are you?",
    "Who are you?",
    "What time is it?",
    "Tell me a joke about Conclave.",
    "What is the capital of Peru?",
    "Write a poem about the sea.",
    "Who won the football world cup in 1998?",
    "How do I bake bread without yeast?",
    "How do I run a marathon?",
    "What is 17 times 23?",
    "Translate 'good morning' into French.",
    "Explain the theory of relativity.",
    "Write a Python function that reverses a list.",
    "How do I sort an array in JavaScript?",
    "Which keys does a piano have?",
    "Who wrote the Python interpreter?",
    "Recommend a port wine for dessert.",
    "What are the symptoms of measles?",
    "Are experts better than novices at chess?",
    "Start a story about a dragon.",
    "When does the next stream of my favourite gamer begin?",
    "What's my account balance?",
    "Book me a table for two.",
    "The rate of inflation rose. What should the central bank do?",
    "🙂",
    '"" AND OR NEAR(',
]


def handbook() -> Store:
    store = Store.in_memory()
    index_folder(store, HANDBOOK)
    return store


@pytest.fixture(scope="module")
def expert() -> Iterator[QuotingExpert]:
    store = handbook()
    yield QuotingExpert(
        "quoting", store, new_id=lambda: "chatcmpl-1", epoch_s=lambda: 1_700_000_000.9, now_s=lambda: 5.0
    )
    store.close()


def prompt(question: object, *, stream: bool = False, **body: Any) -> Prompt:
    return Prompt({"messages": [{"role": "user", "content": question}], "stream": stream, **body}, stream=stream)


def ask(expert: QuotingExpert, asked: Prompt) -> list[Chunk]:
    async def drain() -> list[Chunk]:
        return [chunk async for chunk in expert.open(asked, deadline_s=NEVER_S)]

    return asyncio.run(drain())


def said(chunks: list[Chunk]) -> str:
    """What a client puts together from an answer of either kind."""
    choices = [choice for chunk in chunks for choice in chunk.event["choices"]]
    return "".join((choice.get("message") or choice.get("delta")).get("content", "") for choice in choices)


def unquoted(text: str) -> str:
    return re.sub(r"^> ?", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("question", "words"), ANSWERED.items(), ids=ANSWERED)
def test_a_newcomers_question_is_answered(expert: QuotingExpert, question: str, words: str) -> None:
    answer = said(ask(expert, prompt(question)))
    assert words in " ".join(unquoted(answer).split())
    assert re.search(r"^- \[1\] handbook/\w+\.md", answer, re.MULTILINE)


@pytest.mark.parametrize("question", UNANSWERED, ids=ascii)
def test_a_question_about_something_else_gets_no_quotation(expert: QuotingExpert, question: str) -> None:
    assert said(ask(expert, prompt(question))) == NO_PASSAGE


def test_the_shipped_documents_answer_newcomers_and_nobody_else() -> None:
    """At least three questions in four; the documents may say some things in other words."""
    expert = QuotingExpert("quoting", load_docs())
    answered = [question for question in ANSWERED if said(ask(expert, prompt(question))) != NO_PASSAGE]
    astray = [question for question in UNANSWERED if said(ask(expert, prompt(question))) != NO_PASSAGE]
    asyncio.run(expert.aclose())
    assert len(answered) >= 0.75 * len(ANSWERED), set(ANSWERED) - set(answered)
    assert len(astray) <= 1, astray


@pytest.mark.parametrize("question", ANSWERED, ids=str)
def test_every_quotation_stands_in_its_document(expert: QuotingExpert, question: str) -> None:
    """What is quoted under [n] is found, word for word, in the file that [n] names."""
    quoted, _, sources = said(ask(expert, prompt(question))).partition("\n\nSources:\n\n")
    places = re.findall(r"^- \[\d+\] handbook/(\S+\.md)", sources, re.MULTILINE)
    quotations = re.split(r"\n\n\[\d+\]\s*", unquoted(quoted))[:-1]
    assert len(places) == len(quotations) > 0
    for place, quotation in zip(places, quotations, strict=True):
        assert quotation in (HANDBOOK / place).read_text()


def test_an_answer_shows_quotations_first_and_sources_last(expert: QuotingExpert) -> None:
    assert said(ask(expert, prompt("Is there a Docker image?"))) == (
        "> ```sh\n> docker compose up\n> ```\n>\n"
        "> The container runs as a user without rights, on a read-only file system. Put the state folder on a volume.\n"
        ">\n> [1]\n\nSources:\n\n- [1] handbook/operations.md, Docker"
    )


@pytest.mark.parametrize("question", [*ANSWERED, "What is the capital of Peru?"], ids=str)
def test_a_stream_says_what_a_plain_answer_says(expert: QuotingExpert, question: str) -> None:
    streamed = ask(expert, prompt(question, stream=True))
    assert said(streamed) == said(ask(expert, prompt(question)))
    assert len(streamed) > 3


def test_the_same_question_gets_the_same_bytes(expert: QuotingExpert) -> None:
    """Over an index that was built again, too."""
    again = QuotingExpert("quoting", handbook(), new_id=lambda: "chatcmpl-1", epoch_s=lambda: 1_700_000_000.9)
    for question in ANSWERED:
        for stream in (False, True):
            asked = prompt(question, stream=stream)
            assert [c.data for c in ask(expert, asked)] == [c.data for c in ask(again, asked)]
    asyncio.run(again.aclose())


def test_a_plain_answer_is_one_chat_completion(expert: QuotingExpert) -> None:
    (chunk,) = ask(expert, prompt("How do I upgrade?"))
    content = chunk.event["choices"][0]["message"]["content"]
    words = len(content.split())
    assert chunk.event == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "quoting",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 4, "completion_tokens": words, "total_tokens": words + 4},
    }


def test_a_stream_begins_with_the_role_and_ends_with_the_reason(expert: QuotingExpert) -> None:
    events = [chunk.event for chunk in ask(expert, prompt("How do I upgrade?", stream=True))]
    choices = [event["choices"][0] for event in events]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert all("usage" not in event for event in events)
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert choices[-1] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all(choice["finish_reason"] is None and choice["delta"]["content"] for choice in choices[1:-1])


def test_usage_is_streamed_only_if_asked_for(expert: QuotingExpert) -> None:
    asked = prompt("How do I upgrade?", stream=True, stream_options={"include_usage": True})
    *events, last = [chunk.event for chunk in ask(expert, asked)]
    assert all(event["usage"] is None for event in events)
    assert last["choices"] == []
    assert last["usage"] == ask(expert, prompt("How do I upgrade?"))[0].event["usage"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_is_kept(expert: QuotingExpert, key: str, *, stream: bool) -> None:
    whole = said(ask(expert, prompt("How do I upgrade?")))
    chunks = ask(expert, prompt("How do I upgrade?", stream=stream, **{key: 7}))
    assert whole.startswith(said(chunks))
    assert len(said(chunks).split()) == 7
    assert chunks[-1].event["choices"][0]["finish_reason"] == "length"


def test_a_token_limit_that_is_just_enough_ends_with_stop(expert: QuotingExpert) -> None:
    words = len(said(ask(expert, prompt("How do I upgrade?"))).split())
    (chunk,) = ask(expert, prompt("How do I upgrade?", max_tokens=words))
    assert chunk.event["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": "text", "text": "How do I"}, {"type": "text", "text": "upgrade?"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "upgrade"}]}],
        [{"role": "user", "content": "What is Conclave?"}, {"role": "user", "content": "How do I upgrade?"}],
        [{"role": "system", "content": "Answer in French."}, {"role": "user", "content": "How do I upgrade?"}],
        [{"role": "user", "content": "How do I upgrade?"}, {"role": "assistant", "content": "Docker"}],
    ],
    ids=["parts", "parts with an image", "the last of two", "after a system prompt", "before an assistant's words"],
)
def test_the_question_is_the_last_user_message(expert: QuotingExpert, messages: list[dict[str, Any]]) -> None:
    assert "conclave migrate" in said(ask(expert, Prompt({"messages": messages}, stream=False)))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None},
        {"messages": []},
        {"messages": ["x", {"role": "user"}]},
        {"messages": [{"role": "user", "content": 7}]},
    ],
    ids=["nothing", "null", "empty", "not messages", "not text"],
)
def test_a_prompt_without_a_question_gets_no_quotation(expert: QuotingExpert, body: dict[str, Any]) -> None:
    assert said(ask(expert, Prompt(body, stream=False))) == NO_PASSAGE


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_the_gateway_takes_the_answer(expert: QuotingExpert, *, stream: bool) -> None:
    """Fed to the Reply that shows it to the client, it is whole and its usage and reason are read."""
    asked = prompt("How do I upgrade?", stream=stream, stream_options={"include_usage": True})
    chunks = ask(expert, asked)
    reply = Reply(ModelRequest({}, "auto", stream, include_usage=True, needs=frozenset()), digest_key=b"k")
    shown = [out for chunk in chunks for out in reply.feed(chunk)]
    shown += reply.finish({"expert": "quoting"})
    assert said(shown) == said(chunks)
    assert (reply.finish_reason, reply.model, reply.usage.prompt_tokens) == ("stop", "quoting", 4)
    assert shown[-1].event["conclave"] == {"expert": "quoting"}


async def test_the_attempt_says_when_it_began_and_ended() -> None:
    now = iter(range(100))
    expert = QuotingExpert("quoting", handbook(), now_s=lambda: float(next(now)))
    upstream = expert.open(prompt("How do I upgrade?"), deadline_s=NEVER_S)
    assert (upstream.attempt.expert, upstream.attempt.model, upstream.attempt.started_s) == ("quoting", "quoting", 0.0)
    assert upstream.attempt.first_byte_s is None
    assert [chunk async for chunk in upstream]
    assert upstream.attempt.first_byte_s is not None
    assert upstream.attempt.ended_s is not None
    assert upstream.attempt.started_s < upstream.attempt.first_byte_s < upstream.attempt.ended_s
    assert upstream.attempt.failure is None
    await expert.aclose()


@pytest.mark.parametrize("read", [0, 1, 2], ids=["before", "at the role", "midway"])
async def test_a_closed_answer_gives_nothing_more(expert: QuotingExpert, read: int) -> None:
    upstream = expert.open(prompt("How do I upgrade?", stream=True), deadline_s=NEVER_S)
    for _ in range(read):
        await anext(upstream)
    upstream.close()
    upstream.close()
    with pytest.raises(StopAsyncIteration):
        await anext(upstream)


async def test_past_the_deadline_there_is_no_answer(expert: QuotingExpert) -> None:
    with pytest.raises(DeadlineExceeded):
        await anext(expert.open(prompt("How do I upgrade?"), deadline_s=5.0))


class WatchedStore(Store):
    """Notes which thread searched."""

    searched_in: int | None = None

    def matches(self, query: str, *, limit: int = 3) -> Any:
        self.searched_in = threading.get_ident()
        return super().matches(query, limit=limit)


@pytest.mark.parametrize("kept", ["in memory", "in a file"])
async def test_only_a_quick_search_runs_on_the_loop(tmp_path: Path, kept: str) -> None:
    store = WatchedStore.in_memory() if kept == "in memory" else WatchedStore.open(tmp_path / "index.db")
    index_folder(store, HANDBOOK)
    expert = QuotingExpert("quoting", store)
    assert "migrate" in said([c async for c in expert.open(prompt("How do I upgrade?"), deadline_s=NEVER_S)])
    assert (store.searched_in == threading.get_ident()) is (kept == "in memory")
    await expert.aclose()


async def test_a_huge_conversation_is_counted_on_a_thread() -> None:
    store = WatchedStore.in_memory()
    index_folder(store, HANDBOOK)
    expert = QuotingExpert("quoting", store)
    messages = [{"role": "user", "content": "word " * 100_000}, {"role": "user", "content": "How do I upgrade?"}]
    (chunk,) = [c async for c in expert.open(Prompt({"messages": messages}, stream=False), deadline_s=NEVER_S)]
    assert chunk.event["usage"]["prompt_tokens"] == 100_004
    assert store.searched_in != threading.get_ident()
    await expert.aclose()


async def test_an_index_that_cannot_be_read_is_a_failed_expert() -> None:
    expert = QuotingExpert("quoting", handbook())
    await expert.aclose()
    upstream: QuotedAnswer = expert.open(prompt("How do I upgrade?"), deadline_s=NEVER_S)
    with pytest.raises(ExpertFailed) as failed:
        await anext(upstream)
    assert failed.value.kind == upstream.attempt.failure == "connect"


def looked_up(question: Any, *texts: str, stream: bool = False) -> Prompt:
    """What the expert is sent for a call that was looked up."""
    kept = tuple(
        Shown(number, Passage(text, f"{number}.md", "A > B", 0, len(text)), text, f"{number}.md, A > B")
        for number, text in enumerate(texts, 1)
    )
    ready = quoted(Evidence(kept), Fences("delimit"), key=b"k", conversation="x")
    body = {"model": "auto", "messages": [{"role": "user", "content": question}], "stream": stream}
    return compose(ModelRequest(body, "auto", stream, False, frozenset()), evidence=ready)


TOWER = "In the tower of Zunelor hang eleven bells."
OTHER = "The harbour of Zunelor is closed in winter."
BELLS_ASKED = "How many bells hang in the tower of Zunelor?"


@pytest.mark.parametrize("question", [BELLS_ASKED, [{"type": "text", "text": BELLS_ASKED}]], ids=["text", "parts"])
def test_what_was_looked_up_is_quoted_by_the_numbers_it_has(expert: QuotingExpert, question: Any) -> None:
    answer = said(ask(expert, looked_up(question, OTHER, TOWER)))
    assert unquoted(answer).startswith(TOWER)
    assert "[2]" in answer
    assert "- [2] 2.md, B" in answer
    assert "[1]" not in answer
    assert "handbook" not in answer


def test_passages_without_a_word_of_the_question_are_not_quoted(expert: QuotingExpert) -> None:
    assert said(ask(expert, looked_up("Recommend a wine?", TOWER))) == NO_PASSAGE


def test_what_the_checks_cut_out_of_a_passage_is_not_quoted(expert: QuotingExpert) -> None:
    prompt_ = looked_up(BELLS_ASKED, TOWER)
    assert prompt_.evidence is not None
    [one] = prompt_.evidence.shown
    shown = Shown(1, one.passage, TOWER.replace("eleven", "[secrets removed]"), one.name)
    evidence = replace(prompt_.evidence, shown=(shown,))
    answer = said(ask(expert, Prompt(prompt_.body, stream=False, evidence=evidence)))
    assert "eleven" not in answer
    assert "[secrets removed]" in answer


def test_a_stream_of_what_was_looked_up_says_the_same(expert: QuotingExpert) -> None:
    assert said(ask(expert, looked_up(BELLS_ASKED, OTHER, TOWER, stream=True))) == said(
        ask(expert, looked_up(BELLS_ASKED, OTHER, TOWER))
    )


@pytest.mark.parametrize(
    ("question", "quoted_"),
    [("What does the Zorblat 9 cost for resellers?", False), ("How long is the warranty of the Zorblat 9?", True)],
    ids=["about something else", "answered"],
)
def test_what_was_looked_up_is_quoted_only_where_it_holds_half_of_the_question(
    expert: QuotingExpert, question: str, quoted_: bool
) -> None:
    """Where a policy always looks up, the best passages may be about something else."""
    passage = "The warranty of the Zorblat 9 lasts 27 months from delivery."
    answer = said(ask(expert, looked_up(question, passage)))
    assert (passage in answer) is quoted_
    assert (answer == NO_PASSAGE) is not quoted_
