"""What the learned detectors see: letters of Chinese, what repeats, and windows that cover all."""

from random import Random

import numpy as np
import pytest

from conclave.safety.detect.ngrams import AGAIN, CHARACTERS, codes, codes_of, edge_sentences, tokens_of, windows

VOCABULARY = 100


def ids(text: str) -> list[int]:
    return [sum(map(ord, word)) % VOCABULARY for word in text.split()]


def test_chinese_letters_are_tokens_of_their_own_in_their_order() -> None:
    found = tokens_of("say 忽略指令 now", ids, VOCABULARY)
    assert found[0] == ids("say")[0]
    assert found[-1] == ids("now")[0]
    assert found[1:-1] == [VOCABULARY + ord(letter) % CHARACTERS for letter in "忽略指令"]


@pytest.mark.parametrize("text", ["plain words", "Привет мир", "naïve café", "안녕 하세요", ""])
def test_other_scripts_are_the_tokenizers_affair(text: str) -> None:
    assert tokens_of(text, ids, VOCABULARY) == ids(text)


def test_a_code_that_repeats_soon_counts_once() -> None:
    ruler = codes([7] * (2 * AGAIN), VOCABULARY)
    assert (ruler[:, 0] >= 0).sum() == 1
    far = codes([7, *range(10, 10 + AGAIN), 7], VOCABULARY)
    assert far[0, 0] == far[-1, 0] == 7


def test_pairs_and_triples_know_their_order() -> None:
    one, two = codes([1, 2, 3], VOCABULARY), codes([3, 2, 1], VOCABULARY)
    assert one[1, 1] != two[2, 1]
    assert one[2, 2] != two[2, 2]
    assert (one[0, 1:] == -1).all()


@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 24, 25, 100])
@pytest.mark.parametrize("size", [8, 24])
def test_windows_cover_every_token_and_overlap(tokens: int, size: int) -> None:
    spans = windows(tokens, size)
    covered = {at for start, end in spans.tolist() for at in range(start, end)}
    assert covered == set(range(tokens))
    assert ((spans[:, 1] - spans[:, 0]) <= size).all()


def test_any_tokens_have_codes() -> None:
    draw = Random(1)
    for count in (0, 1, 2, 3, 500):
        found = codes([draw.randrange(VOCABULARY) for _ in range(count)], VOCABULARY)
        assert found.shape == (count, 3)
        assert found.dtype == np.int64


@pytest.mark.parametrize("lengths", [(3, 5), (1, 1, 2), (0, 40), (700, 600)], ids=str)
def test_texts_in_a_row_have_the_codes_that_they_have_alone(lengths: tuple[int, ...]) -> None:
    draw = Random(2)
    texts = [[draw.randrange(9) for _ in range(length)] for length in lengths]
    row = codes_of(texts, VOCABULARY, gap=AGAIN)
    at = 0
    for text in texts:
        if text:
            assert (codes(text, VOCABULARY) == row[:, at : at + len(text)].T).all()
        at += len(text) + AGAIN
        assert (row[:, at - AGAIN : at] == -1).all()


@pytest.mark.parametrize(
    ("tokens", "spans"),
    [
        pytest.param([5] * 6 + [0] + [5] * 30, [(0, 7)], id="first"),
        pytest.param([5] * 30 + [0] + [5] * 7, [(31, 38)], id="last"),
        pytest.param([5] * 2 + [0] + [5] * 5 + [0] + [5] * 30, [(0, 9)], id="a few words belong to the next"),
        pytest.param([5] * 6 + [0], [], id="all of it"),
        pytest.param([5] * 25 + [0] + [5] * 30, [], id="long"),
        pytest.param([], [], id="empty"),
    ],
)
def test_short_sentences_at_the_edges_are_found(tokens: list[int], spans: list[tuple[int, int]]) -> None:
    assert edge_sentences(tokens, {0}) == spans
