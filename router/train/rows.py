"""Training rows: where they come from and how much each counts.

A row's weight balances categories, and inside a category its sources, so that a large benchmark does not teach its own
shape.
"""

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

TRAIN_FILE: Final = "category_train.jsonl.gz"
DEV_FILE: Final = "category_dev.jsonl.gz"
SOURCE_POWER: Final = 0.5  # a source's share of its category grows with the root of its rows


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text and the source it came from."""

    text: str
    category: str
    source: str


class _Line(msgspec.Struct):
    text: str
    category: str
    source: str


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of a gzipped JSON Lines file; raises msgspec.ValidationError for one of another shape."""
    decode = msgspec.json.Decoder(_Line).decode
    with gzip.open(file, "rb") as lines:
        for line in lines:
            row = decode(line)
            yield Row(row.text, row.category, row.source)


def row_weights(rows: Sequence[Row], factors: Mapping[str, float] | None = None) -> list[float]:
    """Weights with mean 1: equal categories, sources inside a category by the root of their size times their factor."""
    factors = factors or {}
    cells = Counter((row.category, row.source) for row in rows)
    share = {cell: count**SOURCE_POWER * factors.get(cell[1], 1.0) for cell, count in cells.items()}
    shares: defaultdict[str, float] = defaultdict(float)
    for (category, _), held in share.items():
        shares[category] += held
    each = len(rows) / len(shares)
    row_share = {cell: each * share[cell] / shares[cell[0]] / count for cell, count in cells.items()}
    return [row_share[row.category, row.source] for row in rows]
