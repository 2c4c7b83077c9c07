"""What is forgotten is gone: from search, from the index, and from the bytes of the files."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from conclave.retrieval.api import OWNER, Encode, Passage, Query, Trust
from conclave.retrieval.forget import Forgetting, Wanted, held
from conclave.retrieval.index import Snapshots
from conclave.retrieval.ingest import freshen
from conclave.retrieval.library import Entry, Library
from conclave.retrieval.receipts import RECEIPTS, broken_receipts
from conclave.retrieval.search import Hybrid
from conclave.retrieval.subjects import Subject, Suppression

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def put(library: Library, encode: Encode, path: str, *texts: str) -> None:
    passages = [Passage(text, path.strip("/"), "", 100 * at, 100 * at + len(text)) for at, text in enumerate(texts)]
    entry = Entry("a", path, path.strip("/"), (), "h", 1, "b1", "1", Trust.NORMAL, "", passages, encode(texts))
    with library.writing():
        library.put(entry)


@pytest.fixture
def forgetting(library: Library, encode: Encode) -> Forgetting:
    put(library, encode, "/people.md", "Zebulon Quartz joined in May.", "The office is in Bremen.")
    put(library, encode, "/office.md", "Keys are with zebulon  QUARTZ, first floor.", "Quartz is a mineral.")
    put(library, encode, "/日本.md", "担当は田中太郎です。", "鍵は一階にあります。")
    snapshots = Snapshots(library.folder)
    freshen(library, snapshots, encode)
    return Forgetting(library, snapshots, encode, lambda: NOW)


def forget(forgetting: Forgetting, **wanted: object) -> dict[str, object]:
    asked = Wanted(**wanted)  # type: ignore[arg-type]  # a test's own names
    return dict(forgetting.forget(asked, held(forgetting.library, asked)))


def everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_a_forgotten_subject_is_nowhere(forgetting: Forgetting, encode: Encode) -> None:
    library = forgetting.library
    assert b"Zebulon" in everything(library.folder)
    reader = Snapshots(library.folder)
    reader.current()
    receipt = forget(forgetting, subject=Subject.of("Zebulon Quartz"))
    assert (receipt["documents"], receipt["passages"]) == (0, 2)
    assert receipt["left"] == {"metadata": 0, "words": 0, "vectors": 0, "naming_the_subject": 0}
    for way in ("hybrid", "meaning", "words"):
        found = Hybrid(library, encode, reader, way).search(Query("Zebulon Quartz", OWNER, 10))  # type: ignore[arg-type]  # a literal
        assert not any("zebulon" in one.passage.text.lower() for one in found.found)
    current = reader.current()
    assert current is not None
    assert current.words is not None
    spans = current.words.spans(library.words.stems("Zebulon Quartz mineral"))
    assert [spans[stem].passages for stem in library.words.stems("Zebulon Quartz mineral")] == [0, 1, 1]
    left = everything(library.folder)
    assert b"ebulon" not in left
    assert b"joined in May" not in left
    assert b"Quartz is a mineral" in left
    assert "ebulon" not in json.dumps(receipt)


def test_a_forgotten_subject_is_not_taken_in_again(forgetting: Forgetting) -> None:
    forget(forgetting, subject=Subject.of("Zebulon Quartz"))
    suppression = Suppression.of(forgetting.library)
    assert suppression.holds("Yesterday ZEBULON, Quartz called.")
    assert not suppression.holds("Quartz Zebulon; zebulon and quartz")
    assert not suppression.holds("Zebulons Quartz")


def test_a_subject_in_a_script_without_spaces_is_found(forgetting: Forgetting) -> None:
    receipt = forget(forgetting, subject=Subject.of("田中太郎"))
    assert receipt["passages"] == 1
    assert Suppression.of(forgetting.library).holds("昨日田中太郎が来た")
    assert "田中太郎".encode() not in everything(forgetting.library.folder)


@pytest.mark.parametrize(
    ("wanted", "documents", "passages"),
    [
        ({"places": ("people.md",)}, 1, 2),
        ({"places": ("/office.md", "people.md")}, 2, 4),
        ({"batch": "b1"}, 3, 6),
        ({"collection": "a"}, 3, 6),
        ({"collection": "b"}, 0, 0),
        ({"ids": ("no such id",)}, 0, 0),
    ],
    ids=str,
)
def test_what_is_named_is_forgotten(
    forgetting: Forgetting, wanted: dict[str, object], documents: int, passages: int
) -> None:
    receipt = forget(forgetting, **wanted)
    assert (receipt["documents"], receipt["passages"]) == (documents, passages)
    assert forgetting.library.size() == 6 - passages
    assert forgetting.library.damage() == []


def test_one_passage_is_forgotten_by_its_id(forgetting: Forgetting) -> None:
    library = forgetting.library
    (kept,) = library.fetch([1]).values()
    assert forget(forgetting, ids=(kept.passage.id,))["ids"] == [kept.passage.id]
    assert library.named(kept.passage.id) is None


def test_a_forgetting_that_was_cut_off_is_finished_by_the_next_command(forgetting: Forgetting, encode: Encode) -> None:
    """Killed after the deletion: the file still holds the text, until `settle`."""
    library = forgetting.library
    asked = Wanted(subject=Subject.of("Zebulon Quartz"))
    with library.writing():
        library.drop_passages(held(library, asked).passages)
        library.note("purging", b"1")
    assert forgetting.settle()
    assert b"ebulon" not in everything(library.folder)
    current = Snapshots(library.folder).current()
    assert current is not None
    assert np.array_equal(current.rows, [row for row, _ in library.rows()])


def test_a_receipt_that_was_changed_is_found(forgetting: Forgetting) -> None:
    forget(forgetting, places=("people.md",))
    forget(forgetting, places=("office.md",))
    folder = forgetting.library.folder
    assert broken_receipts(folder) == []
    lines = (folder / RECEIPTS).read_text().splitlines()
    (folder / RECEIPTS).write_text("\n".join([lines[0].replace('"passages": 2', '"passages": 1'), lines[1]]) + "\n")
    assert broken_receipts(folder) == ["receipt 1 was changed, or the one before it"]
    (folder / RECEIPTS).write_text(lines[1] + "\nno json\n")
    assert len(broken_receipts(folder)) == 2


@pytest.mark.parametrize("text", ["", "a", "  ", "!?", "é", "x " * 21])
def test_a_subject_that_would_empty_the_library_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a subject has at"):
        Subject.of(text)
