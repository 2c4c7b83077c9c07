"""The second opinion by a transformer of two layers with chance for weights; and what ships, by its digest."""

import hashlib
import itertools
import math
import subprocess
import sys
from pathlib import Path
from random import Random
from shutil import copytree

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conclave.safety.detect.learned import ARTIFACTS, digest_of
from conclave.safety.detect.second import (
    BASE_FILES,
    MOST_WINDOWS,
    SECOND_FILES,
    Opinion,
    SecondError,
    SecondFile,
    SecondHead,
    Stopped,
    checked,
    logit,
    spans,
)

CARD = ARTIFACTS.parent / "cards" / "second.md"
NAMES = ("override", "persona", "embedded")
HEADS = tuple(SecondHead(name, first=0.5, slope=1.0, offset=0.0, threshold=0.9) for name in NAMES)
LAYERS, WIDTH, UNITS = (1, 2), 32, 4


def write_part(folder: Path, base: Path) -> Path:
    """What ships, for another transformer: a network with chance for weights."""
    import torch  # noqa: PLC0415  the tests that call this skip without it
    from safetensors.torch import save_file as save  # noqa: PLC0415

    folder.mkdir()
    torch.manual_seed(3)
    shapes = {
        "inner": (UNITS, 2 * WIDTH * len(LAYERS)),
        "inner_bias": (UNITS,),
        "outer": (3, UNITS),
        "outer_bias": (3,),
    }
    save({name: torch.randn(shape) for name, shape in shapes.items()}, folder / SECOND_FILES[0])
    base_files = {name: hashlib.sha256((base / name).read_bytes()).hexdigest() for name in BASE_FILES}
    about = SecondFile(base_files, LAYERS, window=8, stride=6, heads=HEADS, trained_on={})
    (folder / SECOND_FILES[1]).write_bytes(msgspec.json.encode(about))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="a transformer needs the extra `moe`")
    pytest.importorskip("transformers", reason="a transformer needs the extra `moe`")
    from tests.router.tiny_transformer import transformer  # noqa: PLC0415  torch

    return transformer(tmp_path_factory.mktemp("second") / "base")


@pytest.fixture(scope="module")
def part(base: Path) -> Path:
    return write_part(base.parent / "part", base)


@pytest.fixture(scope="module")
def opinion(base: Path, part: Path) -> Opinion:
    return Opinion.open(base, part)


def test_a_text_is_as_suspicious_as_its_worst_window(opinion: Opinion) -> None:
    halves = ("tell me about the court please my question", "what is the sum of a long equation")
    alone = [opinion.scores(half) for half in halves]
    ids = [len(half.split()) for half in halves]
    assert ids == [8, 8]
    whole = opinion.scores(" ".join(halves))
    for name in NAMES:
        assert math.isfinite(whole[name])
        assert whole[name] >= max(said[name] for said in alone) - 1e-4


def test_the_same_text_gets_the_same_scores(opinion: Opinion) -> None:
    assert opinion.scores("tell me about python") == opinion.scores("tell me about python")


def test_a_text_without_a_token_changes_nothing(opinion: Opinion) -> None:
    said = opinion.scores("")
    assert set(said.values()) == {-math.inf}
    assert opinion.probability("override", first=0.7, score=said["override"]) == 0.7


def test_a_higher_score_of_either_makes_it_surer(opinion: Opinion) -> None:
    low, high = (opinion.probability("override", first=0.6, score=score) for score in (-1.0, 1.0))
    assert low < high < opinion.probability("override", first=0.9, score=1.0)
    assert 0 < opinion.probability("override", first=0.0, score=1.0) < 1


@pytest.mark.parametrize("tokens", [1, 61, 62, 63, 108, 109, 1_000, 100_000])
def test_windows_are_few_and_reach_both_ends(tokens: int) -> None:
    found = spans(tokens, window=62, stride=46)
    assert len(found) <= MOST_WINDOWS
    assert (found[0][0], found[-1][1]) == (0, tokens)
    assert all(end - start == min(62, tokens) for start, end in found)
    if tokens <= 62 + 7 * 46:
        assert all(later[0] <= before[1] for before, later in itertools.pairwise(found))


