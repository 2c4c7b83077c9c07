"""A transformer for an encoder: what its vectors are, which folders are refused, and a classifier that needs one."""

import json
import math
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

pytest.importorskip("torch", reason="a transformer needs the extra `moe`")
pytest.importorskip("transformers", reason="a transformer needs the extra `moe`")
pytest.importorskip("numba", reason="training needs the extra `train`")

import torch
from click.testing import CliRunner

from conclave.router.classify import CLASSIFIER_FILES, Router, read_head
from conclave.router.cli import router as commands
from conclave.router.encoder import ARTIFACTS
from conclave.router.explain import explain
from conclave.router.train.run import write
from conclave.router.transformer import EncoderError, TransformerEncoder

from .test_categories import COOKING
from .test_classify import NONSENSE, READABLE
from .tiny_transformer import ROWS, classifier, transformer

TEXT = "tell me about the court, please"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transformer(tmp_path_factory.mktemp("tiny") / "encoder")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TransformerEncoder:
    return TransformerEncoder.open(folder)


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    return classifier(folder.parent / "classifier", folder)


@pytest.fixture(scope="module")
def loaded(trained: Path) -> Router:
    return Router.load(trained)


def test_a_vector_is_the_normalised_mean_of_the_last_layer(folder: Path, encoder: TransformerEncoder) -> None:
    from transformers import AutoModel  # noqa: PLC0415  4 s

    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    ids = [words[word] for word in ("[CLS]", "tell", "me", "about", "python", "[SEP]")]
    with torch.inference_mode():
        mean = AutoModel.from_pretrained(folder)(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
    assert encoder.encode(["Tell me about PYTHON"])[0] == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


@pytest.mark.parametrize("text", [*NONSENSE.values(), *READABLE.values()], ids=[*NONSENSE, *READABLE])
def test_every_text_has_a_vector_of_length_one_or_none(encoder: TransformerEncoder, text: str) -> None:
    length = float((encoder.encode([text])[0] ** 2).sum())
    assert length == pytest.approx(1, abs=1e-4) or (length == 0 and not text.strip("\x00\x01\x02\x1b \t\r\n"))


def test_no_more_of_a_text_is_read_than_the_model_has_places_for(encoder: TransformerEncoder) -> None:
    assert encoder.wanted.max_tokens == 38  # of 40; some models count from 2
    long = "hello " * 500
    assert (encoder.encode([long]) == encoder.encode([long + "court"])).all()


def test_a_batch_has_the_bits_of_single_texts(loaded: Router) -> None:
    texts = [TEXT, "", "hello", "what is the sum of 1 and 2"]
    assert loaded.classify_batch(texts) == [loaded.classify(text) for text in texts]


def test_a_classifier_on_a_transformer_decides(loaded: Router, encoder: TransformerEncoder) -> None:
    assert loaded.is_slow
    assert loaded.classify("a python function, please").category == "code"
    assert loaded.classify("my court and my contract").category == "law"
    assert (loaded.read(TEXT).vector == encoder.encode([TEXT])[0]).all()


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE.keys())
def test_any_text_is_classified(loaded: Router, text: str) -> None:
    found = loaded.classify(text)
    assert math.fsum(found.probabilities.values()) == pytest.approx(1, abs=1e-9)


def test_the_same_training_gives_the_same_bytes(trained: Path, folder: Path, tmp_path: Path) -> None:
    other = classifier(tmp_path / "other", folder)
    assert [(other / name).read_bytes() for name in CLASSIFIER_FILES] == [
        (trained / name).read_bytes() for name in CLASSIFIER_FILES
    ]


def test_all_shares_of_an_explanation_add_up(loaded: Router) -> None:
    explanation = explain(loaded, TEXT, cues=10_000)
    found = explanation.classification
    first, second = map(loaded.categories.index, (found.category, found.runner_up))
    scores, bias = loaded.scores(loaded.read(TEXT)), loaded.weights.bias
    odds = (scores[first] - scores[second] - float(bias[first] - bias[second])) / loaded.temperature
    assert math.fsum(cue.weight for cue in explanation.cues) == pytest.approx(odds, abs=2e-3)
    assert "the text as a whole" in {cue.cue for cue in explanation.cues}


