"""Training from the data folder to the shipped files: `conclave router train` (about 5 minutes on 2 cores).

It reads category_train.jsonl.gz, adds disturbed copies and the generated chat corpus, fits, calibrates on unseen
sources and writes `classifier.safetensors` and `classifier.json` beside the encoder's files. It never reads
category_dev. Everything random is drawn from `SEED`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Final

import msgspec
import numpy as np
from safetensors.numpy import save_file
from scipy.special import log_softmax

from conclave.router.classify import CLASSIFIER_FILES, Head
from conclave.router.encoder import StaticEncoder
from conclave.router.features import FEATURES
from conclave.router.train.corpus import chat_rows
from conclave.router.train.fit import calibrate, features, fit, out_of_source
from conclave.router.train.rows import TRAIN_FILE, Row, read_rows, row_weights
from conclave.router.train.vary import disturb

SEED: Final = 20261122
CELL_ROWS: Final = 400  # of one source and category: more of the same shape teaches little and costs time
COPY_SHARE: Final = 0.5  # of the benchmark rows get a disturbed copy


def train(data: Path, out: Path, *, say: Callable[[str], None]) -> None:
    """Write the classifier of the data folder into `out`, which holds the encoder; raises FileNotFoundError."""
    digest = hashlib.sha256((data / TRAIN_FILE).read_bytes()).hexdigest()
    rows = sample(read_rows(data / TRAIN_FILE))
    chat = list(chat_rows(SEED))
    say(f"{len(rows)} benchmark rows, {len(chat)} of our own")
    write(rows + chat, out, trained_on={TRAIN_FILE: digest}, say=say)


def sample(rows: Iterator[Row], cell_rows: int = CELL_ROWS) -> list[Row]:
    """At most `cell_rows` rows of each source and category, and disturbed copies of a share of them."""
    cells: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        cells[row.category, row.source].append(row)
    draw = Random(SEED)  # noqa: S311  a seeded draw, not a secret
    chosen: list[Row] = []
    for cell in sorted(cells):
        held = cells[cell]
        chosen += draw.sample(held, cell_rows) if len(held) > cell_rows else held
    copies = [Row(disturb(row.text, draw), row.category, row.source) for row in chosen if draw.random() < COPY_SHARE]
    return chosen + copies


def write(rows: Sequence[Row], out: Path, *, trained_on: dict[str, str], say: Callable[[str], None]) -> None:
    """Fit, calibrate on unseen sources, and write both files."""
    categories = sorted({row.category for row in rows})
    matrix = features(StaticEncoder.load(out), [row.text for row in rows])
    labels = np.array([categories.index(row.category) for row in rows])
    logits = np.zeros((len(rows), len(categories)), dtype=np.float32)
    judged = np.zeros(len(rows), dtype=bool)
    for numbers, found in out_of_source(matrix, rows, categories):
        logits[numbers] = found
        judged[numbers] = True
    right = logits.argmax(axis=1) == labels
    by_source: defaultdict[str, list[bool]] = defaultdict(list)
    for number in np.flatnonzero(judged).tolist():
        by_source[rows[number].source].append(bool(right[number]))
    for source, found_right in sorted(by_source.items()):
        say(f"unseen source {source:<24} {np.mean(found_right):.3f} of {len(found_right)}")
    counts = np.array(row_weights([row for row, held in zip(rows, judged, strict=True) if held]))
    say(f"mean over unseen sources {np.mean([np.mean(one) for one in by_source.values()]):.3f}")
    say(f"categories alike, sources by the root of their size {(right[judged] * counts).sum() / counts.sum():.3f}")
    calibration = calibrate(logits[judged], labels[judged], counts)
    sure = np.exp(log_softmax(logits[judged] / calibration.temperature, axis=1).max(axis=1)) >= calibration.threshold
    say(f"sure of {(sure * counts).sum() / counts.sum():.3f} of unseen rows")
    say(f"temperature {calibration.temperature}, threshold {calibration.threshold}")
    tensors = asdict(fit(matrix, rows, categories).weights())
    tensors["codes"] = tensors["codes"].astype(np.float16)
    save_file(tensors, out / CLASSIFIER_FILES[0])
    (out / CLASSIFIER_FILES[0]).chmod(0o644)  # safetensors writes 0600
    head = Head(
        categories=tuple(categories),
        features=FEATURES,
        temperature=calibration.temperature,
        threshold=calibration.threshold,
        trained_on=trained_on,
    )
    (out / CLASSIFIER_FILES[1]).write_bytes(msgspec.json.format(msgspec.json.encode(head), indent=2) + b"\n")