@pytest.mark.parametrize("kind", ["bytes", "line", "surrogates", "zeros", "tags"])
def test_hostile_texts_are_read_in_few_windows(opinion: Opinion, kind: str) -> None:
    draw = Random(4)
    text = {
        "bytes": draw.randbytes(20_000).decode("latin-1"),
        "line": "court " * 170_000,
        "surrogates": "tell me \ud800\udfff\udc00 about",
        "zeros": "\0" * 5_000,
        "tags": "".join(chr(0xE0000 + one) for one in draw.randbytes(2_000)),
    }[kind]
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return False

    said = opinion.scores(text, stopped=stopped)
    assert asked <= MOST_WINDOWS
    assert not any(math.isnan(score) for score in said.values())


def test_it_stops_between_two_windows_when_nobody_waits(opinion: Opinion) -> None:
    answers = iter([False, True])
    with pytest.raises(Stopped):
        opinion.scores("court contract " * 40, stopped=lambda: next(answers))


@pytest.mark.parametrize("probability", [0.0, 1.0, 1e-30, 1 - 1e-16])
def test_log_odds_are_bounded(probability: float) -> None:
    assert abs(logit(probability)) <= 12


def test_another_transformer_is_refused_by_its_digest(base: Path, part: Path, tmp_path: Path) -> None:
    other = copytree(base, tmp_path / "other")
    (other / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes() + b"\n")
    with pytest.raises(SecondError, match=r"tokenizer\.json has the SHA-256 \w{64}, and the second opinion was"):
        Opinion.open(other, part)


def test_a_folder_that_is_none_or_lacks_a_file_is_refused(base: Path, part: Path, tmp_path: Path) -> None:
    with pytest.raises(SecondError, match=r"nowhere is no folder; it takes one with config\.json"):
        checked(tmp_path / "nowhere", part)
    lacking = copytree(base, tmp_path / "lacking")
    (lacking / "model.safetensors").unlink()
    with pytest.raises(SecondError, match=r"model\.safetensors cannot be read \(No such file"):
        checked(lacking, part)


def test_a_part_that_cannot_be_read_or_is_of_two_trainings_is_refused(base: Path, part: Path, tmp_path: Path) -> None:
    broken = copytree(part, tmp_path / "broken")
    (broken / SECOND_FILES[1]).write_text('{"base": 3}')
    with pytest.raises(SecondError, match="cannot be read"):
        Opinion.open(base, broken)
    mixed = copytree(part, tmp_path / "mixed")
    about = msgspec.json.decode((mixed / SECOND_FILES[1]).read_bytes(), type=SecondFile)
    fewer = msgspec.structs.replace(about, heads=about.heads[:1])
    (mixed / SECOND_FILES[1]).write_bytes(msgspec.json.encode(fewer))
    with pytest.raises(SecondError, match="not of one training"):
        Opinion.open(base, mixed)
    endless = copytree(part, tmp_path / "endless")
    tensors = load_file(endless / SECOND_FILES[0])
    save_file({**tensors, "inner": tensors["inner"] * np.float32(np.inf)}, endless / SECOND_FILES[0])
    with pytest.raises(SecondError, match="weights that are no numbers"):
        Opinion.open(base, endless)


def test_what_ships_is_small_of_one_training_and_the_one_that_its_card_describes() -> None:
    about = msgspec.json.decode((ARTIFACTS / SECOND_FILES[1]).read_bytes(), type=SecondFile)
    tensors = load_file(ARTIFACTS / SECOND_FILES[0])
    assert all(np.isfinite(tensor).all() and np.abs(tensor).max() < 1_000 for tensor in tensors.values())
    width = 2 * 384 * len(about.layers)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "inner": (64, width),
        "inner_bias": (64,),
        "outer": (len(about.heads), 64),
        "outer_bias": (len(about.heads),),
    }
    assert (ARTIFACTS / SECOND_FILES[0]).stat().st_size < 1 << 20
    assert all(0.5 < head.threshold < 1 for head in about.heads)
    assert all(head.first > 0 and head.slope > 0 for head in about.heads)
    card = CARD.read_text(encoding="utf-8")
    assert digest_of(SECOND_FILES) in card
    for digest in (*about.base.values(), *about.trained_on.values()):
        assert digest in card


def test_nothing_of_it_is_imported_unless_a_policy_asks() -> None:
    code = (
        "import sys; from conclave.safety.checks import Checks; "
        "[Checks(lambda _: [1]).make(name) for name in ('override', 'embedded')]; import conclave.gateway.settings; "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules, 'torch is imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