def test_own_categories_are_learned_in_the_transformers_space(loaded: Router, encoder: TransformerEncoder) -> None:
    assert loaded.background.shape[1] == encoder.dimensions == 32
    assert (loaded.encode(COOKING) == encoder.encode(COOKING)).all()
    words = ("is", "do", "i", "write", "how", "of", "the", "question")
    strange = [f"long question i do write, long {word} long" for word in words]
    taught = loaded.taught({"riddles": strange})
    assert taught.classify("long question i do write, long what long").category == "riddles"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_another_encoder_than_that_of_the_training_is_refused(
    trained: Path, folder: Path, tmp_path: Path, name: str
) -> None:
    other = copytree(folder, tmp_path / "other")
    changed = transformer(tmp_path / "seed", seed=1) / name
    bytes_ = changed.read_bytes() if name == "model.safetensors" else (folder / name).read_bytes() + b"\n"
    (other / name).write_bytes(bytes_)
    with pytest.raises(EncoderError, match=f"{name} has the SHA-256 .*trained on .*train it again"):
        Router.load(trained, encoder=other)


def test_a_moved_encoder_is_found_where_it_is_said_to_be(
    trained: Path, folder: Path, tmp_path: Path, loaded: Router
) -> None:
    moved = copytree(folder, tmp_path / "moved")
    there = Router.load(trained, encoder=moved)
    assert (there.digest, there.classify(TEXT)) == (loaded.digest, loaded.classify(TEXT))
    head = json.loads((trained / CLASSIFIER_FILES[1]).read_text())
    gone = copytree(trained, tmp_path / "gone")
    head["encoder"]["folder"] = str(tmp_path / "nowhere")
    (gone / CLASSIFIER_FILES[1]).write_text(json.dumps(head))
    with pytest.raises(EncoderError, match=r"nowhere is no folder; an encoder is one with config\.json"):
        Router.load(gone)


def test_a_transformer_for_a_classifier_that_needs_none_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="uses the static encoder"):
        Router.load(ARTIFACTS, encoder=folder)


def test_a_classifier_on_the_static_encoder_can_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """It uses the shipped encoder's files, and no others."""
    write(ROWS, tmp_path, trained_on={}, say=lambda _: None)
    mine = Router.load(tmp_path)
    assert not mine.is_slow
    assert mine.classify("a python function, please").category == "code"
    head = json.loads((tmp_path / CLASSIFIER_FILES[1]).read_text())
    assert "static" in head
    assert "encoder" not in head
    head["static"]["tokenizer.json"] = "0" * 64
    (tmp_path / CLASSIFIER_FILES[1]).write_text(json.dumps(head))
    with pytest.raises(ValueError, match=r"another tokenizer\.json"):
        read_head(tmp_path)


def test_the_shipped_files_say_nothing_of_encoders_elsewhere() -> None:
    assert not {"static", "encoder"} & json.loads((ARTIFACTS / CLASSIFIER_FILES[1]).read_text()).keys()


def spoilt(folder: Path, tmp_path: Path, name: str, data: bytes | None) -> Path:
    other = copytree(folder, tmp_path / "spoilt")
    (other / name).unlink()
    if data is not None:
        (other / name).write_bytes(data)
    return other


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("model.safetensors", None, "model.safetensors cannot be read .*an encoder's folder has config.json"),
        ("tokenizer.json", None, "tokenizer.json cannot be read"),
        ("config.json", None, "config.json cannot be read"),
        ("config.json", b"{nonsense", "the model in .* cannot be read"),
        ("config.json", b"[]", "the model in .* cannot be read"),
        ("config.json", b'{"model_type": "no such model"}', "the model in .* cannot be read"),
        ("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "cannot be read|lacks weights"),
        ("model.safetensors", b"nothing", "the model in .* cannot be read"),
        ("tokenizer.json", b"{}", "the tokenizer in .* cannot be read"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_a_folder_that_is_no_encoder_is_refused(
    folder: Path, tmp_path: Path, name: str, data: bytes | None, said: str
) -> None:
    with pytest.raises(EncoderError, match=said):
        TransformerEncoder.open(spoilt(folder, tmp_path, name, data))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="is no folder"):
        TransformerEncoder.open(tmp_path / "nothing")


def test_half_a_model_is_refused_and_not_filled_up_with_chance(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    other = copytree(folder, tmp_path / "half")
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"lacks weights of its model: encoder\.layer\.1"):
        TransformerEncoder.open(other)


def test_weights_that_are_no_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.LayerNorm.weight"] = torch.full((32,), math.nan)
    other = copytree(folder, tmp_path / "nan")
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="no numbers"):
        TransformerEncoder.open(other)


