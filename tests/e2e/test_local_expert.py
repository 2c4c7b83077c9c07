"""The real openai client, a gateway, and behind it the local expert with the tiny model: three processes."""

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
    process = launch(
        tmp_path_factory.mktemp("gateway"), {"policy": {"experts": {"local": local}, "default": ["local"]}}
    )
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


def test_too_long_a_conversation_comes_back_in_the_experts_own_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="shorten them") as refused:
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "word " * 2000}])
    assert refused.value.code == "context_length_exceeded"


def test_terminated_it_ends_within_its_grace(expert: Process) -> None:
    assert expert.stop(signal.SIGTERM, timeout_s=30) in {0, -signal.SIGTERM}
    assert Path(expert.folder).is_dir()
    assert "Traceback" not in expert.output()
