"""Opens a checkpoint for serving: safetensors only, nothing of its own code, and the bytes that were meant.

It decides whether a folder may be loaded. It never downloads, never unpickles and never runs code from the folder.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from conclave.moe.adapt import FAMILIES

TINY: Final = Path(__file__).parent / "artifacts" / "tiny"
CODE_SUFFIXES: Final = frozenset({".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack"})
SHORTEST: Final = 2  # tokens of context: one is asked, one is answered
COMPUTED: Final = "rotary_emb.inv_freq"  # older checkpoints hold it; the model makes its own
READ_BYTES: Final = 1 << 20


class CheckpointRefused(ValueError):
    """The folder is not a checkpoint that may be served; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model with what identifies it."""

    model: Any
    tokenizer: Any
    digest: str
    folder: Path


def digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the folder's files, those of its subfolders too."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        each = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                each.update(block)
        total.update(f"{path.relative_to(folder).as_posix()}\0{each.hexdigest()}\n".encode())
    return total.hexdigest()


def check(folder: Path, *, expected: str | None = None) -> str:
    """The folder's digest. Raises CheckpointRefused for what may not be loaded."""
    if not folder.is_dir():
        raise CheckpointRefused(f"there is no folder {folder}; name one with config.json, weights and tokenizer")
    settings = _settings(folder / "config.json")
    kind = settings.get("model_type")
    if kind not in FAMILIES:
        raise CheckpointRefused(f"model type {kind!r} is not supported; supported are {', '.join(sorted(FAMILIES))}")
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in _settings(folder / name):
            raise CheckpointRefused(f"{name} wants to run code of its own (auto_map); such a checkpoint is not loaded")
    if (generation := folder / "generation_config.json").exists():
        _settings(generation)  # transformers passes over a broken one, and with it how answers end
    if not list(folder.glob("*.safetensors")):
        others = sorted(path.name for path in folder.iterdir() if path.suffix in CODE_SUFFIXES)
        hint = f" (found {', '.join(others)}: convert these to safetensors first)" if others else ""
        raise CheckpointRefused(f"{folder} holds no weights in safetensors{hint}")
    found = digest(folder)
    if expected is not None and found != expected.lower():
        raise CheckpointRefused(f"{folder} has the digest {found}, and {expected} was expected: the files have changed")
    return found


def load(folder: Path, *, expected: str | None = None, dtype: torch.dtype | str = "auto") -> Checkpoint:
    """The model in evaluation mode. Raises CheckpointRefused, with what transformers says about broken files."""
    found = check(folder, expected=expected)
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are in the report, and refused below
            output_loading_info=True,
            **local,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    except Exception as wrong:  # whatever transformers, tokenizers and safetensors raise for broken files
        raise CheckpointRefused(f"{folder} cannot be loaded: {type(wrong).__name__}: {wrong}") from wrong
    other = [f"{name} {list(has)}, not {list(wants)}" for name, has, wants in report["mismatched_keys"]]
    lacking = sorted({*report["missing_keys"], *other})
    if lacking:
        raise CheckpointRefused(f"{folder} lacks {len(lacking)} weights or has them in another shape: {lacking[:3]}")
    if left := sorted(name for name in report["unexpected_keys"] if not name.endswith(COMPUTED)):
        raise CheckpointRefused(f"{folder} has {len(left)} weights for which config.json has no place: {left[:3]}")
    if len(tokenizer) > model.config.vocab_size:
        raise CheckpointRefused(f"the tokenizer has {len(tokenizer)} tokens and the model {model.config.vocab_size}")
    if (context := int(model.config.max_position_embeddings)) < SHORTEST:
        raise CheckpointRefused(f"config.json says a context of {context} tokens (max_position_embeddings)")
    return Checkpoint(model.eval(), tokenizer, found, folder)


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointRefused(f"{path.parent} has no {path.name}")
    try:
        read = json.loads(path.read_bytes())
    except ValueError as wrong:
        raise CheckpointRefused(f"{path} is no JSON: {wrong}") from None
    if not isinstance(read, dict):
        raise CheckpointRefused(f"{path} holds no object")
    return read
