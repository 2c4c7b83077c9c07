"""The six questions of the router as labelled rows, and which sources are held out together.

A source is held out whole, in all tasks at once, and what is learned from never holds the same question again: MMLU
stands in four of the files. Where all positive labels of a task come from one source (retrieval), that source is cut
into topics, which are held out instead.
"""

import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from conclave.router.encoder import StaticEncoder
from conclave.router.train.corpus import SOURCE, chat_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILES: Final = {
    "category": "category_train.jsonl.gz",
    "difficulty": "think_gate.jsonl.gz",
    "quality": "outcomes_routellm_mmlu.jsonl.gz",
    "tool": "tool_gate.jsonl.gz",
    "retrieval": "retrieval_gate.jsonl.gz",
    "risk": "injection_train.jsonl.gz",
}
TASKS: Final = tuple(FILES)
ORIGINS: Final = "outcomes_mmlu_pro.jsonl.gz"  # says which benchmark a row of think_gate comes from
STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"
HARD: Final = 0.6552  # share of models that fail: the median of think_gate
TOPICS: Final = 15  # of the trivia questions
OWN_PROMPTS: Final = 200  # a category, of our own chat-shaped text: always learned from, never judged on
CELL_ROWS: Final = {"category": 100, "difficulty": 60, "quality": 60, "tool": 300, "retrieval": 120, "risk": 200}
FOLDS: Final = 3  # all yes of the tool task come from three sources: one for each fold

_OPTIONS: Final = re.compile(r"\n\(?A[.)] ")
_WORDS: Final = re.compile(r"[^\w]+")
STEM_CHARS: Final = 160  # of a question without its options: what makes two rows the same


@dataclass(frozen=True, slots=True)
class Labelled:
    """One text with one task's answer (a category's name, or `no` and `yes`, or a gain), and where it came from."""

    text: str
    task: str
    label: str
    source: str


def labelled_rows(data: Path, encoder: StaticEncoder, *, seed: int) -> list[Labelled]:
    """All tasks' rows, at most `CELL_ROWS` of one source and label; raises FileNotFoundError."""
    origins = {row["id"]: row["src"] for row in _rows(data / ORIGINS)}
    readers: dict[str, Callable[[dict[str, Any]], Labelled]] = {
        "category": lambda row: Labelled(row["text"], "category", row["category"], row["source"]),
        "difficulty": lambda row: Labelled(
            row["prompt"], "difficulty", _answer(row["difficulty"] > HARD), _subject(origins[row["id"]])
        ),
        "quality": lambda row: Labelled(
            row["prompt"], "quality", _gain(row["scores"]), _subject(f"ori_mmlu-{row['subset']}")
        ),
        "tool": lambda row: Labelled(row["query"], "tool", _answer(row["need_tool"]), row["source"]),
        "retrieval": lambda row: Labelled(row["question"], "retrieval", _answer(row["need_retrieval"]), row["source"]),
        "risk": lambda row: Labelled(row["text"], "risk", _answer(row["label"]), row["source"]),
    }
    found: list[Labelled] = []
    for task, file in FILES.items():
        rows = [readers[task](row) for row in _rows(data / file)]
        found += _sample(_by_topic(rows, encoder) if task == "retrieval" else rows, CELL_ROWS[task], seed=seed)
    own = (row for row in chat_rows(seed, OWN_PROMPTS) if row.source == SOURCE)
    return found + [Labelled(row.text, "category", row.category, row.source) for row in own]


def folds(rows: Sequence[Labelled]) -> list[frozenset[str]]:
    """Sources apart: each in one fold, every label of every task spread over the folds as evenly as can be."""
    by_source: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    totals: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.source != SOURCE:
            by_source[row.source][row.task, row.label] += 1
            totals[row.task, row.label] += 1
    shares = {
        source: {cell: count / totals[cell] for cell, count in mine.items()} for source, mine in by_source.items()
    }
    held: list[set[str]] = [set() for _ in range(FOLDS)]
    load: list[Counter[tuple[str, str]]] = [Counter() for _ in range(FOLDS)]
    for source in sorted(shares, key=lambda name: (-sum(shares[name].values()), name)):
        mine = shares[source]
        best = min(range(FOLDS), key=lambda fold: (sum(load[fold][cell] * mine[cell] for cell in mine), fold))
        held[best].add(source)
        for cell, share in mine.items():
            load[best][cell] += share  # type: ignore[assignment]  # shares, not counts
    return [frozenset(fold) for fold in held]


def split(rows: Sequence[Labelled], held_out: frozenset[str]) -> tuple["NDArray[np.int64]", "NDArray[np.int64]"]:
    """Numbers of the rows to learn from, and of those held out; none of the former asks what one of the latter asks."""
    outside = [number for number, row in enumerate(rows) if row.source in held_out]
    known = {stem(rows[number].text) for number in outside}
    inside = [n for n, row in enumerate(rows) if row.source not in held_out and stem(row.text) not in known]
    return np.array(inside), np.array(outside)


def odds(rows: Sequence[Labelled], *, source_power: float) -> "NDArray[np.float64]":
    """How often each row is drawn: tasks alike, labels of a task alike, a source by its size to that power."""
    cells = Counter((row.task, row.label, row.source) for row in rows)
    shares: defaultdict[tuple[str, str], float] = defaultdict(float)
    labels: Counter[str] = Counter()
    for (task, label, _), count in cells.items():
        labels[task] += (task, label) not in shares
        shares[task, label] += count**source_power
    each = {
        (task, label, source): count ** (source_power - 1) / shares[task, label] / labels[task]
        for (task, label, source), count in cells.items()
    }
    return np.array([each[row.task, row.label, row.source] for row in rows])


def stem(text: str) -> str:
    """A question without options, case and punctuation, cut: the same for the same question in two benchmarks."""
    return _WORDS.sub("", _OPTIONS.split(text, maxsplit=1)[0].lower())[:STEM_CHARS]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rb") as lines:
        yield from map(msgspec.json.decode, lines)


def _answer(value: object) -> str:
    return "yes" if value else "no"


def _gain(scores: Mapping[str, float]) -> str:
    gain = scores[STRONG] - scores[WEAK]
    return "more" if gain > 0 else "less" if gain < 0 else "same"


def _subject(origin: str) -> str:
    return origin.replace("ori_mmlu-", "mmlu/", 1)


def _sample(rows: Sequence[Labelled], most: int, *, seed: int) -> list[Labelled]:
    cells: defaultdict[tuple[str, str], list[Labelled]] = defaultdict(list)
    for row in rows:
        cells[row.source, row.label].append(row)
    draw = Random(seed)  # noqa: S311  a seeded draw, not a secret
    return [row for cell in sorted(cells) for row in draw.sample(cells[cell], min(most, len(cells[cell])))]


def _by_topic(rows: Sequence[Labelled], encoder: StaticEncoder) -> list[Labelled]:
    """Rows of the source that has all the positive labels become rows of its topics: clusters of their vectors."""
    only = {row.source for row in rows if row.label == "yes"}
    trivia = [row for row in rows if row.source in only]
    vectors = encoder.encode([row.text for row in trivia])
    centres = vectors[:: len(vectors) // TOPICS][:TOPICS]
    for _ in range(20):
        topics = (vectors @ centres.T).argmax(axis=1)
        centres = np.stack([vectors[topics == topic].sum(axis=0) for topic in range(len(centres))])
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
    moved = [
        Labelled(row.text, row.task, row.label, f"{row.source}/{topic}")
        for row, topic in zip(trivia, topics.tolist(), strict=True)
    ]
    return [row for row in rows if row.source not in only] + moved
