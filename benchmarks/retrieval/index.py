"""How long a library of many passages takes to make, what it weighs, how fast it answers, and how much it misses.

    python -m benchmarks.retrieval.index                         100,000 passages: about two minutes on a core
    python -m benchmarks.retrieval.index --passages 1000000      a million: 13 minutes of CPU, 3 GB of disk, of memory

The texts are made: sentences of a name, words of the encoder's own vocabulary, drawn as Zipf has it from 2,000 topics
and from the common ones, and a number, 80 words in a passage; the questions are eight words from inside a passage.
Passages are dealt to ten groups of readers. Recall is measured against comparing all vectors. Searches are timed one
after the other, interleaved, on one thread.
"""

import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import numpy as np

from conclave.retrieval.api import OWNER, Passage, Query, Results, Rights, Trust
from conclave.retrieval.index import Snapshots
from conclave.retrieval.ingest import freshen
from conclave.retrieval.library import Entry, Library
from conclave.retrieval.search import Hybrid, check_encoder
from conclave.router.encoder import StaticEncoder

TOPICS = 2_000
TOPICAL = 0.5  # of the words
LETTERS = 3  # of a word, at least
TOPIC_WORDS = 200
WORDS = 80
SENTENCE = 20
NAMES = 40_000  # drawn as Zipf has it, so that most are rare
PARTS = ("bal", "dor", "ven", "mik", "tar", "os", "lun", "gre", "hal", "ist", "rov", "cam", "ely", "zun", "pir", "qua")
RAREST = 1_000_000  # numbers are below it: nearly each is in one passage alone
GROUPS = 10
IN_DOCUMENT = 25
DEEP = 10
T = TypeVar("T")


