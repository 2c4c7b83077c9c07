"""A document's bytes as passages: what the bounded process (`worker.py`) does with each file that is added.

It tells the kind of a file by its first bytes and its name, reads it (`parse.py`), and cuts it by its structure
(`chunk.py`). What a reader of the document would not see, hidden text, comments, metadata, is not kept: nobody
checked it. Nothing here opens a file.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from conclave.retrieval.api import Passage
from conclave.retrieval.blocks import Block as Read
from conclave.retrieval.blocks import ParseError, decoded
from conclave.retrieval.chunk import Block, Size, code_blocks, markdown_blocks, passages, text_blocks
from conclave.retrieval.parse import DOCX, parse

KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys((".md", ".markdown"), "text/markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "text/html"),
    **dict.fromkeys((".csv", ".tsv"), "text/csv"),
    ".pdf": "application/pdf",
    ".docx": DOCX,
    **dict.fromkeys((".py", ".pyi", ".js", ".mjs", ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala", ".go"), "code"),
    **dict.fromkeys((".rs", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".swift", ".rb", ".php", ".pl"), "code"),
    **dict.fromkeys((".lua", ".sh", ".sql", ".r", ".jl", ".ex", ".exs", ".hs", ".proto"), "code"),
}
OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
UTF32: Final = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")
UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
SAMPLE_BYTES: Final = 65_536
CONTROLS: Final = bytes(one for one in range(32) if one not in b"\t\n\r\f\x1b\x0b")
HIGH: Final = bytes(range(128, 256))
LATIN_SHARE: Final = 0.15  # of the bytes: with more above 127, a text that is not UTF-8 is no text of Western Europe
HEADING_CHARS: Final = 200
UNPRINTED: Final = {0: " "} | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # a parser may make lone surrogates


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may hold."""

    chars: int = 20_000_000
    pages: int = 5_000
    part_bytes: int = 200_000_000  # that one part of a container unpacks to
    passages: int = 50_000


@dataclass(frozen=True, slots=True)
class Cut:
    """A document's passages, and how many blocks of it no reader would see."""

    passages: list[Passage]
    unseen: int


def cut(data: bytes, *, source: str, tokens: int, overlap: int, limits: Mapping[str, int]) -> Cut:  # worker's job
    """The passages of a document. Raises ParseError."""
    most = Limits(**limits)
    kind = kind_of(data, source)
    if kind in {"code", "text/plain", "text/markdown"}:
        text, unseen = decoded(plain(data)), 0
        if len(text) > most.chars:
            raise ParseError(f"the document holds more than {most.chars} characters of text", kind="too_large")
        blocks = {"code": code_blocks, "text/markdown": markdown_blocks}.get(kind, text_blocks)(text)
        pages: list[tuple[int, int]] = []
    else:
        if kind in {"text/html", "text/csv"}:
            data = decoded(plain(data)).encode()
        parsed = parse(data, media_type=kind, most_chars=most.chars, most_pages=most.pages, most_bytes=most.part_bytes)
        shown = [block for block in parsed.blocks if block.shown]
        unseen = len(parsed.blocks) - len(shown)
        text, spans = _joined(shown, "\n" if kind == "text/csv" else "\n\n")
        pages = [(start, block.page) for block, (start, _) in zip(shown, spans, strict=True) if block.page]
        blocks = _rows(shown, spans) if kind == "text/csv" else _outline(shown, spans)
    found = passages(text, blocks, source=source, size=Size.of_tokens(text, tokens=tokens, overlap=overlap))
    if len(found) > most.passages:
        raise ParseError(f"the document makes more than {most.passages} passages", kind="too_large")
    if not found:
        raise ParseError("there is no text in it" + (" that a reader would see" if unseen else ""), kind="empty")
    return Cut(_paged(found, pages), unseen)


def kind_of(data: bytes, source: str) -> str:
    """A media type, or `code`. Raises ParseError for what is no document."""
    named = KINDS.get(PurePosixPath(source).suffix.lower(), "text/plain")
    if not data:
        raise ParseError("it is empty", kind="empty")
    if b"%PDF-" in data[:1024]:
        return "application/pdf"
    if data.startswith(OLE):
        raise ParseError("it is encrypted, or of an old Office format", kind="encrypted")
    if data.startswith(b"PK") and named == DOCX:
        return DOCX
    if named in {DOCX, "application/pdf"}:
        raise ParseError(f"it is named {PurePosixPath(source).suffix}, and is none", kind="broken")
    return named


def plain(data: bytes) -> bytes:
    """The bytes of a text, if its encoding can be told. Raises ParseError."""
    if data.startswith(UTF32):
        return data.decode("utf-32", "replace").encode()
    if data.startswith(UTF16):
        return data
    sample = data[:SAMPLE_BYTES]
    if b"\0" in data or len(sample) - len(sample.translate(None, CONTROLS)) > len(sample) // 100:
        raise ParseError("it is binary", kind="unknown_type")
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        high = len(sample) - len(sample.translate(None, HIGH))
        undefined = any(one in data for one in b"\x81\x8d\x8f\x90\x9d")
        if undefined or high > LATIN_SHARE * len(sample):
            raise ParseError("its encoding cannot be told: save it as UTF-8", kind="encoding") from None
    return data


def _joined(blocks: list[Read], gap: str) -> tuple[str, list[tuple[int, int]]]:
    """The text of the blocks, and where each stands in it."""
    texts = [block.text.translate(UNPRINTED) for block in blocks]
    spans, at = [], 0
    for text in texts:
        spans.append((at, at + len(text)))
        at += len(text) + len(gap)
    return gap.join(texts), spans


def _outline(read: list[Read], spans: list[tuple[int, int]]) -> Iterator[Block]:
    """The blocks under the path of headings above them. A heading is no block, unless nothing stands under it."""
    path: list[tuple[int, str]] = []
    bare: Block | None = None
    for block, (start, end) in zip(read, spans, strict=True):
        if block.level:
            if bare is not None:
                yield bare
            title = " ".join(block.text.split())[:HEADING_CHARS]
            above = [one for one in path if one[0] < block.level]
            bare = Block(start, end, tuple(name for _, name in above))
            path = [*above, (block.level, title)]
            continue
        bare = None
        yield Block(start, end, tuple(name for _, name in path), prose=True)
    if bare is not None:
        yield bare


def _rows(read: list[Read], spans: list[tuple[int, int]]) -> Iterator[Block]:
    """The rows of a table, under the names of its columns."""
    columns = (" ".join(read[0].text.split())[:HEADING_CHARS],) if read else ()
    for start, end in spans:
        yield Block(start, end, columns)


def _paged(found: list[Passage], pages: list[tuple[int, int]]) -> list[Passage]:
    """The passages with the page that each begins on."""
    if not pages:
        return found
    starts = [start for start, _ in pages]
    return [replace(one, page=pages[max(0, bisect_right(starts, one.start) - 1)][1]) for one in found]
