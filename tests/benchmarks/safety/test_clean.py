"""Honest text in many languages is sent as it was written: less than one text in a thousand changes."""

import os
import random
from pathlib import Path

import pytest

from benchmarks.safety.clean import SENTENCES, drawn, honest, is_changed

MOST = 0.001
DATA = os.environ.get("CONCLAVE_DATA")


def test_2000_texts_that_need_unseen_characters_stay_as_they_are() -> None:
    draw = random.Random(4)
    assert [text for text in (drawn(draw) for _ in range(2_000)) if is_changed(text)] == []


@pytest.mark.parametrize("sentence", SENTENCES)
def test_each_sentence_stays_as_it_is(sentence: str) -> None:
    assert not is_changed(sentence)


@pytest.mark.skipif(DATA is None, reason="CONCLAVE_DATA is not set: the texts are not part of the repository")
def test_of_honest_texts_hardly_any_changes() -> None:
    assert DATA is not None
    texts = list(honest(Path(DATA)))
    assert len(texts) > 2_000
    assert sum(is_changed(text) for _, text in texts) < MOST * len(texts)
