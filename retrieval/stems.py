"""What the word index calls a word: its stem, without accents, as FTS5's own tokenizer makes it."""

import sqlite3
import threading
from collections.abc import Sequence
from typing import Final

REMEMBERED: Final = 20_000  # words; then it begins anew
TABLES: Final = (
    "CREATE VIRTUAL TABLE word USING fts5(text, tokenize = 'porter unicode61')",
    "CREATE VIRTUAL TABLE parts USING fts5vocab(word, row)",
)


class Stems:
    """Asks a small index in memory; each word once."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        for table in TABLES:
            self._database.execute(table)
        self._known: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def of(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """The stems in each word: several of one with an underscore in it."""
        with self._lock:
            return [self._known.get(word) or self._learn(word) for word in words]

    def close(self) -> None:
        self._database.close()

    def _learn(self, word: str) -> tuple[str, ...]:
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._database.execute("DELETE FROM word")
        self._database.execute("INSERT INTO word (text) VALUES (?)", (word,))
        stems = tuple(stem for (stem,) in self._database.execute("SELECT term FROM parts"))
        self._known[word] = stems
        return stems
