"""What an expert need not see, with the real openai client: it gets placeholders, and the caller its own values."""

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from processes import Gateway, Process, free_port, launch

SAYING = Path(__file__).with_name("saying.py")
MAIL, CARD = "anna.berg@nordwind.org", "4539 1488 0343 6467"
PLACEHOLDER = re.compile(r"\[[A-Z_]+_[A-Z2-7]{8}\]")
TEXT = f"Write to {MAIL} about {CARD}, then to {MAIL} again. [EMAIL_AAAAAAAA] is not ours."


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    port = free_port()
    saying = Process([sys.executable, str(SAYING), str(port)], port, tmp_path_factory.mktemp("saying")).start()
    expert = {"kind": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "transport_retries": 0}
    policy = {
        "experts": {name: expert | {"model": name} for name in ("frail", "sound")},
        "default": ["frail", "sound"],
        "defences": [{"check": "pii", "action": "redact", "reversible": True}],
        "stages": {"route": "off"},
        "audit": {"keep_text": True},
    }
    found = launch(tmp_path_factory.mktemp("gateway"), {"policy": policy})
    yield found
    found.stop()
    saying.stop(signal.SIGKILL)


def asked(gateway: Gateway, told: dict[str, Any], *, stream: bool) -> tuple[str, str, str]:
    """The content and the arguments that the client has, and the id of the call."""
    messages: Any = [{"role": "user", "content": json.dumps(told)}]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        if not stream:
            answer = client.chat.completions.create(model="auto", messages=messages)
            message: Any = answer.choices[0].message
            calls = message.tool_calls or []
            return message.content or "", "".join(one.function.arguments for one in calls), request_id(answer)
        text, arguments = [], []
        for chunk in client.chat.completions.create(model="auto", messages=messages, stream=True):
            for choice in chunk.choices:
                text.append(choice.delta.content or "")
                calls = choice.delta.tool_calls or []
                arguments += [one.function.arguments or "" for one in calls if one.function]
    return "".join(text), "".join(arguments), request_id(chunk)


def request_id(answer: Any) -> str:
    return str(answer.model_extra["conclave"]["request_id"])


@pytest.mark.parametrize("each", [1, 2, 7, 1000])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_the_caller_has_its_values_and_nobody_else(gateway: Gateway, stream: bool, each: int) -> None:
    said, _, name = asked(gateway, {"say": [{"content": TEXT}], "each": each}, stream=stream)
    assert said == TEXT
    row = json.dumps(gateway.row(name))
    assert MAIL not in row
    assert CARD not in row
    assert [found.partition("_")[0] for found in PLACEHOLDER.findall(row)][:2] == ["[EMAIL", "[CARD"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_arguments_of_a_tool_call_have_them_as_json(gateway: Gateway, stream: bool) -> None:
    arguments = json.dumps({"to": [MAIL], "card": CARD, "note": "[EMAIL_AAAAAAAA]"})
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "send", "arguments": arguments}}
    _, said, _ = asked(gateway, {"say": [{"tool_calls": [call]}], "each": 3}, stream=stream)
    assert json.loads(said) == json.loads(arguments)


def test_the_expert_that_takes_over_continues_placeholders_and_never_sees_a_value(gateway: Gateway) -> None:
    """The first one breaks off; what it said is handed on as it said it, and the client has the value once."""
    said, _, name = asked(gateway, {"say": [{"content": f"Write to {MAIL} now."}], "each": 4, "cut": True}, stream=True)
    row = gateway.row(name)
    assert [attempt["expert"] for attempt in row["attempts"]] == ["frail", "sound"]
    assert said.startswith(f"Write to {MAIL} now.")
    assert "[EMAIL" not in said
    assert MAIL not in json.dumps(row)
