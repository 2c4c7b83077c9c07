"""Finds passages by their words: SQLite's full-text index (FTS5) with Porter stems and BM25.

A query is what a person typed. It is never handed to FTS5 as written, but taken apart into words and put together again
as quoted terms, so no input is a syntax error and none is an operator. Words that every question has are dropped. In
scripts written without spaces, a run of letters is one term. Readers on several threads take turns.
"""

import math
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from conclave.retrieval.api import HEADING_SEPARATOR, Hit, Match, Passage
from conclave.retrieval.stopwords import STOP_WORDS

QUERY_CHARS: Final = 8_000  # a question fits; a megabyte pasted under it is not the question
QUERY_TERMS: Final = 16  # distinct ones; each costs 0.2 ms over 235 passages
CANDIDATES: Final = 24  # taken by BM25, then ordered by coverage; of 12 none was titled with the asked word alone
QUICK_WORK: Final = 1_000_000  # characters indexed times terms asked: 4 terms in 232,000 took 1.3 ms
TERM_CHARS: Final = range(2, 101)  # a single letter or digit says nothing, a longer "word" is no word
WORD: Final = re.compile(r"[^\W_]+(?:_+[^\W_]+)*")  # OPENAI_API_KEY is one term; FTS5 reads it as a phrase
ON, OFF = "\x02", "\x03"  # around a hit: char(2) and char(3) in SPOTS
UNMARKED: Final = str.maketrans({ON: " ", OFF: " "})

TABLE: Final = """CREATE VIRTUAL TABLE IF NOT EXISTS passages
    USING fts5(title, path, text, source UNINDEXED, span UNINDEXED, tokenize = 'porter unicode61')"""
ADD: Final = "INSERT INTO passages (title, path, text, source, span) VALUES (?, ?, ?, ?, ?)"
# BM25's weights are those of title, path and text: a section's own title tells most of what it is about.
BEST: Final = """SELECT rowid, -bm25(passages, 3.0, 1.5, 1.0) AS score
    FROM passages WHERE passages MATCH ? ORDER BY score DESC, rowid LIMIT ?"""
ONE: Final = "SELECT title, path, text, source, span FROM passages WHERE rowid = ?"
ROWS: Final = "SELECT rowid FROM passages WHERE passages MATCH ?"
SPOTS: Final = "SELECT highlight(passages, 2, char(2), char(3)) FROM passages WHERE passages MATCH ? AND rowid = ?"


