"""The classifier: a decision for every text, calibrated numbers, one artifact."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

from conclave.router.classify import CLASSIFIER_FILES, Router, artifacts_digest
from conclave.router.encoder import ARTIFACTS

# A new artifact changes it, and then the card too.
SHIPPED_DIGEST = "99b69d0ad0c7d316b82471d66c9dffb39dcdb1262172438e18b822281d235895"

NONSENSE = {
    "empty": "",
    "one character": "a",
    "blanks": " \n\t  \r\n",
    "binary-like": "".join(chr(number % 256) for number in range(0, 4000, 7)),
    "control characters": "\x00\x01\x02\x1b[0m" * 20,
    "lone surrogates": "\ud800\udfff",
    "digits": "0123456789" * 30,
    "one letter a million times": "a" * 1_000_000,
}
READABLE = {
    "a megabyte of prose": "Please summarise the following report. " + "The committee met again on Monday. " * 30_000,
    "mixed scripts": "Привет, 你好, مرحبا and hello: translate this, please",
    "a surrogate inside": "How do I \ud800 sort a list in Python?",
    "right to left": "ما هي عاصمة كندا؟",
}


@pytest.mark.parametrize("text", [*NONSENSE.values(), *READABLE.values()], ids=[*NONSENSE, *READABLE])
def test_every_text_gets_a_distribution_whose_argmax_is_the_category(shipped: Router, text: str) -> None:
    found = shipped.classify(text)
    assert tuple(found.probabilities) == shipped.categories
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-9)
    assert found.category == max(found.probabilities, key=found.probabilities.__getitem__)
    assert found.confidence == pytest.approx(found.probabilities[found.category], abs=1e-12)
    assert found.unsure == (found.confidence < shipped.threshold)


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_text_that_says_nothing_is_unsure(shipped: Router, text: str) -> None:
    assert shipped.classify(text).unsure


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("write a python function that reverses a linked list", "code"),
        ("TypeError: 'NoneType' object is not iterable\nhow do i fix this", "code"),
        ("what is 17 times 23", "math"),
        ("set a timer for ten minutes please", "assistant_chat"),
        ("write me a short poem about my old bicycle", "creative_writing"),
        ("¿Cómo puedo llegar a la estación de trenes?", "multilingual"),
        ("what are the side effects of ibuprofen", "medicine"),
        ("can my landlord keep my deposit if there is no lease?", "law"),
    ],
    ids=lambda value: value if value.isidentifier() else "",
)
def test_a_plain_request_goes_where_a_person_would_send_it(shipped: Router, text: str, category: str) -> None:
    assert shipped.classify(text).category == category


def test_a_batch_is_the_same_as_one_by_one(shipped: Router) -> None:
    texts = [*NONSENSE.values(), *READABLE.values(), "why is the sky blue?"]
    assert shipped.classify_batch(texts) == [shipped.classify(text) for text in texts]


def test_no_texts_give_no_classifications(shipped: Router) -> None:
    assert shipped.classify_batch([]) == []


def test_what_was_read_before_changes_nothing(shipped: Router) -> None:
    """The memo of words is a matter of speed only."""
    text = "Explain the doctrine of promissory estoppel, briefly."
    before = shipped.classify(text)
    shipped.classify_batch(f"Quite-different words{number}, no{number}!" for number in range(200))
    assert shipped.classify(text) == before == Router.load().classify(text)


def test_the_shipped_artifact_is_the_one_the_card_describes(shipped: Router) -> None:
    assert shipped.digest == artifacts_digest() == SHIPPED_DIGEST
    assert SHIPPED_DIGEST in (ARTIFACTS.parent / "cards" / "classifier.md").read_text(encoding="utf-8")


def test_a_flipped_bit_of_any_file_changes_the_digest(tmp_path: Path) -> None:
    folder = copytree(ARTIFACTS, tmp_path / "artifacts")
    head = folder / CLASSIFIER_FILES[1]
    head.write_bytes(head.read_bytes().replace(b"0", b"1", 1))
    assert artifacts_digest(folder) != SHIPPED_DIGEST


def test_weights_of_other_features_are_refused(tmp_path: Path) -> None:
    folder = copytree(ARTIFACTS, tmp_path / "artifacts")
    head = folder / CLASSIFIER_FILES[1]
    head.write_text(json.dumps(json.loads(head.read_text()) | {"features": "something/0"}))
    with pytest.raises(ValueError, match="something/0"):
        Router.load(folder)


def test_a_missing_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Router.load(tmp_path)


def test_routing_needs_no_training_library() -> None:
    """A process that imports the module pays for no numpy; one that classifies pays for no torch or scikit-learn."""
    program = """
import sys
import conclave.router.classify as module
early = {"numpy", "tokenizers", "safetensors"} & set(sys.modules)
module.Router.load().classify("hello")
heavy = {"torch", "sklearn", "scipy", "transformers", "model2vec"} & set(sys.modules)
print(sorted(early), sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
