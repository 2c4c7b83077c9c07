"""Conclave's own documents as an index, and folders of others."""

import os
from pathlib import Path

import msgspec
import pytest
import structlog
from click.testing import CliRunner

from conclave.retrieval.docs import (
    ARTIFACT,
    FILE_BYTES,
    REPOSITORY,
    DamagedIndexError,
    build,
    index_folder,
    load_docs,
    main,
)
from conclave.retrieval.store import Store


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small one, with a README and two documents."""
    (tmp_path / "docs" / "decisions").mkdir(parents=True)
    (tmp_path / "README.md").write_text("# Project\n\nThe door.\n")
    (tmp_path / "docs" / "keys.md").write_text("# Keys\n\nA key is shown once. Schlüssel.\n", encoding="utf-8")
    (tmp_path / "docs" / "decisions" / "0001-root.md").write_text("# One root\n\nBecause of names.\n")
    return tmp_path


def test_the_shipped_docs_index_is_up_to_date() -> None:
    """Run `python -m conclave.retrieval.docs build` after a change of the README or of docs/."""
    assert ARTIFACT.read_bytes() == build(REPOSITORY)


def test_check_agrees_with_the_shipped_index() -> None:
    assert CliRunner().invoke(main, ["check"]).exit_code == 0


def test_the_shipped_docs_index_loads_and_answers() -> None:
    store = load_docs()
    assert store.search("conclave")
    store.close()


def test_what_is_built_is_what_is_loaded(repository: Path) -> None:
    (repository / "docs.json").write_bytes(build(repository))
    store = load_docs(repository / "docs.json")
    assert len(store) == 3
    assert [p.source for p in store.search("shown key")] == ["docs/keys.md"]
    assert [p.source for p in store.search("names")] == ["docs/decisions/0001-root.md"]
    store.close()


def test_a_build_depends_on_the_documents_only(repository: Path) -> None:
    before = build(repository)
    assert build(repository) == before
    (repository / "docs" / "keys.md").write_text("# Keys\n\nA key is shown twice.\n")
    assert build(repository) != before


@pytest.mark.parametrize("part", ["text", "heading", "source", "start", "sha256", "sources"])
def test_a_changed_index_is_refused(repository: Path, part: str) -> None:
    artifact = msgspec.json.decode(build(repository))
    if part == "sha256":
        artifact[part] = "0" * 64
    elif part == "sources":
        artifact[part]["README.md"] = "0" * 64
    else:
        artifact["passages"][0][part] = 7 if part == "start" else "changed"
    (repository / "docs.json").write_bytes(msgspec.json.encode(artifact))
    with pytest.raises(DamagedIndexError, match="changed after it was built"):
        load_docs(repository / "docs.json")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff\xfe", b'{"sha256":1,"sources":{},"passages":[{}]}'], ids=repr
)
def test_a_file_that_is_no_index_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "docs.json").write_bytes(data)
    with pytest.raises(DamagedIndexError, match="not an index"):
        load_docs(tmp_path / "docs.json")


def skipped(folder: Path, store: Store) -> dict[str, str]:
    with structlog.testing.capture_logs() as logs:
        index_folder(store, folder)
    return {entry["source"].strip("'"): entry["reason"] for entry in logs if entry["event"] == "document.skipped"}


def test_a_folder_is_indexed_with_its_subfolders(tmp_path: Path) -> None:
    folder = tmp_path / "handbook"
    (folder / "travel").mkdir(parents=True)
    (folder / "leave.md").write_text("# Leave\n\nThirty days of vacation.\n")
    (folder / "travel" / "trains.txt").write_text("Trains before planes.\n")
    (folder / "notes.rst").write_text("Notes\n=====\n\nExpenses within a month.\n")
    store = Store.in_memory()
    done = index_folder(store, folder)
    assert (done.files, done.passages, done.skipped) == (3, len(store), 0)
    assert store.search("vacation")[0].source == "handbook/leave.md"
    assert store.search("planes")[0].source == "handbook/travel/trains.txt"
    assert store.search("expenses")[0].source == "handbook/notes.rst"
    store.close()


def test_what_is_left_out_of_a_folder_is_logged_with_its_reason(tmp_path: Path) -> None:
    folder, outside = tmp_path / "handbook", tmp_path / "secret.md"
    (folder / ".git").mkdir(parents=True)
    outside.write_text("The secret word is mango.\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "more.md").write_text("The other word is papaya.\n")
    (folder / ".git" / "hidden.md").write_text("The hidden word is kiwi.\n")
    (folder / "image.png").write_bytes(b"\x89PNG")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "long.md").write_bytes(b"x" * (FILE_BYTES + 1))
    (folder / "link.md").symlink_to(outside)
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "up.md").symlink_to(Path("..") / "secret.md")
    os.mkfifo(folder / "pipe.md")
    (folder / "new\nline.md").write_text("The strange word is lime.\n")
    (folder / "good.md").write_text("The good word is apple.\n")
    store = Store.in_memory()
    reasons = skipped(folder, store)
    assert reasons == {
        "handbook/image.png": "not one of .md, .rst, .txt",
        "handbook/latin.txt": "not UTF-8",
        "handbook/link.md": "a link out of the folder",
        "handbook/long.md": "longer than 2000000 bytes",
        "handbook/loop.md": "not a file",
        "handbook/new\\nline.md": "its name does not print",
        "handbook/pipe.md": "not a file",
        "handbook/up.md": "a link out of the folder",
    }
    assert [p.text for p in store.search("mango papaya kiwi lime apple")] == ["The good word is apple."]
    store.close()


def test_a_link_inside_the_folder_is_read(tmp_path: Path) -> None:
    """As a mounted Kubernetes ConfigMap lays its files out."""
    folder = tmp_path / "handbook"
    (folder / "..data").mkdir(parents=True)
    (folder / "..data" / "leave.md").write_text("Thirty days of vacation.\n")
    (folder / "leave.md").symlink_to(Path("..data") / "leave.md")
    store = Store.in_memory()
    assert index_folder(store, folder).files == 1
    assert store.search("vacation")[0].source == "handbook/leave.md"
    store.close()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    store = Store.in_memory()
    with pytest.raises(NotADirectoryError, match="not a folder of documents"):
        index_folder(store, tmp_path / "nowhere")
    store.close()