def test_a_tokenizer_with_more_words_than_the_model_is_refused(folder: Path, tmp_path: Path) -> None:
    small = transformer(tmp_path / "small", vocab_size=8)
    with pytest.raises(EncoderError, match="not that of its model"):
        TransformerEncoder.open(small)


def test_code_that_a_folder_brings_is_not_run(folder: Path, tmp_path: Path) -> None:
    other, ran = copytree(folder, tmp_path / "code"), tmp_path / "ran"
    config = json.loads((other / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "mine.Mine", "AutoConfig": "mine.Mine"}, "model_type": "mine"}
    (other / "config.json").write_text(json.dumps(config))
    (other / "mine.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Mine: ...\n")
    with pytest.raises(EncoderError):
        TransformerEncoder.open(other)
    assert not ran.exists()


def test_without_the_extra_it_is_said_what_to_install(trained: Path) -> None:
    """Also where only the classifier's papers are looked at, as `conclave check-config` does."""
    program = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from pathlib import Path
from conclave.router.classify import Router, read_head
for look in (read_head, Router.load):
    try:
        look(Path(sys.argv[1]))
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, str(trained)], capture_output=True, text=True, check=True)
    assert done.stdout.count("needs torch, which is not installed: the extra `moe` has it") == 2


def test_neither_torch_nor_transformers_is_imported_for_the_static_encoder(tmp_path: Path) -> None:
    program = """
import sys
import conclave.router.transformer
from conclave.router.classify import Router
Router.load().classify("hello")
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands, [*arguments])
    return done.exit_code, done.stderr


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (
            ["--encoder", "/no/such/folder", "--out", "{}/out"],
            1,
            "/no/such/folder is no folder; an encoder is one with",
        ),
        (["--encoder", "{}", "--out", "{}/out"], 1, "config.json cannot be read"),
        (["--encoder", "{}"], 2, "name a folder for it with --out"),
        (["--share", "0.5"], 2, "name a folder for it with --out"),
        (["--share", "0", "--out", "{}/out"], 2, "0"),
        (["--out", "{}/out"], 1, "category_train.jsonl.gz"),
        (["--out", "{}/file"], 2, "is a file"),
    ],
    ids=["no folder", "no encoder", "no out", "a share of ours", "nothing", "no data", "a file for out"],
)
def test_a_training_that_cannot_be_is_said_in_a_line(tmp_path: Path, more: list[str], code: int, said: str) -> None:
    (tmp_path / "file").touch()
    arguments = [one.format(tmp_path) for one in more]
    ended, words = run("train", "--data", str(tmp_path), *arguments)
    assert (ended, said in words) == (code, True), words
    assert "Traceback" not in words


def test_a_folder_without_a_classifier_is_said_in_a_line(tmp_path: Path) -> None:
    ended, words = run("classify", "--jsonl", "-", "--classifier", str(tmp_path))
    assert (ended, "classifier.json" in words, words.count("\n")) == (1, True, 1)


def test_rows_are_classified_by_a_classifier_of_ones_own(trained: Path, loaded: Router) -> None:
    row = json.dumps({"text": TEXT})
    done = CliRunner().invoke(commands, ["classify", "--jsonl", "-", "--classifier", str(trained)], input=row)
    assert json.loads(done.stdout)["probabilities"] == dict(loaded.classify(TEXT).probabilities)
