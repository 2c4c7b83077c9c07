"""Keys that are bound to scopes, made by the command and used by the ordinary client against a real gateway."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from processes import Gateway, Process, config, launch

SCOPES = {
    "code.read": {"experts": ["echo"]},
    "code.synth": {"experts": ["echo", "paced"], "tools": ["search"]},
}
CAN = ["tools", "chat"]
HELLO: Any = [{"role": "user", "content": "hello"}]


def tool(name: str) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def gateway(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = config(upstream.port, scopes=SCOPES)
    for name in ("echo", "paced"):
        settings["policy"]["experts"][name]["capabilities"] = CAN
    folder: Path = tmp_path_factory.mktemp("scopes")
    process = launch(folder, {**settings, "server": {"keys_refresh_s": 0.1}})
    yield process
    process.stop()


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[Callable[..., openai.OpenAI]]:
    """A client whose key is bound to these scopes."""
    made: list[openai.OpenAI] = []

    def bound(*scopes: str) -> openai.OpenAI:
        options = [word for scope in scopes for word in ("--scope", scope)]
        done = gateway.cli("keys", "create", "--name", "app", *options)
        assert done.returncode == 0, done.stderr
        made.append(openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=done.stdout.strip()))
        return made[-1]

    yield bound
    for one in made:
        one.close()


def outcome(client: openai.OpenAI, **body: Any) -> str:
    """The expert that answered, or the refusal's code; a key is known to the gateway a moment after it was made."""
    for _ in range(200):
        try:
            answer = client.chat.completions.create(**{"model": "auto", "messages": HELLO, **body})
        except openai.AuthenticationError:
            continue
        except openai.PermissionDeniedError as error:
            return f"{error.code} {error.param} {error.response.headers['x-should-retry']}"
        return str((answer.model_extra or {})["conclave"]["expert"])
    raise AssertionError("the key was never known")


def test_a_key_reaches_what_its_scopes_allow_and_a_request_may_ask_for_less(
    client: Callable[..., openai.OpenAI], gateway: Gateway
) -> None:
    both, narrow = client("code.read", "code.synth"), {"extra_body": {"conclave": {"scope": "code.read"}}}
    assert outcome(both, model="paced") == "paced"
    assert outcome(both, tools=[tool("search")]) == "echo"
    assert outcome(both, tools=[tool("shell")]) == "outside_scope tools false"
    assert outcome(both, model="silent") == "forbidden model false"
    assert outcome(both, model="paced", **narrow) == "forbidden model false"
    assert outcome(both, tools=[tool("search")], **narrow) == "outside_scope tools false"
    assert {model.id for model in both.models.list()} == {"auto", "auto:cheap", "auto:best", "echo", "paced"}
    rows = gateway.rows()
    assert [row.get("scope") for row in rows if row["ending"] == "answered"][:2] == [
        ["code.read", "code.synth"],
        ["code.synth"],
    ]
    assert all(row["attempts"] == [] for row in rows if row["ending"] == "refused")


def test_a_request_cannot_widen_itself(client: Callable[..., openai.OpenAI]) -> None:
    reader = client("code.read")
    wider = {"extra_body": {"conclave": {"scope": "code.synth"}}}
    assert outcome(reader) == "echo"
    assert outcome(reader, **wider) == "outside_scope conclave.scope false"
    assert outcome(reader, model="paced", **wider) == "outside_scope conclave.scope false"


def test_a_scope_that_the_policy_does_not_know_reaches_nothing(client: Callable[..., openai.OpenAI]) -> None:
    assert outcome(client("gone.synth")) == "outside_scope None false"


def test_the_list_of_keys_shows_their_scopes_and_a_new_secret_keeps_them(
    client: Callable[..., openai.OpenAI], gateway: Gateway
) -> None:
    key_id = client("code.read").api_key.split("_")[1]
    assert gateway.cli("keys", "rotate", key_id).returncode == 0
    shown = gateway.cli("keys", "list", "--json").stdout
    assert shown.count('"scopes":["code.read"]') >= 2
    wrong = gateway.cli("keys", "create", "--name", "x", "--scope", "code.eval")
    assert (wrong.returncode, wrong.stdout) == (2, "")
