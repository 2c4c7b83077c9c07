"""Libraries of documents for tests: written at once, without the command, each document one passage."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conclave.retrieval.api import Encode, Passage, Trust
from conclave.retrieval.index import Snapshots
from conclave.retrieval.ingest import freshen
from conclave.retrieval.library import Entry, Library
from conclave.retrieval.search import check_encoder


@dataclass(frozen=True)
class Leaf:
    """A document of one passage, and who may read it."""

    text: str
    source: str = ""
    heading: str = ""
    tags: tuple[str, ...] = ()
    collection: str = "default"
    trust: Trust = Trust.NORMAL
    batch: str = ""


def shelve(folder: Path, encode: Encode, leaves: Sequence[Leaf]) -> None:
    """Add these documents to the library in `folder`, which is made if there is none, with its snapshot."""
    library = Library.open(folder, make=True)
    check_encoder(library, encode, write=True)
    first = len(library.documents())
    vectors = encode([f"{leaf.heading}\n{leaf.text}" for leaf in leaves])
    with library.writing():
        for number, leaf in enumerate(leaves):
            source = leaf.source or f"doc-{first + number}.md"
            passage = Passage(leaf.text, source, leaf.heading, 0, len(leaf.text))
            entry = Entry(
                leaf.collection, source, source, tuple(sorted(leaf.tags)), f"h{first + number}", len(leaf.text),
                leaf.batch or f"b{first + number}", "1", leaf.trust, "", [passage], vectors[number : number + 1],
            )  # fmt: skip
            library.put(entry)
    freshen(library, Snapshots(library.folder), encode)
    library.close()
