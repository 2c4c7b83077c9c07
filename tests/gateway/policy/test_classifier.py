"""A classifier of the operator's own: named by the server half, used by the gateway, and refused by line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="a transformer needs the extra `moe`")
pytest.importorskip("transformers", reason="a transformer needs the extra `moe`")
pytest.importorskip("numba", reason="training needs the extra `train`")

from click.testing import CliRunner
from starlette.testclient import TestClient

from conclave.gateway.app import create_app
from conclave.gateway.errors import Unavailable
from conclave.gateway.policy.cli import route
from conclave.gateway.policy.explain_cli import explain
from conclave.gateway.policy.source import ConfigError
from conclave.gateway.settings import load_settings
from conclave.router.classify import CLASSIFIER_FILES, Router
from tests.router.tiny_transformer import classifier, transformer

QUESTION = "my court and my contract"
POLICY = {
    "experts": {"quoting": {"kind": "quoting"}, "lawyer": {"kind": "quoting"}},
    "categories": {"law": ["lawyer"]},
    "default": ["quoting"],
    "routing": {"unsure": {"below": 0}},
    "stages": {"detect": "off"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    return classifier(folder / "classifier", transformer(folder / "encoder"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(**said: Any) -> Path:
    server: dict[str, Any] = {"state_dir": "state", "classifier": {k: str(v) for k, v in said.items()}}
    Path("conclave.yaml").write_text(json.dumps({"server": server, "policy": POLICY}, indent=1))
    return Path("conclave.yaml")


def problem(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    (one,) = caught.value.problems
    return str(one)


def test_a_gateway_decides_by_the_classifier_that_its_configuration_names(trained: Path) -> None:
    mine = Router.load(trained)
    expected = mine.classify(QUESTION)
    assert expected.category == "law"
    with TestClient(create_app(load_settings(config(folder=trained))), base_url="http://127.0.0.1:8080") as client:
        body = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
        said = client.post("/v1/chat/completions", json=body).json()["conclave"]
        named = {"model": "quoting", "messages": body["messages"]}
        assert client.post("/v1/chat/completions", json=named).json()["conclave"]["expert"] == "quoting"
        vector = client.post("/v1/embeddings", json={"model": "encoder", "input": QUESTION}).json()["data"][0]
    assert (said["expert"], said["category"]) == ("lawyer", "law")
    assert said["confidence"] == round(expected.confidence, 4)
    assert len(vector["embedding"]) == 256  # embeddings stay the static encoder's
    files = [file for file in Path("state/journal").glob("*.jsonl") if file.name != "heads.jsonl"]
    rows = [json.loads(line)["row"] for file in files for line in file.read_bytes().splitlines()]
    (row,) = [row for row in rows if row["kind"] == "call" and (row.get("decision") or {}).get("reason") == "category"]
    assert mine.digest in json.dumps(row)


@pytest.mark.parametrize("command", ["route", "explain"])
def test_the_commands_use_it_too(trained: Path, command: str) -> None:
    run = route if command == "route" else explain
    ran = CliRunner().invoke(run, [QUESTION, "--json", "--config", str(config(folder=trained))])
    told = json.loads(ran.stdout)
    assert (told["category"], told["expert"], told["model"]) == ("law", "lawyer", Router.load(trained).digest)


def conclave(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    program = f"{before}\nfrom conclave.gateway.cli import main\nmain()"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_folder_without_a_classifier_is_said_with_its_line(tmp_path: Path) -> None:
    said = problem(config(folder=tmp_path))
    assert said.startswith("conclave.yaml:4: server.classifier: ")
    assert "classifier.json: No such file or directory" in said


def test_another_encoder_is_refused_before_anything_is_started(trained: Path, tmp_path: Path) -> None:
    other = transformer(tmp_path / "other", seed=1)
    assert "model.safetensors has the SHA-256" in problem(config(folder=trained, encoder=other))


def test_an_encoder_alone_is_a_mistake(tmp_path: Path) -> None:
    assert "the shipped classifier uses the built-in encoder" in problem(config(encoder=tmp_path))


def test_own_categories_are_judged_by_it(trained: Path) -> None:
    """`law` is a category of it, and `medicine`, which the shipped one has, is none."""
    file = config(folder=trained)
    said = json.loads(file.read_text())
    said["policy"]["routing"]["own_categories"] = {"law": {"examples": [f"my court {n}" for n in range(9)]}}
    file.write_text(json.dumps(said))
    assert "'law' is a shipped category" in problem(file)


def test_a_classifier_whose_weights_are_broken_hinders_the_start_in_a_line(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / CLASSIFIER_FILES[1]).write_bytes((trained / CLASSIFIER_FILES[1]).read_bytes())
    (folder / CLASSIFIER_FILES[0]).write_bytes(b"nothing")
    app = create_app(load_settings(config(folder=folder)))
    with pytest.raises(Unavailable, match=r"cannot start: .*classifier\.safetensors cannot be read"), TestClient(app):
        pass


def test_check_config_says_what_to_install(trained: Path) -> None:
    absent = "import sys; sys.modules['transformers'] = None  # as if it were not installed"
    ran = conclave("check-config", str(config(folder=trained)), before=absent)
    assert ran.returncode == 1
    assert "server.classifier: a transformer encoder needs transformers, which is not installed" in ran.stderr
    assert "make install EXTRAS=moe" in ran.stderr


def test_check_config_names_the_classifier_and_opens_no_model(trained: Path) -> None:
    after = "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules))"
    ran = conclave("check-config", str(config(folder=trained)), before=after)
    assert f"classifier     {trained}" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "False"
