"""What is asked of a library's index of words, SQLite's FTS5: the best passages by BM25, and all words for a snapshot.

Ranking here is for passages that no snapshot holds yet, or holds as they were: FTS5 computes BM25 for each passage with
one of the words, so only the rarest words of a question are looked up. `postings.py` ranks the rest.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from conclave.retrieval.stems import Stems
from conclave.retrieval.store import quoted, terms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COMMON: Final = 50  # passages: a term in as many is counted when a snapshot is made
POSTINGS: Final = 1_000  # that one search ranks, of the rarest terms first: FTS5 takes up to 3 us for each
LEAST_WORDS: Final = 2
BEST: Final = """SELECT words.rowid, -bm25(words, 3.0, 1.5, 1.0) AS score FROM words {join}
    WHERE words MATCH ?{late} ORDER BY score DESC, words.rowid LIMIT ?"""
AMONG: Final = """CROSS JOIN passages p
    ON p.id = words.rowid AND p.audience IN (SELECT value FROM json_each(?))"""  # CROSS: the words come first
LATE: Final = " AND (words.rowid > ? OR words.rowid IN (SELECT passage FROM changed WHERE version > ?))"
SPOTS: Final = "CREATE VIRTUAL TABLE IF NOT EXISTS temp.spots USING fts5vocab(main, words, instance)"
# Each occurrence is one number, and all are one text: a row for each takes three times as long.
OCCURRENCES: Final = """SELECT group_concat(doc * 3 + CASE col WHEN 'text' THEN 2 WHEN 'path' THEN 1 ELSE 0 END)
    FROM temp.spots WHERE term >= CAST(? AS TEXT) AND term <= CAST(? AS TEXT)"""


@dataclass(frozen=True, slots=True)
class Since:
    """What a snapshot does not know: passages with higher numbers than its last, and what changed after its version."""

    last: int
    version: int


@dataclass(frozen=True, slots=True)
class Words:
    """The index of words behind `run`, which executes one statement."""

    run: Callable[..., sqlite3.Cursor]
    _stems: Stems

    def best(
        self, text: str, *, audiences: frozenset[int] | None, limit: int, since: Since | None = None
    ) -> list[tuple[int, float]]:
        """The best passages by BM25 among those that may be read: their numbers, and how good each is.

        With `since`, only those that the snapshot does not know as they are.
        """
        words = self._affordable(terms(text))
        if not words or (audiences is not None and not audiences):
            return []
        statement = BEST.format(join="" if audiences is None else AMONG, late=LATE if since else "")
        who = () if audiences is None else (json.dumps(sorted(audiences)),)
        when = (since.last, since.version) if since else ()
        return self.run(statement, *who, quoted(words), *when, limit).fetchall()

    def stems(self, text: str) -> list[str]:
        """The stems of a question's content words."""
        return [stem for parts in self._stems.of(terms(text)) for stem in parts]

    def holders(self, stems: Sequence[str]) -> dict[str, int]:
        """How many passages hold each stem."""
        return {stem: self._count(stem) or self._counted_now(stem) for stem in stems}

    def count_common(self) -> None:
        """Count the passages of each common term, for `best` to know what is dear. To be called while writing."""
        self.run("DELETE FROM common")
        self.run("INSERT INTO common SELECT term, doc FROM counts WHERE doc >= ?", COMMON)

    def vocabulary(self) -> tuple[list[bytes], list[int]]:
        """Every term, in order, and how often each occurs."""
        rows = self.run("SELECT CAST(term AS BLOB), cnt FROM counts").fetchall()
        return [term for term, _ in rows], [count for _, count in rows]

    def occurrences(self, first: bytes, last: bytes) -> "NDArray[np.int64]":
        """Where the terms from one to another occur, as `postings.Occurrences` has it."""
        import numpy as np  # noqa: PLC0415  loaded when first needed

        self.run(SPOTS)
        (found,) = self.run(OCCURRENCES, first, last).fetchone()
        return np.fromstring(found or "", dtype=np.int64, sep=",")

    def _affordable(self, words: list[str]) -> list[str]:
        """The words of a question that a search can afford to look up, the rarest first; always two, if there are."""
        counted = {
            word: min((self._count(stem) for stem in stems), default=0)
            for word, stems in zip(words, self._stems.of(words), strict=True)
        }
        left, taken = POSTINGS, list[str]()
        for word in sorted(words, key=lambda one: counted[one]):
            left -= counted[word]
            if len(taken) >= LEAST_WORDS and left < 0:
                break
            taken.append(word)
        return taken

    def _count(self, stem: str) -> int:
        row = self.run("SELECT passages FROM common WHERE term = ?", stem).fetchone()
        return 0 if row is None else int(row[0])

    def _counted_now(self, stem: str) -> int:
        """Of a stem that is not common: those of its passages are few."""
        row = self.run("SELECT doc FROM counts WHERE term = ?", stem).fetchone()
        return 0 if row is None else int(row[0])