class Texts:
    """Makes passages and questions; the same seed makes the same."""

    def __init__(self, encoder: StaticEncoder, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        known = encoder.tokens.strings(range(encoder.vocabulary))
        self.words = np.array([word for word in known if word.isascii() and word.isalpha() and len(word) >= LETTERS])
        weights = 1 / (np.arange(len(self.words)) + 10.0)
        self.weights = weights / weights.sum()
        self.topical = 1 / np.arange(1.0, TOPIC_WORDS + 1)
        self.topical /= self.topical.sum()
        self.topics = self.random.integers(0, len(self.words), (TOPICS, TOPIC_WORDS))
        self.names = np.array(self._names())
        self.met = 1 / np.arange(1.0, len(self.names) + 1)
        self.met /= self.met.sum()

    def passages(self, count: int) -> list[str]:
        """Sentences of `SENTENCE` words: a name, what the topic says of it, a number."""
        draw = self.random
        topics = self.topics[draw.integers(0, TOPICS, count)]
        own = np.take_along_axis(topics, draw.choice(TOPIC_WORDS, (count, WORDS), p=self.topical), axis=1)
        common = draw.choice(len(self.words), (count, WORDS), p=self.weights)
        words = self.words[np.where(draw.random((count, WORDS)) < TOPICAL, own, common)].astype(object)
        starts = np.arange(0, WORDS, SENTENCE)
        words[:, starts] = self.names[draw.choice(len(self.names), (count, len(starts)), p=self.met)]
        words[:, starts + SENTENCE - 1] = draw.integers(1, RAREST, (count, len(starts))).astype(str).astype(object)
        return [" ".join(row) for row in words]

    def _names(self) -> list[str]:
        drawn = self.random.integers(0, len(PARTS), (NAMES, 4))
        return ["".join(PARTS[at] for at in row).capitalize() for row in drawn]


@click.command()
@click.option("--passages", default=100_000, show_default=True, type=click.IntRange(1_000))
@click.option("--queries", default=300, show_default=True, type=click.IntRange(10))
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the library here, and use it again.")
def main(passages: int, queries: int, folder: Path | None) -> None:
    """Make a library, and time it."""
    encoder = StaticEncoder.load()
    with tempfile.TemporaryDirectory(prefix="library-") as made:
        library = Library.open(folder or Path(made), make=True)
        check_encoder(library, encoder.encode, write=True)
        snapshots = Snapshots(library.folder)
        if library.size() < passages:
            timed(f"write {passages:,} passages (encode, words, vectors)", lambda: fill(library, encoder, passages))
        about = timed("build and write the snapshot", lambda: freshen(library, snapshots, encoder.encode))
        size = sum(file.stat().st_size for file in library.folder.rglob("*") if file.is_file())
        print(f"  on disk {size / 1e6:,.0f} MB; peak RSS {peak_mb():,.0f} MB")
        print(f"  cells {about.cells}, searched {about.looked_in}; recall at 10 on its probes {about.recall:.3f}")
        measure(library, snapshots, encoder, queries)
        library.close()


def fill(library: Library, encoder: StaticEncoder, passages: int) -> None:
    texts = Texts(encoder)
    for document in range(passages // IN_DOCUMENT):
        said = texts.passages(IN_DOCUMENT)
        cut = [Passage(text, "", "", at, at + 1) for at, text in enumerate(said)]
        entry = Entry(
            "bench", f"/{document}", f"{document}", (f"group-{document % GROUPS}",), "", 0, "b", "1", Trust.NORMAL, "",
            cut, encoder.encode(said),
        )  # fmt: skip
        with library.writing():
            library.put(entry)


def measure(library: Library, snapshots: Snapshots, encoder: StaticEncoder, queries: int) -> None:
    random = np.random.default_rng(1)
    rows = [row for row, _ in library.rows()]
    chosen = [rows[place] for place in random.integers(0, len(rows), queries)]
    texts = [kept.passage.text.split() for kept in library.fetch(chosen).values()]
    asked = [" ".join(words[30:38]) for words in texts]
    vectors = encoder.encode(asked)
    one = Rights(None, frozenset({"group-3"}))
    ways = {
        "meaning": Hybrid(library, encoder.encode, snapshots, "meaning"),
        "words": Hybrid(library, encoder.encode, snapshots, "words"),
        "hybrid": Hybrid(library, encoder.encode, snapshots),
    }
    snapshot = snapshots.current()
    assert snapshot is not None  # noqa: S101  it was just made
    times: dict[str, list[tuple[float, float]]] = {}
    found: dict[str, list[Results]] = {}
    for text, vector in zip(asked, vectors, strict=True):
        clock = Clock()
        snapshot.nearest(vector, audiences=None, limit=DEEP)
        times.setdefault("the index alone", []).append(clock.read())
        for who, rights in (("all", OWNER), ("a tenth", one)):
            for way, search in ways.items():
                clock = Clock()
                results = search.search(Query(text, rights, DEEP))
                times.setdefault(f"{way}, {who}", []).append(clock.read())
                found.setdefault(f"{way}, {who}", []).append(results)
    exact = library.vectors(rows, encoder.dimensions).astype(np.float32)
    held = np.array([audience for _, audience in library.rows()])
    third = next(one.id for one in library.audiences() if one.tags == ("group-3",))
    for name, mask in (("all", None), ("a tenth", held == third)):
        shares = []
        for vector, results in zip(vectors, found[f"meaning, {name}"], strict=True):
            similarities = exact @ vector
            if mask is not None:
                similarities[~mask] = -2.0
            floor = np.sort(similarities)[-DEEP] - 1e-4  # ties are as good
            shares.append(sum(one.similarity >= floor for one in results.found) / DEEP)
        print(f"  recall at 10, readers of {name}: {np.mean(shares):.3f} ({len(shares)} questions)")
    print(f"  {'milliseconds':20} {'p50':>8} {'p99':>8} {'CPU p50':>9} {'CPU p99':>9}")
    for name, taken in times.items():
        walls, cpus = 1e3 * np.array(taken).T
        quantiles = [np.quantile(one, share) for one in (walls, cpus) for share in (0.5, 0.99)]
        print(f"  {name:20} {quantiles[0]:8.2f} {quantiles[1]:8.2f} {quantiles[2]:9.2f} {quantiles[3]:9.2f}")
    print(f"  load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


class Clock:
    """What time goes by, and what of it this thread computes: on a shared machine the two are far apart."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.thread_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.thread_time() - self.cpu


def timed(what: str, work: Callable[[], T]) -> T:
    started, spent = time.perf_counter(), time.process_time()
    result = work()
    print(f"{what}: {time.perf_counter() - started:.1f} s, {time.process_time() - spent:.1f} s of CPU")
    return result


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
