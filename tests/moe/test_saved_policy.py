"""A policy that was saved beside a model, null experts' gate rows with it, is what `conclave moe serve` routes by."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from conclave.gateway.cli import main
from conclave.moe.adapt import POLICY_FILE, WEIGHTS_FILE, adapt, saved
from conclave.moe.routing import POLICIES
from tests.moe.serving import chat, engine_on, loaded, said, write_model

NULL = {"name": "null", "k": 4, "nulls": 3}
ASKED = [{"role": "user", "content": "Hello!"}]
START_S = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with null experts whose gate rows are their own, as after fine-tuning."""
    torch.set_num_threads(1)
    folder = write_model(tmp_path_factory.mktemp("null") / "small")
    adapted = adapt(loaded(folder).model)
    adapted.install(POLICIES.make(NULL))
    torch.manual_seed(5)
    for rows in adapted.parameters():
        rows.data.normal_(std=0.3)
    adapted.save(folder)
    return folder


def greedy(folder: Path, **install: Any) -> tuple[str, float]:
    """What the model says itself under a policy, and how many experts a token took."""
    checkpoint = loaded(folder)
    given = checkpoint.tokenizer.apply_chat_template(
        ASKED, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    adapted = adapt(checkpoint.model)
    with adapted.installed(**install), torch.no_grad():
        out = checkpoint.model.generate(**given, max_new_tokens=12, do_sample=False)
        used = adapted.meter.experts_per_token
    return checkpoint.tokenizer.decode(out[0, given["input_ids"].shape[1] :], skip_special_tokens=True), used


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "conclave.gateway.cli", "moe", "serve", str(folder), "--dtype", "float32"]
    process = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert b"serves" in process.stderr.readline(), "the first line says where"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def ask(url: str, **more: Any) -> Any:
    body = json.dumps({"model": "small", "messages": ASKED, "max_tokens": 12} | more).encode()
    end = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/chat/completions", body)) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return json.load(refused)
        except OSError:  # it listens in a moment
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.slow
def test_served_it_says_what_it_said_before_it_was_saved(model: Path) -> None:
    found = saved(model)
    assert found is not None
    text, used = greedy(model, policy=found.policy, rows=found.rows)
    fresh, _ = greedy(model, policy=found.policy)
    assert fresh != text, "the rows decide what is said, or this test shows nothing"
    with serving(model) as url:
        answer = ask(url)
        assert answer["choices"][0]["message"]["content"] == text.rstrip()
        assert answer["usage"]["experts_per_token"] == pytest.approx(used, abs=0.15) != 4.0
        assert answer["usage"]["flops_saved"] > 0
        with urllib.request.urlopen(f"{url}/health") as health:
            assert json.loads(json.load(health)["policy"])["name"] == "null"
        plain = ask(url, conclave={"moe": {"policy": {"name": "topk", "k": 4}}})
        assert plain["usage"]["experts_per_token"] == 4.0, "top-k reads the gate without its null rows"
        assert (
            "null experts" in ask(url, conclave={"moe": {"policy": {"name": "null", "nulls": 2}}})["error"]["message"]
        )


async def test_an_engine_mixes_calls_with_and_without_null_experts(model: Path) -> None:
    checkpoint, found = loaded(model), saved(model)
    assert found is not None
    engine = engine_on(checkpoint, policy=NULL, rows=found.rows)
    try:
        _, under = await said(engine, chat())
        _, plain = await said(engine, chat(policy={"name": "topk", "k": 4}))
        _, again = await said(engine, chat())
    finally:
        await engine.close()
    assert under.usage == again.usage
    assert under.usage.experts_per_token < plain.usage.experts_per_token == 4.0


def _other_model(folder: Path) -> None:
    rows = saved(folder)
    assert rows is not None
    adapted = adapt(loaded(folder).model)
    adapted.install(POLICIES.make({**NULL, "nulls": 2}))
    adapted.save(folder)
    (folder / POLICY_FILE).write_text(json.dumps(NULL))


@pytest.mark.parametrize(
    ("damage", "options", "words"),
    [
        (lambda folder: (folder / POLICY_FILE).write_text("{"), (), "cannot be read"),
        (lambda folder: (folder / POLICY_FILE).write_text('{"name": "nul"}'), (), "did you mean"),
        (lambda folder: (folder / POLICY_FILE).write_text("[]"), (), "cannot be read"),
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"x" * 40), (), "cannot be read"),
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), (), "cannot be read"),
        (_other_model, (), "made for another model?"),
        (lambda folder: (folder / POLICY_FILE).unlink(), ("--policy", "null"), "fine-tuned with"),
        (Path.exists, ("--policy", '{"name": "null", "nulls": 5}'), "made for another model?"),
    ],
    ids=["cut", "misspelt", "no object", "broken rows", "no rows", "other rows", "untuned", "other number"],
)
def test_what_does_not_fit_is_one_line(model: Path, tmp_path: Path, damage: Any, options: Any, words: str) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "small"))
    damage(folder)
    result = CliRunner().invoke(main, ["moe", "serve", str(folder), "--port", "0", *options])
    assert (result.exit_code, result.output.count("\n")) == (1, 1), result.output
    assert words in result.output
