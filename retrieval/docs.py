"""The documents that Conclave answers from: its own, indexed when it is packaged, and folders that a policy names.

    python -m conclave.retrieval.docs build     read README.md and docs/, write artifacts/docs.json (a second)
    python -m conclave.retrieval.docs check     exit 1 if that file is not what `build` would write now

The file holds the passages, the SHA-256 of each source, and one over all: `load_docs` refuses a file that was changed.
Nothing here decides what an answer is.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import structlog

from conclave.retrieval.api import Passage
from conclave.retrieval.store import Store

ARTIFACT: Final = Path(__file__).with_name("artifacts") / "docs.json"
INSIDE: Final = frozenset(  # for those who build it: no answer to a user's question
    {"dependencies.md", "kernels.md", "router-evidence.md"}
)
REPOSITORY: Final = Path(__file__).resolve().parents[1]  # where `build` and `check` look; a wheel has no docs/
FILE_BYTES: Final = 2_000_000  # a book; a longer file is data, not a document
READABLE: Final = frozenset({".md", ".txt", ".rst"})

log = structlog.get_logger()


class DamagedIndexError(ValueError):
    """The shipped index is not what was packaged."""


class LeftOutError(Exception):
    """A file that is not read; the message is the reason in the log."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """What came of a folder: files read, passages added, files left out (each with a log line)."""

    files: int
    passages: int
    skipped: int


def load_docs(path: Path = ARTIFACT) -> Store:
    """The shipped documents, in memory. Raises DamagedIndexError if the hash is wrong, OSError without a file."""
    try:
        artifact = msgspec.json.decode(path.read_bytes())
        sources, passages = artifact["sources"], msgspec.convert(artifact["passages"], list[Passage])
        intact = artifact["sha256"] == _digest(sources, passages)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise DamagedIndexError(f"{path.name} is not an index of documents: {error}") from error
    if not intact:
        raise DamagedIndexError(
            f"{path.name} was changed after it was built: run python -m conclave.retrieval.docs build"
        )
    store = Store.in_memory()
    store.add(passages)
    return store


def index_folder(store: Store, path: Path) -> Indexed:
    """Add the Markdown and text files under a folder; what is left out is logged with its reason.

    A document's source is the folder's name and the path in it. Raises NotADirectoryError.
    """
    from conclave.retrieval.chunk import chunk  # noqa: PLC0415  the Markdown reader costs 80 ms, the shipped index needs none

    if not path.is_dir():
        raise NotADirectoryError(f"{path} is not a folder of documents")
    root = path.resolve()
    files = passages = skipped = 0
    for file in _files(root):
        source = f"{root.name}/{file.relative_to(root).as_posix()}"
        try:
            found = chunk(_read(file, root), source=source)
        except LeftOutError as reason:
            skipped += 1
            log.warning("document.skipped", source=ascii(source), reason=str(reason))
            continue
        store.add(found)
        files, passages = files + 1, passages + len(found)
    log.info("documents.indexed", folder=root.name, files=files, passages=passages, skipped=skipped)
    return Indexed(files, passages, skipped)


def _files(root: Path) -> Iterator[Path]:
    """Every file under a folder in a fixed order; hidden folders and links to folders are not entered."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names))


def _read(file: Path, root: Path) -> str:
    target = Path(os.path.realpath(file))
    obstacles = (
        (file.suffix.lower() not in READABLE, f"not one of {', '.join(sorted(READABLE))}"),
        (not str(file.relative_to(root)).isprintable(), "its name does not print"),
        (not target.is_relative_to(root), "a link out of the folder"),
        (not target.is_file(), "not a file"),
    )
    for stands, reason in obstacles:
        if stands:
            raise LeftOutError(reason)
    try:
        with target.open("rb") as opened:
            data = opened.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise LeftOutError(f"longer than {FILE_BYTES} bytes")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LeftOutError("not UTF-8") from error
    except OSError as error:
        raise LeftOutError(error.strerror or type(error).__name__) from error


def build(root: Path) -> bytes:
    """The artifact for the documents under `root`, byte for byte the same for the same documents."""
    from conclave.retrieval.chunk import chunk  # noqa: PLC0415  as in index_folder

    sources: dict[str, str] = {}
    passages: list[Passage] = []
    for file in (root / "README.md", *sorted((root / "docs").rglob("*.md"))):  # the README first: it wins ties
        if file.name in INSIDE:
            continue
        data, source = file.read_bytes(), file.relative_to(root).as_posix()
        sources[source] = hashlib.sha256(data).hexdigest()
        passages += chunk(data.decode("utf-8-sig"), source=source)
    artifact = {"sha256": _digest(sources, passages), "sources": sources, "passages": _plain(passages)}
    return msgspec.json.format(msgspec.json.encode(artifact), indent=1) + b"\n"


def _digest(sources: Any, passages: list[Passage]) -> str:
    return hashlib.sha256(msgspec.json.encode([sources, _plain(passages)], order="sorted")).hexdigest()


def _plain(passages: list[Passage]) -> list[dict[str, Any]]:
    """As they are written down: without the score, which belongs to a question."""
    return [
        {"source": p.source, "heading": p.heading, "start": p.start, "end": p.end, "text": p.text} for p in passages
    ]


@click.group()
def main() -> None:
    """The index of Conclave's own documents."""


@main.command("build")
def write_index() -> None:
    """Write the index of README.md and docs/ into the package."""
    ARTIFACT.write_bytes(build(REPOSITORY))
    click.echo(f"{ARTIFACT.name}: {len(load_docs())} passages")


@main.command("check")
def check_index() -> None:
    """Say whether the index is what the documents give now."""
    if not ARTIFACT.exists() or ARTIFACT.read_bytes() != build(REPOSITORY):
        raise click.ClickException("docs.json is out of date: run python -m conclave.retrieval.docs build")
    click.echo("docs.json is up to date")


if __name__ == "__main__":
    main()
