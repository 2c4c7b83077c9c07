"""The text inside a document, in blocks that say where they stand: text, Markdown, HTML, CSV, PDF and DOCX.

A block is `shown` if a reader would see it; comments, deleted and hidden text, metadata and descriptions are blocks,
too, that are not. What a document links to is never fetched, and a document that is too large is refused, not cut: what
is not read could say anything. Made for a bounded process (`worker.py`); PDF and DOCX need the extra `ingest`.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Final

from conclave.retrieval.blocks import BROKEN, Block, Caps, Parsed, ParseError, decoded
from conclave.retrieval.docx import docx
from conclave.retrieval.markup import html

DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
NEEDS: Final[Mapping[str, str]] = {"application/pdf": "pypdf", DOCX: "defusedxml"}
BLANK_LINE: Final = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
FIELDS: Final = ("/Contents", "/V", "/TU", "/RC", "/Alt")  # of an annotation or a form's field
SAMPLE_CHARS: Final = 4_096  # from which the separator of a table is guessed


def readable(media_type: str) -> bool:
    """Whether documents of this type can be read here, with what is installed."""
    return media_type in READERS and (media_type not in NEEDS or find_spec(NEEDS[media_type]) is not None)


def parse(data: bytes, *, media_type: str, most_chars: int, most_pages: int, most_bytes: int) -> Parsed:
    """The blocks of a document; raises ParseError."""
    if media_type not in READERS:
        raise ParseError("documents of this type cannot be read", kind="unknown_type")
    if not readable(media_type):
        raise ParseError("the extra `ingest` is not installed (make install EXTRAS=ingest)", kind="not_installed")
    blocks: list[Block] = []
    chars = pages = 0
    for block in READERS[media_type](data, Caps(most_chars, most_pages, most_bytes)):
        pages = max(pages, block.page)
        if block.text.strip():
            chars += len(block.text)
            if chars > most_chars:
                raise ParseError(f"the document holds more than {most_chars} characters of text", kind="too_large")
            blocks.append(block)
    return Parsed(blocks, pages)


def _paragraphs(data: bytes, _: Caps) -> Iterator[Block]:
    text = decoded(data)
    at, line = 0, 1
    for gap in BLANK_LINE.finditer(text):
        yield Block(text[at : gap.start()], line=line)
        line += text.count("\n", at, gap.end())
        at = gap.end()
    yield Block(text[at:], line=line)


def _rows(data: bytes, caps: Caps) -> Iterator[Block]:
    text = decoded(data)
    try:
        dialect: type[csv.Dialect] = csv.Sniffer().sniff(text[:SAMPLE_CHARS], ",;\t|")
    except csv.Error:
        dialect = csv.excel
    csv.field_size_limit(max(1, caps.chars))
    rows = csv.reader(io.StringIO(text, newline=""), dialect)
    line = 1
    try:
        for row in rows:
            yield Block(" | ".join(row), line=line)
            line = rows.line_num + 1
    except csv.Error as error:
        raise ParseError("the table is broken, or a cell too long", kind="broken") from error


def _pdf(data: bytes, caps: Caps) -> Iterator[Block]:
    from pypdf import PdfReader  # noqa: PLC0415  the extra `ingest`
    from pypdf.errors import DependencyError, PyPdfError  # noqa: PLC0415

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ParseError("the document is encrypted", kind="encrypted")
        if len(reader.pages) > caps.pages:
            raise ParseError(f"a document of more than {caps.pages} pages", kind="too_many_pages")
        for value in (reader.metadata or {}).values():
            yield Block(str(value), shown=False)
        for number, page in enumerate(reader.pages, 1):
            yield Block(page.extract_text(), page=number)
            for note in page.get("/Annots") or ():
                found = note.get_object()
                for field in FIELDS:
                    if isinstance(said := found.get(field), str):
                        yield Block(str(said), page=number, shown=False)  # pypdf's own kind of str
        for name in reader.attachments:
            yield Block(str(name), shown=False)
    except ParseError:
        raise
    except DependencyError as error:
        raise ParseError("the document is encrypted in a way that cannot be read here", kind="encrypted") from error
    except (PyPdfError, *BROKEN) as error:
        raise ParseError("the document is broken", kind="broken") from error


READERS: Final[Mapping[str, Callable[[bytes, Caps], Iterator[Block]]]] = {
    "text/plain": _paragraphs,
    "text/markdown": _paragraphs,
    "text/csv": _rows,
    "text/html": html,
    "application/pdf": _pdf,
    DOCX: docx,
}
