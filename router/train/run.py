"""Training from the data folder to a classifier: `conclave router train` (about 2 minutes of one core; on MiniLM 30).

It reads category_train.jsonl.gz, adds disturbed copies and the generated chat corpus, fits, calibrates on unseen
sources and writes `classifier.safetensors` and `classifier.json`. The encoder is the static one, beside these files or
else the shipped one, or a transformer in a folder of its own. It never reads category_dev. Everything random is drawn
from `SEED`.
"""

import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

from conclave.router.classify import CLASSIFIER_FILES, Head, file_digest, static_folder
from conclave.router.encoder import ENCODER_FILES, StaticEncoder
from conclave.router.features import FEATURES, SURFACE
from conclave.router.train.calibrate import Scored, calibrate, report
from conclave.router.train.corpus import NOISE_SOURCE, PROMPTS_PER_CATEGORY, chat_rows
from conclave.router.train.fit import VECTOR_SCALE, Matrix, features, fit, out_of_source
from conclave.router.train.rows import TRAIN_FILE, Row, read_rows, row_weights
from conclave.router.train.vary import disturb
from conclave.router.transformer import TransformerEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED: Final = 20261122
CELL_ROWS: Final = 400  # of one source and category: more of the same shape teaches little and costs time
COPY_SHARE: Final = 0.5  # of the benchmark rows get a disturbed copy
BACKGROUND_ROWS: Final = 60  # a category, for categories of the user's own


def train(
    data: Path, out: Path, *, say: Callable[[str], None], encoder: Path | None = None, share: float = 1.0
) -> None:
    """Write the classifier of the data folder into `out`, on the static encoder or the transformer in `encoder`.

    `share` of the rows are taken of each source and category, and of our own. Raises OSError, and ValueError for a
    folder that is no encoder.
    """
    transformer = TransformerEncoder.open(encoder) if encoder is not None else None
    digest = hashlib.sha256((data / TRAIN_FILE).read_bytes()).hexdigest()
    rows = sample(read_rows(data / TRAIN_FILE), max(1, round(CELL_ROWS * share)))
    chat = list(chat_rows(SEED, max(1, round(PROMPTS_PER_CATEGORY * share))))
    say(f"{len(rows)} benchmark rows, {len(chat)} of our own")
    out.mkdir(parents=True, exist_ok=True)
    write(rows + chat, out, trained_on={TRAIN_FILE: digest}, say=say, transformer=transformer)


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


def write(
    rows: Sequence[Row],
    out: Path,
    *,
    trained_on: dict[str, str],
    say: Callable[[str], None],
    transformer: TransformerEncoder | None = None,
) -> None:
    """Fit, calibrate on unseen sources, and write both files."""
    categories = sorted({row.category for row in rows})
    texts, held = [row.text for row in rows], static_folder(out)
    vectors = encoded(transformer, texts) if transformer is not None else None
    matrix = features(StaticEncoder.load(held), texts, vectors)
    scored = unseen(matrix, rows, categories)
    calibration = calibrate(scored)
    report(scored, calibration, say=say)
    tensors = asdict(fit(matrix, rows, categories).weights())
    unit = tensors.pop("unit")
    tensors["background"] = background(matrix, rows, categories)
    save_file(tensors, out / CLASSIFIER_FILES[0])
    (out / CLASSIFIER_FILES[0]).chmod(0o644)  # safetensors writes 0600
    head = Head(
        categories=tuple(categories),
        features=FEATURES,
        temperature=calibration.temperature,
        curve=calibration.curve,
        unit=unit,
        threshold=calibration.threshold,
        floor=calibration.floor,
        trained_on=trained_on,
        static={name: file_digest(held / name) for name in ENCODER_FILES} if held != out else {},
        encoder=transformer.wanted if transformer is not None else None,
    )
    (out / CLASSIFIER_FILES[1]).write_bytes(msgspec.json.format(msgspec.json.encode(head), indent=2) + b"\n")


def encoded(transformer: TransformerEncoder, texts: Sequence[str]) -> "NDArray[np.float32]":
    """The texts' vectors, [texts, dimensions] fp32, with a bar on a terminal: they are most of the work."""
    vectors = np.zeros((len(texts), transformer.dimensions), dtype=np.float32)
    for row, text in enumerate(tqdm(texts, unit=" texts", disable=None, file=sys.stderr)):
        vectors[row] = transformer.encode([text])[0]
    return vectors


def unseen(matrix: Matrix, rows: Sequence[Row], categories: Sequence[str]) -> Scored:
    """The scores of all benchmark rows, each by a model that has not seen its source."""
    found = list(out_of_source(matrix, rows, categories))
    numbers = [number for numbers, _ in found for number in numbers]
    held = [rows[number] for number in numbers]
    return Scored(
        scores=np.concatenate([scores for _, scores in found]),
        labels=np.array([categories.index(row.category) for row in held]),
        counts=np.array(row_weights(held)),
        sources=[row.source for row in held],
    )


def background(matrix: Matrix, rows: Sequence[Row], categories: Sequence[str]) -> "NDArray[np.float16]":
    """Vectors of some rows of each category, sources alike: what a category of the user's own is told apart from."""
    draw = Random(SEED)  # noqa: S311
    chosen: list[int] = []
    for category in categories:
        cells: defaultdict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(rows):
            if row.category == category and row.source != NOISE_SOURCE:
                cells[row.source].append(number)
        each = -(-BACKGROUND_ROWS // len(cells))
        picked = [number for cell in sorted(cells) for number in draw.sample(cells[cell], min(each, len(cells[cell])))]
        chosen += draw.sample(picked, min(BACKGROUND_ROWS, len(picked)))
    vectors = matrix.dense[sorted(chosen), : -len(SURFACE)] / np.float32(VECTOR_SCALE)
    found: NDArray[np.float16] = vectors.astype(np.float16)
    return found
