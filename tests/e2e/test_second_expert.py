"""A weak expert on trial, with real processes: what the client gets, and when, and what the record says."""

import http.client
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Gateway, Process, ask, config, launch, until

Launch = Callable[..., Gateway]
WEAK_MODELS = ("sure", "unsure")
HELD_S = 1.5  # of the two seconds that `paced` takes; the head comes with the first chunk
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


@pytest.fixture(scope="module")
def cascade(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Gateways with a cascade between two of the upstream's behaviours, each started once."""
    known: dict[str, Gateway] = {}

    def of(weak: str, strong: str, *, limits: dict[str, float] | None = None, **gate: Any) -> Gateway:
        name = f"{weak}-{strong}-{limits}-{gate}"
        if name not in known:
            settings = config(upstream.port, routing={"cascade": {"weak": weak, "strong": strong, **gate}})
            experts = settings["policy"]["experts"]
            for model in WEAK_MODELS:
                experts[model] = {**experts["echo"], "model": model}
            settings["policy"] |= {"default": [strong], "limits": limits or {}}
            known[name] = launch(tmp_path_factory.mktemp("cascade"), settings)
        return known[name]

    yield of
    for gateway in known.values():
        gateway.stop()


def answer(body: bytes) -> tuple[str, dict[str, Any]]:
    """The text of an answer, plain or streamed, and its `conclave` object."""
    if not body.startswith(b"data:"):
        whole = json.loads(body)
        return whole["choices"][0]["message"]["content"], whole["conclave"]
    events = [json.loads(line[6:]) for line in body.split(b"\n\n") if line.startswith(b"data: {")]
    said = [choice["delta"].get("content") or "" for event in events for choice in event["choices"]]
    return "".join(said), events[-1]["conclave"]


@BOTH
def test_a_sure_answer_is_the_weak_experts_and_says_nothing_of_its_probabilities(cascade: Launch, stream: bool) -> None:
    gateway = cascade("sure", "echo")
    status, headers, body = gateway.post(ask("auto", stream=stream))
    said, about = answer(body)
    assert (status, about["expert"], about["reason"], about["escalated"]) == (200, "sure", "trial", False)
    assert said.startswith("echo:")
    assert b"-0.01" not in body
    assert headers["x-conclave-escalated"] == "false"


@BOTH
def test_an_unsure_answer_is_replaced_by_the_strong_experts(cascade: Launch, stream: bool) -> None:
    gateway = cascade("unsure", "echo")
    _, headers, body = gateway.post(ask("auto", stream=stream))
    said, about = answer(body)
    assert (about["expert"], about["reason"], about["escalated"]) == ("echo", "escalated", True)
    assert said.startswith("echo:")
    assert b'"model":"unsure"' not in body.replace(b" ", b"")
    assert (headers["x-conclave-expert"], headers["x-conclave-escalated"]) == ("echo", "true")
    row = gateway.row(headers["x-request-id"])
    assert [attempt["expert"] for attempt in row["attempts"]] == ["unsure", "echo"]
    assert row["attempts"][0]["trial"]["unsure"] is True
    assert row["usage"]["completion_tokens"] == sum(one["usage"]["completion_tokens"] or 0 for one in row["attempts"])


def test_escalations_are_counted(cascade: Launch) -> None:
    gateway = cascade("unsure", "echo")
    gateway.post(ask("auto"))

    def scraped() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin_port}/metrics", timeout=10) as response:
            return str(response.read(), "utf-8")

    until(lambda: 'conclave_route_escalated="true"' in scraped(), "the escalation is counted")


@BOTH
def test_if_the_strong_expert_is_down_the_weak_ones_answer_is_shown(cascade: Launch, stream: bool) -> None:
    gateway = cascade("unsure", "down")
    status, headers, body = gateway.post(ask("auto", stream=stream))
    said, about = answer(body)
    assert (status, about["expert"], about["reason"], about["escalated"]) == (200, "unsure", "kept", True)
    assert said.startswith("echo:")
    row = gateway.row(headers["x-request-id"])
    assert (row["ending"], row["kept"], row["attempts"][1]["failure"]) == ("answered", "unsure", "status")


def test_if_time_is_up_for_the_strong_expert_the_weak_ones_answer_is_shown(cascade: Launch) -> None:
    gateway = cascade("unsure", "silent", limits={"deadline_s": 0.6})
    status, headers, body = gateway.post(ask("auto"))
    assert (status, answer(body)[1]["reason"]) == (200, "kept")
    assert gateway.row(headers["x-request-id"])["attempts"][1]["failure"] == "late"


def test_a_stream_on_trial_is_held_whole_and_comes_at_once_when_it_is_judged(cascade: Launch) -> None:
    gateway = cascade("paced", "echo")
    began = time.monotonic()
    with gateway.open(ask("auto", stream=True)) as response:
        waited_s = time.monotonic() - began
        body = response.read()
        rest_s = time.monotonic() - began - waited_s
    said, about = answer(body)
    assert waited_s > HELD_S > rest_s
    assert (said, about["expert"], about["escalated"]) == (" w" * 100, "paced", False)


def test_a_client_that_leaves_during_the_trial_closes_the_weak_experts_connection(
    cascade: Launch, upstream: Process
) -> None:
    gateway = cascade("paced", "echo")
    before, closed = len(gateway.rows()), upstream.output().count("closed paced")
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    body = json.dumps(ask("auto", stream=True))
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    time.sleep(0.2)  # the expert has been asked, and speaks
    connection.close()
    until(lambda: upstream.output().count("closed paced") > closed, "the upstream is closed")
    row = until(lambda: gateway.rows()[before:], "the call is recorded")[0]
    assert (row["ending"], row["shown_bytes"]) == ("client_gone", 0)
    assert [attempt["expert"] for attempt in row["attempts"]] == ["paced"]


def test_a_trial_that_takes_too_long_ends_and_the_strong_expert_answers(cascade: Launch) -> None:
    gateway = cascade("paced", "echo", trial_s=0.3)
    _, headers, body = gateway.post(ask("auto", stream=True))
    about = answer(body)[1]
    assert (about["expert"], about["reason"], about["escalated"]) == ("echo", "fallback", False)
    assert gateway.row(headers["x-request-id"])["attempts"][0]["failure"] == "late"


def test_a_call_whose_time_is_up_within_the_trial_says_so(cascade: Launch) -> None:
    gateway = cascade("paced", "echo", limits={"deadline_s": 0.3})
    status, headers, _ = gateway.post(ask("auto", stream=True))
    assert (status, gateway.row(headers["x-request-id"])["ending"]) == (504, "deadline")


def test_a_policy_that_names_an_unknown_expert_is_refused_with_its_line(tmp_path: Path, cascade: Launch) -> None:
    gateway = cascade("unsure", "echo")
    (tmp_path / "wrong.yaml").write_text("policy:\n  routing:\n    cascade:\n      weak: quotin\n")
    found = gateway.cli("check-config", str(tmp_path / "wrong.yaml"))
    assert found.returncode != 0
    assert "policy.routing.cascade.weak" in found.stdout + found.stderr
    assert "did you mean 'quoting'" in found.stdout + found.stderr
