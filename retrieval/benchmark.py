"""How well a library finds what it should: the usual metrics, on a corpus in the usual three files (BEIR's layout).

`corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`), and a table of judgements, `qrels/test.tsv` or
another (query, document, grade). Each document is one passage. nDCG as in Jarvelin and Kekalainen 2002 with the grade
as gain, as trec_eval computes it; recall and MRR count a grade above 0 as relevant.
"""

import csv
import math
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from conclave.retrieval.api import OWNER, Encode, Passage, Query, Search, Trust
from conclave.retrieval.library import Entry, Library

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEEP: Final = 100
TOP: Final = 10
QRELS: Final = ("qrels/test.tsv", "qrels/dev.tsv", "qrels.tsv")
COLUMNS: Final = 3
DRAWS: Final = 1_000
INSIDE: Final = (0.025, 0.975)
TOGETHER: Final = 500  # documents, in one transaction


class CorpusError(ValueError):
    """The files are not a corpus; the message says which line is wrong."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents and queries by their id, and how relevant which document is for which query."""

    documents: Mapping[str, tuple[str, str]]  # title, text
    queries: Mapping[str, str]
    judged: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over the queries, with the interval that 95 of 100 draws of as many queries fall in."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of searching: `metrics` by name, over `queries` judged queries; milliseconds of a search."""

    metrics: dict[str, Score]
    queries: int
    p50_ms: float
    p99_ms: float


def read_corpus(folder: Path, qrels: Path | None = None) -> Corpus:
    """Raises CorpusError, FileNotFoundError."""
    documents = {
        name: (str(row.get("title") or ""), str(row.get("text") or "")) for name, row in _rows(folder / "corpus.jsonl")
    }
    queries = {name: str(row.get("text") or "") for name, row in _rows(folder / "queries.jsonl")}
    table = qrels or next((folder / one for one in QRELS if (folder / one).is_file()), folder / QRELS[0])
    judged: dict[str, dict[str, int]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
            if len(row) < COLUMNS or not row[2].strip().lstrip("-").isdigit():
                if line == 1:
                    continue  # the names of the columns
                raise CorpusError(f"{table.name}, line {line}: query, document and a whole number, with tabs between")
            judged.setdefault(row[0], {})[row[1]] = int(row[2])
    relevant = {name: grades for name, grades in judged.items() if name in queries and max(grades.values()) > 0}
    if not documents or not relevant:
        raise CorpusError("no query with a relevant document: do the three files belong together?")
    return Corpus(documents, queries, relevant)


def _rows(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    with file.open("rb") as opened:
        for line, raw in enumerate(opened, start=1):
            if not raw.strip():
                continue
            try:
                row = msgspec.json.decode(raw, type=dict[str, object])
                yield str(row["_id"]), row
            except (msgspec.MsgspecError, KeyError) as error:
                raise CorpusError(f"{file.name}, line {line}: not a JSON object with an _id") from error


def fill(library: Library, corpus: Corpus, encode: Encode) -> None:
    """Put each document into a library as one passage; its source is the document's id."""
    items = list(corpus.documents.items())
    for at in range(0, len(items), TOGETHER):
        part = items[at : at + TOGETHER]
        vectors = encode([f"{title}\n{text}" for _, (title, text) in part])
        with library.writing():
            for place, (name, (title, text)) in enumerate(part):
                library.put(_entry(name, Passage(text, name, title, 0, len(text)), vectors[place : place + 1]))


def _entry(name: str, passage: Passage, vectors: "NDArray[np.float32]") -> Entry:
    size = len(passage.text)
    return Entry("corpus", name, name, (), "", size, "benchmark", "whole", Trust.NORMAL, "", [passage], vectors)


def measure(search: Search, corpus: Corpus) -> Measured:
    """Ask every judged query."""
    values: dict[str, list[float]] = {}
    times = []
    for name, grades in corpus.judged.items():
        started = time.perf_counter()
        results = search.search(Query(corpus.queries[name], OWNER, DEEP))
        times.append(time.perf_counter() - started)
        found = [one.passage.source for one in results.found if one.passage.source != name]  # as BEIR leaves it out
        for metric, value in metrics(found, grades).items():
            values.setdefault(metric, []).append(value)
    times.sort()
    return Measured(
        {metric: _score(rows) for metric, rows in values.items()},
        len(times),
        1e3 * statistics.median(times),
        1e3 * times[int(0.99 * (len(times) - 1))],
    )


def metrics(found: Sequence[str], grades: Mapping[str, int]) -> dict[str, float]:
    """The metrics of one query: what was found, best first, against the grades of what is relevant."""
    gains = [max(0, grades.get(name, 0)) for name in found]
    ideal = sorted((max(0, grade) for grade in grades.values()), reverse=True)
    relevant = sum(grade > 0 for grade in ideal)
    first = next((rank for rank, gain in enumerate(gains[:TOP], start=1) if gain), 0)
    return {
        f"nDCG@{TOP}": _gained(gains[:TOP]) / _gained(ideal[:TOP]),
        f"recall@{TOP}": sum(gain > 0 for gain in gains[:TOP]) / relevant,
        f"recall@{DEEP}": sum(gain > 0 for gain in gains[:DEEP]) / relevant,
        f"MRR@{TOP}": 1 / first if first else 0.0,
    }


def _gained(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _score(values: Sequence[float]) -> Score:
    """The bootstrap's percentile interval; the same values give the same."""
    draw = random.Random(0)  # noqa: S311  resampling
    means = sorted(statistics.fmean(draw.choices(values, k=len(values))) for _ in range(DRAWS))
    low, high = (means[int(share * (DRAWS - 1))] for share in INSIDE)
    return Score(statistics.fmean(values), low, high)