class Store:
    """An index of passages. `search` answers with the best of them, `matches` also says how well they fit."""

    def __init__(self, database: sqlite3.Connection, *, in_memory: bool) -> None:
        self._database = database
        self._in_memory = in_memory
        self._lock = threading.Lock()
        with self._lock, self._database:
            self._database.execute(TABLE)
            self._count = int(self._database.execute("SELECT count(*) FROM passages").fetchone()[0])
        self._chars = 0  # added since

    @classmethod
    def in_memory(cls) -> Self:
        return cls(sqlite3.connect(":memory:", check_same_thread=False), in_memory=True)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The index in a file, made if it is not there. Raises sqlite3.Error if the file is something else."""
        database = sqlite3.connect(path, check_same_thread=False)
        try:
            return cls(database, in_memory=False)
        except sqlite3.Error:
            database.close()
            raise

    def __len__(self) -> int:
        return self._count

    def is_quick(self, query: str) -> bool:
        """Whether this search takes about a millisecond at most, so that it needs no thread of its own."""
        return self._in_memory and self._chars * len(terms(query)) <= QUICK_WORK

    def add(self, passages: Iterable[Passage]) -> None:
        """Index them; the two control characters that mark hits become spaces in their text."""
        rows = [
            (*_title_and_path(p.heading), p.text.translate(UNMARKED), p.source, f"{p.start}:{p.end}") for p in passages
        ]
        with self._lock, self._database:
            self._database.executemany(ADD, rows)
            self._count += len(rows)
            self._chars += sum(len(text) for _, _, text, _, _ in rows)

    def search(self, query: str, *, limit: int = 5) -> list[Passage]:
        """The best passages by BM25, best first; none if the query has no word of its own."""
        words = terms(query)
        with self._lock:
            return [passage for _, passage in self._best(words, limit)]

    def matches(self, query: str, *, limit: int = 3) -> list[Match]:
        """The passages that cover most of the query, best first."""
        words = terms(query)
        with self._lock:
            found = self._best(words, max(limit, CANDIDATES))
            if not found:
                return []
            holders = {word: self._rows(f'"{word}"') for word in words}
            titles = {word: self._rows(f'title : "{word}"') for word in words}
            weights = {word: self._weight(len(holders[word])) for word in words}
            total = sum(weights.values())
            held = []
            for row, passage in found:
                covering = [word for word in words if row in holders[word]]
                coverage = sum(weights[word] for word in covering) / total
                named = sum(row in titles[word] for word in words)
                held.append((row, Match(passage, coverage, len(covering), _share(named, passage.heading), ())))
            held.sort(key=lambda item: -item[1].fit)  # stable: then by BM25
            return [replace(match, hits=self._hits(row, weights)) for row, match in held[:limit]]

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _best(self, words: Sequence[str], limit: int) -> list[tuple[int, Passage]]:
        if not words:
            return []
        ranked = self._database.execute(BEST, (quoted(words), limit)).fetchall()
        return [(row, self._passage(row, score)) for row, score in ranked]

    def _passage(self, row: int, score: float) -> Passage:
        title, path, text, source, span = self._database.execute(ONE, (row,)).fetchone()
        start, end = map(int, span.split(":"))
        return Passage(text, source, f"{path}{HEADING_SEPARATOR}{title}" if path else title, start, end, score)

    def _rows(self, query: str) -> set[int]:
        return {row for (row,) in self._database.execute(ROWS, (query,))}

    def _weight(self, frequency: int) -> float:
        """Inverse document frequency (Robertson and Zaragoza 2009, eq. 3.3), 1 added so that it stays positive."""
        return math.log(1 + (self._count - frequency + 0.5) / (frequency + 0.5))

    def _hits(self, row: int, weights: Mapping[str, float]) -> tuple[Hit, ...]:
        """Where the terms stand in the passage's text, in its order."""
        marked = self._database.execute(SPOTS, (quoted(weights), row)).fetchone()
        before, *rest = marked[0].split(ON) if marked else [""]
        hits, at = [], len(before)
        terms_of: dict[str, str] = {}
        for part in rest:
            word, _, after = part.partition(OFF)
            if word not in terms_of:
                terms_of[word] = _term_of(word.lower(), weights)
            term = terms_of[word]
            hits.append(Hit(at, term, weights[term]))
            at += len(word) + len(after)
        return tuple(hits)


def _term_of(word: str, terms: Iterable[str]) -> str:
    """The term that a found word is a form of: stems differ in how words end, so the longest common beginning tells."""
    near = [term for term in terms if term[0] == word[0]] or list(terms)
    return near[0] if len(near) == 1 else max(near, key=lambda term: _alike(term, word))


def _alike(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _title_and_path(heading: str) -> tuple[str, str]:
    path, _, title = heading.rpartition(HEADING_SEPARATOR)
    return title, path


def _share(named: int, heading: str) -> float:
    """How many of the last heading's content words a question names, at most all."""
    content = terms(_title_and_path(heading)[0])
    return min(1.0, named / len(content)) if content else 0.0


def terms(query: str) -> list[str]:
    """The words of a question that say what it is about: lower case, each once, in order."""
    text = unicodedata.normalize("NFKC", query[:QUERY_CHARS]).lower()
    words = dict.fromkeys(WORD.findall(text))
    return [word for word in words if word not in STOP_WORDS and len(word) in TERM_CHARS][:QUERY_TERMS]


def quoted(words: Iterable[str]) -> str:
    """An FTS5 query for any of the words; they hold letters, digits and inner underscores only, so quoting is safe."""
    return " OR ".join(f'"{word}"' for word in words)
