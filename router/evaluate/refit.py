"""The classifier as it would be without the questions that it is going to be judged on.

Most rows of category_train that came from an examination are questions of the outcome files. Those are left out, by
their stem, before the fit; then its probabilities are what a stranger's classifier would say. It is the only place
where the benchmark touches the classifier's training code.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np

from conclave.router.encoder import StaticEncoder
from conclave.router.train.corpus import chat_rows
from conclave.router.train.fit import features, fit
from conclave.router.train.rows import TRAIN_FILE, Row, read_rows
from conclave.router.train.run import SEED, sample

CELL_ROWS: Final = 250  # of a source and category; with 400 the classifier is 0.3 points better and takes twice as long
CHAT_PROMPTS: Final = 300
STEM_CHARS: Final = 120  # what two copies of a question share, whatever surrounds its options

_WORDS: Final = re.compile(r"\W+")
_OPTIONS: Final = re.compile(r"\n\(?A[.)] ")


def stem(text: str) -> str:
    """What makes two texts the same question: the first letters and digits before the options."""
    return _WORDS.sub("", _OPTIONS.split(text, maxsplit=1)[0].lower())[:STEM_CHARS]


def strange_probabilities(prompts: Sequence[str], data: Path, encoder: StaticEncoder) -> list[Mapping[str, float]]:
    """Each prompt's categories, by a classifier that has seen none of them; raises FileNotFoundError."""
    known = {stem(prompt) for prompt in prompts}
    public = (row for row in read_rows(data / TRAIN_FILE) if stem(row.text) not in known)
    rows: list[Row] = list(chain(sample(public, CELL_ROWS), chat_rows(SEED, CHAT_PROMPTS)))
    categories = sorted({row.category for row in rows})
    model = fit(features(encoder, [row.text for row in rows]), rows, categories)
    logits = model.scores(features(encoder, prompts)).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    return [dict(zip(categories, row, strict=True)) for row in shares.tolist()]
