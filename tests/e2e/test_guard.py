"""Answers on their way out, with the real openai client: what is withheld never arrives, streamed or not."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from processes import Gateway, Process, free_port, launch

SAYING = Path(__file__).with_name("saying.py")
CANARY = "xyzzy-canary-4711"
TEXT = f"The code is\nthis one: {CANARY} and no other.\nGood bye."
MODES = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Gateway]]:
    """One for each action of the check `exfiltration`; `seen` observes what it would block."""
    port = free_port()
    saying = Process([sys.executable, str(SAYING), str(port)], port, tmp_path_factory.mktemp("saying")).start()
    expert = {"kind": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "transport_retries": 0}
    experts = {name: expert | {"model": name} for name in ("frail", "sound")}
    found = {}
    for action in ("annotate", "redact", "block", "off"):
        policy = {
            "experts": experts, "default": ["frail", "sound"], "canaries": [CANARY], "defences": [],
            "answers": [{"check": "exfiltration", "action": action}], "stages": {"route": "off"},
        }  # fmt: skip
        found[action] = launch(tmp_path_factory.mktemp(action), {"policy": policy})
    policy |= {
        "answers": [{"check": "exfiltration", "action": "block"}],
        "stages": {"route": "off", "guard": "observe"},
    }
    found["seen"] = launch(tmp_path_factory.mktemp("seen"), {"policy": policy})
    yield found
    for gateway in found.values():
        gateway.stop()
    saying.stop(signal.SIGKILL)


def pieces(text: str, size: int = 3) -> list[dict[str, Any]]:
    return [{"content": text[at : at + size]} for at in range(0, len(text), size)]


def ask(gateway: Gateway, deltas: list[dict[str, Any]], *, stream: bool, **told: Any) -> tuple[str, Any]:
    """What the client has of the content, and the last chunk or the whole answer."""
    messages: Any = [{"role": "user", "content": json.dumps({"say": deltas} | told)}]
    said: list[str] = []
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        try:
            if not stream:
                answer = client.chat.completions.create(model="auto", messages=messages)
                return answer.choices[0].message.content or "", answer
            for chunk in client.chat.completions.create(model="auto", messages=messages, stream=True):
                said += [choice.delta.content or "" for choice in chunk.choices]
        except openai.APIError as error:
            return "".join(said), error
    return "".join(said), chunk


@MODES
def test_what_is_redacted_never_arrives_and_the_rest_does(gateways: dict[str, Gateway], stream: bool) -> None:
    said, last = ask(gateways["redact"], pieces(TEXT), stream=stream)
    assert said == TEXT.replace(CANARY, "[exfiltration removed]")
    explained = last.model_extra["conclave"]
    assert explained["findings"] == ["exfiltration.canary"]
    row = gateways["redact"].row(explained["request_id"])
    assert (row["ending"], row["guard"]["action"], row["guard"]["direction"]) == ("answered", "redact", "answer")
    [found] = row["guard"]["findings"]
    assert (found["place"], found["start"], found["end"]) == ("choices[0].content", 22, 22 + len(CANARY))
    assert found["remedy"]
    assert CANARY not in json.dumps(row)


@MODES
def test_what_is_only_told_passes_and_is_told(gateways: dict[str, Gateway], stream: bool) -> None:
    said, last = ask(gateways["annotate"], pieces(TEXT), stream=stream)
    assert said == TEXT
    assert last.model_extra["conclave"]["findings"] == ["exfiltration.canary"]


@MODES
def test_the_record_says_when_the_guard_looked_and_what_it_would_have_done(
    gateways: dict[str, Gateway], stream: bool
) -> None:
    """Of a stage that only observes the caller hears nothing."""
    said, answer = ask(gateways["seen"], pieces(TEXT), stream=stream)
    assert said == TEXT
    assert "findings" not in answer.conclave
    row = gateways["seen"].row(answer.conclave["request_id"])
    assert (row["guard"]["action"], row["guard"]["would"]) == ("allow", "block")
    began_ms, ended_ms = row["spans"]["guard"]
    assert row["attempts"][0]["started_ms"] <= began_ms <= ended_ms == row["duration_ms"]


@MODES
def test_without_checks_nobody_looks(gateways: dict[str, Gateway], stream: bool) -> None:
    said, last = ask(gateways["off"], pieces(TEXT), stream=stream)
    assert said == TEXT
    assert "guard" not in gateways["off"].row(last.model_extra["conclave"]["request_id"])


@MODES
def test_what_is_blocked_before_a_word_was_shown_is_a_403(gateways: dict[str, Gateway], stream: bool) -> None:
    said, error = ask(gateways["block"], pieces(f"{CANARY} is it"), stream=stream)
    assert said == ""
    assert isinstance(error, openai.PermissionDeniedError)
    assert (error.status_code, error.code, error.param) == (403, "blocked_by_policy", "choices[0].content")
    request_id = error.response.headers["x-request-id"]
    assert request_id in error.message
    assert error.response.headers["x-should-retry"] == "false"
    row = gateways["block"].row(request_id)
    assert (row["ending"], row["status"], row["shown_bytes"]) == ("refused", 403, 0)
    assert row["guard"]["findings"][0]["kind"] == "exfiltration.canary"


def test_what_is_blocked_later_ends_the_stream_with_an_error(gateways: dict[str, Gateway]) -> None:
    said, error = ask(gateways["block"], pieces(TEXT), stream=True)
    assert said == "The code is\n"
    assert isinstance(error, openai.APIError)
    assert (error.code, error.type) == ("blocked_by_policy", "permission_error")


def call(arguments: str, **first: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, **first, "function": {"name": "send", "arguments": arguments}}]}


@MODES
def test_the_arguments_of_a_tool_call_stay_json(gateways: dict[str, Gateway], stream: bool) -> None:
    arguments = json.dumps({"to": "a@b.c", "text": f'"x"\n{CANARY}'})
    deltas = [call(arguments[at : at + 5], id="call_1", type="function") for at in range(0, len(arguments), 5)]
    messages: Any = [{"role": "user", "content": json.dumps({"say": deltas})}]
    with openai.OpenAI(base_url=f"{gateways['redact'].url}/v1", api_key="none", max_retries=0) as client:
        if stream:
            chunks = list(client.chat.completions.create(model="auto", messages=messages, stream=True))
            calls = [one for chunk in chunks for choice in chunk.choices for one in choice.delta.tool_calls or ()]
            got = "".join(one.function.arguments or "" for one in calls if one.function)
            assert calls[0].id == "call_1"
        else:
            answer = client.chat.completions.create(model="auto", messages=messages)
            got = answer.choices[0].message.tool_calls[0].function.arguments  # type: ignore[index,union-attr]
    assert json.loads(got) == {"to": "a@b.c", "text": '"x"\n[exfiltration removed]'}


def test_an_expert_that_fails_before_the_guard_let_a_word_go_is_replaced_unseen(gateways: dict[str, Gateway]) -> None:
    said, last = ask(gateways["redact"], pieces("hello there"), stream=True, cut=True)
    assert said == "hello there"
    explained = last.model_extra["conclave"]
    assert (explained["expert"], "continued" in explained) == ("sound", False)
    attempts = gateways["redact"].row(explained["request_id"])["attempts"]
    assert [one["failure"] for one in attempts] == ["cut", None]
