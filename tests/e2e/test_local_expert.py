"""The real openai client, a gateway, and behind it the local expert with the tiny model: three processes."""

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from processes import Gateway, Process, free_port, launch, until

MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
START_S = 120  # importing torch and transformers on a busy machine
ASKED = [{"role": "user", "content": "What is Conclave?"}]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"the local expert needs the extra `moe` ({', '.join(MISSING)})"),
]


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    port, folder = free_port(), tmp_path_factory.mktemp("expert")
    command = [sys.executable, "-m", "conclave.gateway.cli", "moe", "serve", "--port", str(port)]
    process = Process(command, port, folder)
    with (folder / f"out-{port}.log").open("ab") as out:
        process.running = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
    until(process.listening, "the local expert listens", limit_s=START_S)
    yield process
    process.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def gateway(expert: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    local = {"kind": "openai", "model": "tiny", "base_url": f"http://127.0.0.1:{expert.port}/v1"}
    experts = {"local": {**local, "capabilities": ["logprobs", "moe"]}, "plain": local}
    narrow = {"experts": ["local"], "experts_max": {"local": 2}, "routing_policies": ["topk"]}
    policy = {"experts": experts, "default": ["local"], "scopes": {"moe.read": narrow}}
    process = launch(tmp_path_factory.mktemp("gateway"), {"policy": policy})
    yield process
    process.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_tiny_model_answers_through_the_gateway(client: openai.OpenAI, gateway: Gateway, expert: Process) -> None:
    plain = client.chat.completions.create(model="auto", messages=ASKED)  # type: ignore[arg-type]
    content = plain.choices[0].message.content
    assert content
    assert "gateway" in content, "the first fact of its training"
    assert plain.model_extra["conclave"]["expert"] == "local"  # type: ignore[index]
    assert plain.usage is not None
    assert plain.usage.model_extra == {"experts_per_token": 4.0, "flops_saved": 0}
    with client.chat.completions.create(model="auto", messages=ASKED, stream=True) as stream:  # type: ignore[call-overload]
        pieces = [text for chunk in stream if chunk.choices and (text := chunk.choices[0].delta.content)]
    assert "".join(pieces) == content
    assert len(pieces) > 3
    row = gateway.row(plain.model_extra["conclave"]["request_id"])  # type: ignore[index]
    assert (row["ending"], row["attempts"][0]["expert"]) == ("answered", "local")


def used(client: openai.OpenAI, **conclave: object) -> tuple[float, int]:
    """Experts of a token and what was saved, by the usage of a plain answer and of a stream, which are the same."""
    asked: Any = {"messages": ASKED, "max_tokens": 8, "extra_body": {"conclave": conclave}}
    asked["model"] = conclave.pop("model", "auto")
    plain = client.chat.completions.create(**asked).usage
    with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
        streamed = [chunk.usage for chunk in stream if chunk.usage]
    assert plain is not None
    assert [usage.model_extra for usage in streamed] == [plain.model_extra]
    return plain.model_extra["experts_per_token"], plain.model_extra["flops_saved"]  # type: ignore[index]


def test_a_call_has_the_local_model_spend_fewer_experts_and_reads_what_that_saved(client: openai.OpenAI) -> None:
    assert used(client) == (4.0, 0)
    capped, saved = used(client, moe={"experts_max": 1})
    assert (capped, saved > 0) == (1.0, True)
    assert used(client, moe={"policy": {"name": "topk", "k": 3}})[0] == 3.0
    assert used(client, moe={"policy": {"name": "topp", "p": 0.4}, "experts": [0, 1, 2, 3]})[0] < 4
    assert used(client, moe={"experts_max": 1}, model="plain") == (4.0, 0), "it has no capability `moe`"


def test_a_scope_bounds_what_a_call_may_ask_of_the_inside(client: openai.OpenAI) -> None:
    assert used(client, scope="moe.read") == (2.0, used(client, moe={"experts_max": 2})[1])
    assert used(client, scope="moe.read", moe={"experts_max": 4})[0] == 2.0
    with pytest.raises(openai.PermissionDeniedError, match="outside the scope") as refused:
        used(client, scope="moe.read", moe={"policy": "topp"})
    assert (refused.value.code, refused.value.param) == ("outside_scope", "conclave.moe.policy")


@pytest.mark.parametrize(
    ("moe", "words", "param"),
    [
        ({"polcy": "topp"}, "did you mean 'policy'", "conclave.moe"),
        ({"policy": "stochastic"}, "offers the routing policies topk, topp", "conclave.moe.policy"),
        ({"policy": {"name": "topp", "pp": 1}}, "no setting 'pp'", "conclave.moe.policy"),
        ({"experts": [16]}, "experts 0 to 15", "conclave.moe.experts"),
        ({"experts_max": 0}, "whole number from 1", "conclave.moe.experts_max"),
    ],
    ids=["misspelt", "not offered", "no setting", "no expert", "none"],
)
def test_what_cannot_be_meant_is_a_400_with_its_place(
    client: openai.OpenAI, moe: object, words: str, param: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=words) as refused:
        used(client, moe=moe)
    assert refused.value.param == param


def test_too_long_a_conversation_comes_back_in_the_experts_own_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="shorten them") as refused:
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "word " * 2000}])
    assert refused.value.code == "context_length_exceeded"


def test_terminated_it_ends_within_its_grace(expert: Process) -> None:
    assert expert.stop(signal.SIGTERM, timeout_s=30) in {0, -signal.SIGTERM}
    assert Path(expert.folder).is_dir()
    assert "Traceback" not in expert.output()
