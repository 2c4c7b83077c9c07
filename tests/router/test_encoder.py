"""The static encoder: vectors of length one, the tokenizer's own ids, no text too strange."""

from itertools import islice, product

import numpy as np
import pytest
from tokenizers import Tokenizer

from conclave.router.classify import Router
from conclave.router.encoder import ARTIFACTS, HEAD_CHARS, MEMO_ENTRIES, TAIL_CHARS, StaticEncoder, excerpt

STRANGE = {
    "empty": "",
    "blanks": " \n\t ",
    "one character": "a",
    "binary-like": "\x00\x01\xff\x7f" * 50,
    "lone surrogate": "before \ud800 after",
    "mixed scripts": "Привет, 你好 and مرحبا!",
    "unknown script": "𐍈𐍂𐌸",
    "one word of a megabyte": "a" * 1_000_000,
    "a megabyte of words": "word " * 200_000,
}


@pytest.fixture(scope="module")
def encoder(shipped: Router) -> StaticEncoder:
    return shipped.encoder


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE.keys())
def test_any_text_has_a_finite_vector_of_length_one_or_zero(encoder: StaticEncoder, text: str) -> None:
    vectors = encoder.encode([text])
    assert vectors.shape == (1, 256)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5) or not vectors.any()


def test_a_batch_has_the_bits_of_single_texts(encoder: StaticEncoder) -> None:
    texts = [*STRANGE.values(), "How do I sort a list in Python?"]
    assert (encoder.encode(texts) == np.stack([encoder.encode([text])[0] for text in texts])).all()


def test_no_texts_give_no_vectors(encoder: StaticEncoder) -> None:
    assert encoder.encode([]).shape == (0, 256)


@pytest.mark.parametrize(
    "text",
    [
        "Hello, world! It's 3.14 (approximately).",
        "def f(x):\n\treturn x**2  # squared",
        "naïve café — „Anführung“ 你好世界 ひらがな Straße ΣΊΣΥΦΟΣ",
        "user@example.com #tag $5 a_b <html>",
        "unbelievablyunsplittablelongword" * 9,
        "a" * 100 + " " + "a" * 101 + " [CLS] ##ing",
        "İstanbul 한국어 हिन्दी ไทย العَرَبِيَّة Ελληνικά, ﬁn ꙮ a\u0301\u08d3 \u302e字a",
    ],
    ids=["prose", "code", "scripts", "marks", "long word", "edges of length", "alphabets"],
)
def test_the_memo_gives_the_tokenizers_own_ids(encoder: StaticEncoder, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(ARTIFACTS / "tokenizer.json"))
    expected = tokenizer.encode(text, add_special_tokens=False).ids
    assert encoder.tokens.ids(text) == expected
    assert encoder.tokens.ids(text) == expected, "the second time, from memory"


def test_the_memo_stays_bounded_and_right() -> None:
    """More distinct words than it holds: old ones are forgotten, ids stay the same."""
    encoder = StaticEncoder.load()
    before = encoder.tokens.ids("alpha waaab omega")
    most = 0
    for letters in islice(product("abcdefghij", repeat=5), MEMO_ENTRIES + 10):
        encoder.tokens.ids("w" + "".join(letters))
        most = max(most, encoder.tokens.remembered)
    assert most == MEMO_ENTRIES
    assert encoder.tokens.remembered < MEMO_ENTRIES, "it began anew"
    assert encoder.tokens.ids("alpha waaab omega") == before


def test_numbers_that_hardly_come_again_are_not_remembered() -> None:
    encoder = StaticEncoder.load()
    encoder.tokens.ids("order in 2024 and py3")
    known = encoder.tokens.remembered
    for number in range(10_000, 10_100):
        encoder.tokens.ids(f"order {number}")
    assert encoder.tokens.remembered == known


def test_a_long_text_is_read_at_both_ends() -> None:
    text = "head " + "x" * 10_000 + " tail"
    assert len(excerpt(text)) == HEAD_CHARS + TAIL_CHARS + 1
    assert excerpt(text).startswith("head")
    assert excerpt(text).endswith("tail")


def test_related_sentences_are_nearer_than_unrelated_ones(encoder: StaticEncoder) -> None:
    cat, kitten, tax = encoder.encode(["my cat is ill", "a sick kitten", "corporate income tax rates"])
    assert cat @ kitten > cat @ tax + 0.2


def test_the_vector_is_the_normalised_sum_of_the_token_vectors(encoder: StaticEncoder) -> None:
    ids = encoder.tokens.ids("one plain sentence")
    total = encoder.token_vectors(ids).astype(np.float64).sum(axis=0)
    assert encoder.pool(ids) == pytest.approx(total / np.linalg.norm(total), abs=1e-6)
