"""`conclave moe serve` before it serves: everything that cannot be served is one line and exit status 1."""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from conclave.gateway.cli import main
from conclave.moe.cli import KEY
from tests.moe.serving import write_model

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("small") / "small")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")  # so that what the command sets is taken back
    monkeypatch.delenv(KEY, raising=False)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["moe", "serve", "--port", "0", *map(str, arguments)])

    yield run
    structlog.reset_defaults()


def refused(result: Result, words: str) -> None:
    assert result.exit_code == 1, result.output
    assert words in result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1, "one line"


def test_a_folder_that_is_not_there(serve: Run, tmp_path: Path) -> None:
    refused(serve(tmp_path / "nothing"), "there is no folder")


def test_another_digest_than_was_pinned(serve: Run, model: Path) -> None:
    refused(serve(model, "--digest", "0" * 64), "was expected")


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])


def _llama(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "llama"}))


def _templated(text: str | None) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": text}))

    return damage


def _of_other_shape(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_size": 64}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "cannot be loaded"),
        (_llama, "'llama' is not supported; supported are deepseek_v2"),
        (_templated(None), "has no chat template"),
        (_templated("{% for"), "the chat template of"),
        (_templated("{{ 1 / 0 }}"), "ZeroDivisionError"),
        (_templated("{{ ''.__class__.__mro__ }}"), "SecurityError"),
        (lambda folder: (folder / "generation_config.json").write_text("{"), "generation_config.json is no JSON"),
        (_of_other_shape, "has them in another shape"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights in safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be loaded"),
    ],
    ids=[
        "cut",
        "another family",
        "no template",
        "broken template",
        "failing template",
        "prying template",
        "generation",
        "another shape",
        "no weights",
        "no tokenizer",
    ],
)
def test_a_damaged_checkpoint(
    serve: Run, model: Path, tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "small"))
    damage(folder)
    refused(serve(folder), words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--policy", "topq"), "did you mean 'topp'?"),
        (("--policy", '{"name": "topk", "k": 99}'), "99 experts"),
        (("--policy", "{"), "--policy is no JSON"),
        (("--offer", "everything"), "there is no routing policy 'everything'"),
        (("--host", "0.0.0.0"), "set a key in $CONCLAVE_MOE_API_KEY"),  # noqa: S104  it is refused
        (("--int8", "--experts", "eager"), "leave --experts eager out"),
        (("--device", "cuda:99"), "cannot be loaded"),
    ],
    ids=["policy", "wide policy", "no JSON", "offer", "public without a key", "int8", "device"],
)
def test_options_that_do_not_fit(serve: Run, model: Path, options: tuple[str, ...], words: str) -> None:
    refused(serve(model, *options), words)


def test_a_port_that_is_taken(serve: Run, model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused(serve(model, "--port", taken.getsockname()[1]), "in use")


def test_help_needs_no_torch() -> None:
    result = CliRunner().invoke(main, ["moe", "serve", "--help"])
    assert result.exit_code == 0
    assert "OpenAI-compatible" in result.output
