"""The probabilities of tokens: each goes with its text, however a stream is cut, and none of what was cut out does."""

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.safety.stream_splits import ACTIONS, CHECKS, CORPUS, PIECES
from conclave.gateway.call import Chunk
from conclave.gateway.errors import Blocked
from conclave.gateway.guard import Guard
from conclave.safety.api import Action
from conclave.safety.output.api import OutputRule, Restorer
from conclave.safety.output.plan import Plan

A, R, B = Action.ANNOTATE, Action.REDACT, Action.BLOCK
HARMLESS = (
    "the quick fox ",
    "go",
    "d ",
    "http",
    "pip",
    " in",
    "\n",
    "[",
    "\U0001f600",
    "\u4f60\u597d",
    "e\u0301",
    "x" * 90,
    "```\n",
)


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the text, from one character to another; `entry` is what a server says of it."""

    start: int
    end: int
    entry: dict[str, Any]


def tokens_of(text: str, draw: random.Random) -> list[Token]:
    """Cut at bytes, as vocabularies do: a character may be in two tokens."""
    written = text.encode()
    cuts = sorted({0, len(written), *draw.choices(range(len(written) + 1), k=len(written) // 3)})
    found = []
    for number, (first, last) in enumerate(itertools.pairwise(cuts)):
        own = written[first:last]
        start = len(written[:first].decode("utf-8", "ignore"))
        end = len(written[:last].decode("utf-8", "replace"))
        entry = {
            "token": own.decode("utf-8", "replace"),
            "logprob": -number / 8,
            "bytes": list(own),
            "top_logprobs": [],
        }
        found.append(Token(start, end, entry))
    return found


def chunk(piece: str, entries: Sequence[dict[str, Any]], finish: str | None = None, field: str = "content") -> Chunk:
    logprobs = {"content": list(entries), "refusal": None} if entries else None
    choice = {"index": 0, "delta": {field: piece}, "logprobs": logprobs, "finish_reason": finish}
    return Chunk(json.dumps({"id": "c", "choices": [choice]}).encode())


def stream(text: str, tokens: Sequence[Token], draw: random.Random) -> Iterator[Chunk]:
    """One to five tokens a chunk; a character comes when all its bytes have."""
    shown = at = 0
    while at < len(tokens):
        some = tokens[at : at + draw.choice((1, 1, 1, 2, 5))]
        at += len(some)
        whole = text.encode()[: sum(len(one.entry["bytes"]) for one in tokens[:at])].decode("utf-8", "ignore")
        yield chunk(whole[shown:], [one.entry for one in some])
        shown = len(whole)
    yield chunk("", [], "stop")


def plan_of(actions: Sequence[Action]) -> Plan:
    return Plan.of([OutputRule(check, action) for check, action in zip(CHECKS, actions, strict=True)])


@dataclass(frozen=True, slots=True)
class Got:
    text: str
    entries: list[dict[str, Any]]
    guard: Guard
    blocked: bool


def through(plan: Plan, chunks: Iterator[Chunk], **more: Any) -> Got:
    guard = Guard(plan, incident="i", stream=True, **more)
    text, entries, blocked = "", list[dict[str, Any]](), False
    try:
        for one in chunks:
            for out in guard.feed(one):
                said, told = read(out)
                text, entries = text + said, entries + told
        for out in guard.finish():
            said, told = read(out)
            text, entries = text + said, entries + told
    except Blocked:
        blocked = True
    return Got(text, entries, guard, blocked)


def read(out: Chunk) -> tuple[str, list[dict[str, Any]]]:
    (choice,) = out.event["choices"]
    logprobs = choice.get("logprobs") or {}
    return choice.get("delta", {}).get("content") or "", logprobs.get("content") or []


def test_where_nothing_is_found_all_of_them_arrive_in_their_order_whatever_waits() -> None:
    draw = random.Random(5)
    for _ in range(300):
        text = "".join(draw.choices(HARMLESS, k=draw.randrange(1, 30)))
        tokens = tokens_of(text, draw)
        got = through(plan_of(draw.choices((R, B), k=len(CHECKS))), stream(text, tokens, draw))
        assert (got.text, got.blocked) == (text, False)
        assert got.entries == [one.entry for one in tokens]


def test_of_what_is_cut_out_or_blocked_none_arrives_and_of_the_rest_all() -> None:
    draw = random.Random(6)
    cut = stopped = 0
    for number in range(300):
        text = draw.choice(CORPUS) if number % 3 == 0 else ""
        text += "".join(draw.choices(PIECES, k=draw.randrange(1, 30)))
        actions = draw.choices(ACTIONS, k=len(CHECKS))
        tokens = tokens_of(text, draw)
        got = through(plan_of(actions), stream(text, tokens, draw))
        names = {check.name for check, action in zip(CHECKS, actions, strict=True) if action >= R}
        spans = [(one.start, one.end) for one in got.guard.verdict.findings if one.check in names]
        stop = min(
            (one.start for one in got.guard.verdict.findings if actions[order(one.check)] is B), default=len(text)
        )
        honest = [one for one in tokens if not any(start < one.end and one.start < end for start, end in spans)]
        if got.blocked:
            stopped += 1
            before = [one.entry for one in honest if one.end <= stop]
            assert got.entries == before[: len(got.entries)]
        else:
            cut += bool(spans)
            assert got.entries == [one.entry for one in honest], text
    assert cut > 50
    assert stopped > 20


def order(check: str) -> int:
    return [one.name for one in CHECKS].index(check)


def test_none_is_ahead_of_its_text() -> None:
    draw = random.Random(7)
    plan = plan_of((R, R, R, R, R))
    for _ in range(100):
        text = "".join(draw.choices(HARMLESS, k=20))
        tokens = tokens_of(text, draw)
        guard = Guard(plan, incident="i", stream=True)
        shown = told = 0
        for one in stream(text, tokens, draw):
            for out in guard.feed(one):
                said, entries = read(out)
                shown, told = shown + len(said), told + len(entries)
                assert all(token.end <= shown for token in tokens[:told])


def test_a_chunk_with_them_in_which_nothing_waits_goes_on_as_the_very_bytes() -> None:
    one = chunk("a word ", [{"token": "a word ", "logprob": -0.5}])
    assert list(Guard(plan_of((R, A, A, A, A)), incident="i", stream=True).feed(one)) == [one]


def test_those_of_a_plain_answer_go_but_for_what_was_cut_out() -> None:
    entries = [{"token": word, "bytes": None} for word in ("pip", " install", " evil", " now")]
    message = {"role": "assistant", "content": "pip install evil now"}
    choice = {"index": 0, "message": message, "logprobs": {"content": entries}, "finish_reason": "stop"}
    (out,) = Guard(plan_of((R, A, A, A, A)), incident="i", stream=False).feed(
        Chunk(json.dumps({"choices": [choice]}).encode())
    )
    assert out.event["choices"][0]["message"]["content"] == "pip install [package removed] now"
    assert [one["token"] for one in out.event["choices"][0]["logprobs"]["content"]] == ["pip", " install", " now"]


def test_those_of_the_older_completions_go_with_their_text_too() -> None:
    def old(*words: str, finish: str | None = None) -> Chunk:
        columns = {"tokens": list(words), "token_logprobs": [-len(word) for word in words], "text_offset": None}
        choice = {"index": 0, "text": "".join(words), "logprobs": columns if words else None, "finish_reason": finish}
        return Chunk(json.dumps({"choices": [choice]}).encode())

    guard = Guard(plan_of((R, A, A, A, A)), incident="i", stream=True)
    chunks = [old("do"), old(" pip"), old(" install", " evil"), old(" now", "\n"), old("ok"), old(finish="stop")]
    found = [one.event["choices"][0] for each in chunks for one in guard.feed(each)]
    assert "".join(choice["text"] for choice in found) == "do pip install [package removed] now\nok"
    told = [choice["logprobs"] for choice in found if choice["logprobs"]]
    assert [word for one in told for word in one["tokens"]] == ["do", " pip", " install", " now", "\n", "ok"]
    assert [odds for one in told for odds in one["token_logprobs"]] == [-2, -4, -8, -4, -1, -2]


def test_entries_that_do_not_say_the_text_go_together_or_not_at_all() -> None:
    plan = plan_of((R, A, A, A, A))
    hidden = [{"token": "token_id:7"}, {"token": "token_id:8"}]
    got = through(plan, iter([chunk("pip install evil", hidden), chunk(" now\n", [{"token": "token_id:9"}])]))
    assert (got.text, got.entries) == ("pip install [package removed] now\n", [{"token": "token_id:9"}])


def test_those_of_reasoning_under_the_name_of_content_wait_with_the_reasoning() -> None:
    plan = plan_of((R, A, A, A, A))
    words = ["do ", "pip", " install", " evil", "\n", "ok"]
    chunks = [chunk(word, [{"token": word}], field="reasoning_content") for word in words]
    got = through(plan, iter([*chunks, chunk("yes", [{"token": "yes"}]), chunk("", [], "stop")]))
    assert [one["token"] for one in got.entries] == ["do ", "pip", " install", "\n", "ok", "yes"]


def test_another_expert_that_goes_on_brings_its_own() -> None:
    guard = Guard(plan_of((R, A, A, A, A)), incident="i", stream=True)
    out = [
        read(one)[1] for each in ("say ", "pip install ", "ev") for one in guard.feed(chunk(each, [{"token": each}]))
    ]
    guard.drop()
    out += [read(one)[1] for each in ("good", "\n") for one in guard.feed(chunk(each, [{"token": each}]))]
    assert [one["token"] for entries in out for one in entries] == ["say ", "good", "\n"]


class Echo:
    """Puts nothing back, and changes a word."""

    def feed(self, text: str) -> str:
        return text.replace("X", "a value")

    def finish(self) -> str:
        return ""


def test_where_values_are_put_back_those_of_changed_words_are_left_out() -> None:
    def restorer() -> Restorer:
        return Echo()

    got = through(
        Plan.of([]), iter([chunk("an X", [{"token": "an X"}]), chunk(" b", [{"token": " b"}])]), restorer=restorer
    )
    assert (got.text, got.entries) == ("an a value b", [{"token": " b"}])


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": "text"},
        {"content": [1, None]},
        {"content": {"a": 1}},
        {"content": [{"token": 7, "bytes": 10**9}]},
        {"content": [{"token": "evil", "bytes": [999]}]},
        {"tokens": ["a"], "token_logprobs": []},
        {"tokens": []},
        {"else": [{"token": "evil"}]},
        [{"token": "evil"}],
        "evil",
        7,
    ],
    ids=repr,
)
def test_of_what_is_no_list_of_entries_nothing_of_a_changed_text_gets_out(logprobs: object) -> None:
    choice = {"index": 0, "delta": {"content": "pip install evil"}, "logprobs": logprobs, "finish_reason": None}
    got = Guard(plan_of((R, A, A, A, A)), incident="i", stream=True)
    out = [*got.feed(Chunk(json.dumps({"choices": [choice]}).encode())), *got.finish()]
    assert b"evil" not in b"".join(one.data for one in out)
