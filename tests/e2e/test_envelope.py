"""Signed calls over the wire: the documented client, a real gateway, and whoever stands in between."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from processes import Gateway, Process, ask, config, launch

PAGE = Path(__file__).parents[2] / "docs" / "envelope.md"
HEADER = "x-conclave-envelope"
KID = "billing-2026"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signed")


@pytest.fixture(scope="module")
def gateway(upstream: Process, folder: Path) -> Iterator[Gateway]:
    made = Gateway([], 0, folder).cli("envelope", "new", "--key-file", "client.pem")
    assert made.returncode == 0, made.stderr
    key = {"algorithm": "ed25519", "public_key": made.stdout.strip()}
    process = launch(folder, config(upstream.port, envelope={"mode": "required", "keys": {KID: key}}))
    yield process
    process.stop()


@pytest.fixture
def client(gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[openai.OpenAI]:
    """The client of the page's own example."""
    [example] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    example = example[: example.index("print(")].replace("http://127.0.0.1:8080", gateway.url).replace("cv_...", "none")
    exec(example, names)  # noqa: S102  our own page's example
    with names["client"] as made:
        yield made


HELLO: Any = [{"role": "user", "content": "hello"}]


def header_for(gateway: Gateway, body: bytes) -> str:
    """What `conclave envelope sign` prints for a body."""
    command = [sys.executable, "-m", "conclave.gateway.cli", "envelope", "sign", "--kid", KID]
    done = subprocess.run(
        [*command, "--key-file", "client.pem"], cwd=gateway.folder, input=body, capture_output=True, check=True
    )
    return done.stdout.decode().strip().removeprefix(f"{HEADER}: ")


def refusal(gateway: Gateway, body: bytes, **headers: str) -> tuple[int, str, str, str]:
    status, about, said = gateway.post(body, **headers)
    error = json.loads(said)["error"]
    return status, error["code"], error["param"], about["x-should-retry"]


def test_the_documented_client_is_served_plain_and_streamed_and_the_record_says_who_signed(
    gateway: Gateway, client: openai.OpenAI
) -> None:
    answer = client.chat.completions.with_raw_response.create(model="echo", messages=HELLO)
    assert answer.parse().choices[0].message.content == "echo: hello"
    envelope = gateway.row(answer.headers["x-request-id"])["envelope"]
    assert (envelope["kid"], len(envelope["nonce"])) == (KID, 24)
    assert len(list(client.chat.completions.create(model="echo", messages=HELLO, stream=True))) > 1
    assert client.embeddings.create(model="encoder", input="hello").data


def test_an_unsigned_call_is_refused_once_and_recorded(gateway: Gateway) -> None:
    before = len(gateway.rows())
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none") as unsigned,
        pytest.raises(openai.PermissionDeniedError) as refused,
    ):
        unsigned.chat.completions.create(model="echo", messages=HELLO)
    assert (refused.value.code, refused.value.param) == ("bad_envelope", f"{HEADER}.missing")
    row = gateway.row(refused.value.response.headers["x-request-id"])
    assert (row["ending"], row["code"], row["tenant"], row["attempts"]) == ("refused", "bad_envelope", "anonymous", [])
    assert len(gateway.rows()) == before + 1


def test_a_call_that_was_overheard_serves_nobody_again(gateway: Gateway) -> None:
    body = json.dumps(ask("echo")).encode()
    signed = {HEADER: header_for(gateway, body)}
    changed = body.replace(b"hello", b"hallo")
    assert refusal(gateway, changed, **signed) == (403, "bad_envelope", f"{HEADER}.body", "false")
    assert gateway.post(body, **signed)[0] == 200
    assert {refusal(gateway, body, **signed) for _ in range(50)} == {(403, "bad_envelope", f"{HEADER}.replay", "false")}


def test_a_forged_signature_and_a_malformed_header_are_refused(gateway: Gateway) -> None:
    body = json.dumps(ask("echo")).encode()
    payload, _, signature = header_for(gateway, body).partition(".")
    other = base64.urlsafe_b64encode(bytes(64)).rstrip(b"=").decode()
    assert refusal(gateway, body, **{HEADER: f"{payload}.{other}"})[2] == f"{HEADER}.signature"
    for wrong in ("x", f"{payload}..{signature}", f"{payload}.{signature}=", "A" * 5000):
        assert refusal(gateway, body, **{HEADER: wrong})[2] == f"{HEADER}.malformed"
