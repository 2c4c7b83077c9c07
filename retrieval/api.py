"""What the room of documents hands out: a `Passage` of a document, and a `Match` that says how well it fits a question.

Both are plain values; nothing here reads a file or a database.
"""

from dataclasses import dataclass
from typing import Final

HEADING_SEPARATOR: Final = " > "
TITLE_BONUS: Final = 0.25  # in units of coverage


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: `text` is exactly the characters `start` to `end` of its source.

    `source` is the document's relative path, `heading` the path of headings above it (`Configuration > Keys`), `score`
    how well it fits the question it was found for: higher is better, 0 where nobody asked.
    """

    text: str
    source: str
    heading: str
    start: int
    end: int
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Hit:
    """A term of the question where it stands in a passage's text; `weight` is the term's inverse document frequency."""

    at: int
    term: str
    weight: float


@dataclass(frozen=True, slots=True)
class Match:
    """A passage held against a question.

    `coverage` is the share of the question's content terms, weighted by how rare they are, that stand in the passage or
    its heading: a term that no document knows counts most and is never covered. `terms` is how many are covered.
    `titled` is the share of the last heading's content words that the question names.
    """

    passage: Passage
    coverage: float
    terms: int
    titled: float
    hits: tuple[Hit, ...]

    @property
    def fit(self) -> float:
        """What matches are ordered by: coverage, and a quarter more for a section that is about the question."""
        return self.coverage + TITLE_BONUS * self.titled
