"""An encoder that knows which words a text has, and nothing else; a library in a folder of the test's own."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from conclave.retrieval.api import Encode
from conclave.retrieval.library import Library

DIMENSIONS = 32


def bag_of_words(texts: Sequence[str]) -> NDArray[np.float32]:
    vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            vectors[row, zlib.crc32(word.encode("utf-8", "replace")) % DIMENSIONS] += 1
        length = np.linalg.norm(vectors[row])
        if length:
            vectors[row] /= length
    return vectors


@pytest.fixture(scope="session")
def encode() -> Encode:
    return bag_of_words


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = Library.open(tmp_path / "knowledge", make=True)
    yield made
    made.close()
