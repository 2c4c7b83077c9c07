"""What the word index calls a word: its stem, without accents, as FTS5's own tokenizer makes it."""

import sqlite3
import threading
from collections.abc import Sequence
from typing import Final

REMEMBERED: Final = 20_000  # words; then it begins anew
TABLES: Final = (
    "CREATE VIRTUAL TABLE word USING fts5(text, content = '', columnsize = 0, tokenize = 'porter unicode61')",
    "CREATE VIRTUAL TABLE parts USING fts5vocab(word, instance)",
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
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._learn([word for word in dict.fromkeys(words) if word not in self._known])
            return [self._known[word] for word in words]

    def close(self) -> None:
        self._database.close()

    def _learn(self, words: Sequence[str]) -> None:
        """New words, all together: each statement costs more than a word."""
        if not words:
            return
        stems: dict[int, list[str]] = {}
        self._database.execute("BEGIN")
        rows = ",".join("(?, ?)" for _ in words)
        args = [value for numbered in enumerate(words) for value in numbered]
        self._database.execute(f"INSERT INTO word (rowid, text) VALUES {rows}", args)  # noqa: S608  question marks only
        for place, stem in self._database.execute("SELECT doc, term FROM parts"):
            stems.setdefault(place, []).append(stem)
        self._database.execute("ROLLBACK")
        self._known |= {word: tuple(stems.get(place, ())) for place, word in enumerate(words)}
