"""What the room of documents hands out, a `Passage` and how well it fits a question, and what it is asked with.

Plain values, and the two seams behind which another index can stand: `Search`, all of it, and `Nearest`, its vectors.
Nothing here reads a file or a database.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Encode: TypeAlias = "Callable[[Sequence[str]], NDArray[np.float32]]"  # texts -> [n, dimensions], rows of length 1 or 0

HEADING_SEPARATOR: Final = " > "
TITLE_BONUS: Final = 0.25  # in units of coverage


class Trust(IntEnum):
    """How far whoever added a document vouches for it."""

    UNTRUSTED = 0
    NORMAL = 1
    TRUSTED = 2


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: `text` is exactly the characters `start` to `end` of its source.

    `source` is the document's relative path, `heading` the path of headings above it (`Configuration > Keys`), `score`
    how well it fits the question it was found for: higher is better, 0 where nobody asked. The rest only a library of
    knowledge fills in: `id` is the same for the same text at the same place, `batch` the run that added it, `acl` who
    may read it (any of these tags; everybody if there is none), `page` counts from 1, 0 where there are none. Of PDF,
    DOCX, HTML and CSV, `start` and `end` count in the text that was read out of them.
    """

    text: str
    source: str
    heading: str
    start: int
    end: int
    score: float = 0.0
    id: str = ""
    collection: str = ""
    batch: str = ""
    acl: tuple[str, ...] = ()
    trust: Trust = Trust.NORMAL
    page: int = 0


@dataclass(frozen=True, slots=True)
class Rights:
    """What a caller may read: passages of these `collections` that have no tags, or one of these `tags`.

    None is all of them: for whoever owns the library, never for a caller.
    """

    collections: frozenset[str] | None
    tags: frozenset[str] | None

    def allows(self, collection: str, acl: Collection[str]) -> bool:
        if self.collections is not None and collection not in self.collections:
            return False
        return self.tags is None or not acl or not self.tags.isdisjoint(acl)


OWNER: Final = Rights(None, None)


@dataclass(frozen=True, slots=True)
class Query:
    """A question, and who asks it. `vector` is its encoding; None: the library encodes it."""

    text: str
    rights: Rights
    limit: int = 10
    vector: "NDArray[np.float32] | None" = None


@dataclass(frozen=True, slots=True)
class Found:
    """A passage, its cosine with the question, and its BM25: None where its words were not looked for or not there."""

    passage: Passage
    similarity: float
    words: float | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """What was found, best first, in which `version` of the library, `among` how many passages that may be read.

    `coverage` is the share of the question's content words, by rarity, that one of the best holds; None: not measured.
    """

    found: tuple[Found, ...]
    version: int
    among: int
    coverage: float | None = None


class Search(Protocol):
    """A library that can be searched. Nothing outside the rights is ranked. It blocks: ask in a thread."""

    def search(self, query: Query) -> Results: ...


@dataclass(frozen=True, slots=True)
class Near:
    """A passage's number in the library, and the cosine of its vector with the one that was looked for."""

    row: int
    similarity: float


class Nearest(Protocol):
    """An index of vectors. `audiences` are the only groups of passages that may be ranked (`acl.py`); None: all."""

    def nearest(self, vector: "NDArray[np.float32]", *, audiences: frozenset[int] | None, limit: int) -> list[Near]: ...


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
