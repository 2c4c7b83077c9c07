"""Loading: the digest is pinned, only safetensors, no code of its own, and each damage is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conclave.moe.checkpoint import TINY, CheckpointRefused, check, digest, load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_shipped_model_is_at_most_8_mb_and_holds_no_code() -> None:
    files = [path for path in TINY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_a_pinned_digest_lets_the_same_bytes_pass_and_one_changed_byte_not(folder: Path) -> None:
    pinned = digest(folder)
    assert load(folder, expected=pinned).digest == pinned
    weights = folder / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(CheckpointRefused, match="files have changed"):
        load(folder, expected=pinned)


def test_the_cards_digest_is_the_one_of_the_shipped_files() -> None:
    assert digest(TINY) in (TINY.parents[1] / "cards" / "tiny.md").read_text()


def test_the_digest_sees_names_and_does_not_depend_on_the_folder(folder: Path, tmp_path: Path) -> None:
    before = digest(folder)
    assert digest(Path(shutil.copytree(folder, tmp_path / "other"))) == before
    (folder / "generation_config.json").rename(folder / "generation.json")
    assert digest(folder) != before


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _own_code(folder: Path) -> None:
    edited(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})


def _own_tokenizer_code(folder: Path) -> None:
    edited(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (_pickled, "no weights in safetensors .found pytorch_model.bin: convert"),
    (_own_code, "config.json wants to run code of its own"),
    (_own_tokenizer_code, "tokenizer_config.json wants to run code"),
    (_cut, "cannot be loaded"),
    (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be loaded"),
    (lambda folder: (folder / "config.json").write_text("{"), "is no JSON"),
    (lambda folder: (folder / "config.json").write_text("[]"), "holds no object"),
    (lambda folder: edited(folder / "config.json", model_type="llama"), "'llama' is not supported"),
    (lambda folder: edited(folder / "config.json", num_hidden_layers=5), "lacks"),
    (lambda folder: edited(folder / "config.json", max_position_embeddings=0), "a context of 0 tokens"),
    (lambda folder: edited(folder / "config.json", num_hidden_layers=3), "weights for which config.json has no place"),
    (lambda folder: edited(folder / "config.json", num_experts=8), "has them in another shape"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message[:30] for _, message in DAMAGES])
def test_each_damage_is_named(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(CheckpointRefused, match=message):
        load(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match="there is no folder"):
        check(tmp_path / "nothing")
