"""The texts of a Word document (DOCX), in blocks: headers and notes too, and what is in it without being shown.

Reads the XML itself, without entities; the package is opened part by part, each bounded. Never runs a field or a macro.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from conclave.retrieval.blocks import BROKEN, Block, Caps, ParseError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

WORD: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
STORIES: Final = re.compile(r"word/(?:document|header\d*|footer\d*|footnotes|endnotes|glossary/document)\.xml")
ASIDE: Final = re.compile(r"word/comments\w*\.xml|docProps/(?:core|custom|app)\.xml")
HEADING: Final = re.compile(r"(?:Heading|heading )([1-9])")  # a paragraph's style
DESCRIBED: Final = ("descr", "title", "name")  # attributes of a drawing that hold text
UNSEEN_RUN: Final = frozenset({WORD + "vanish", WORD + "webHidden"})
PAPER: Final = "FFFFFF"  # the colour of text that nobody sees


def docx(data: bytes, caps: Caps) -> Iterator[Block]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                if STORIES.fullmatch(name) or ASIDE.fullmatch(name):
                    yield from _story(_xml(archive, name, caps.bytes_), aside=bool(ASIDE.fullmatch(name)))
    except ParseError:
        raise
    except BROKEN as error:
        raise ParseError("the document is broken", kind="broken") from error


def _xml(archive: zipfile.ZipFile, name: str, most_bytes: int) -> "Element":
    from defusedxml.common import DefusedXmlException  # noqa: PLC0415  the extra `ingest`
    from defusedxml.ElementTree import fromstring  # noqa: PLC0415

    with archive.open(name) as file:
        xml = file.read(most_bytes + 1)
    if len(xml) > most_bytes:
        raise ParseError(f"a part of the document unpacks to more than {most_bytes} bytes", kind="too_large")
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except DefusedXmlException as error:
        raise ParseError("the document declares entities of its own", kind="broken") from error
    return root


def _story(root: "Element", *, aside: bool) -> Iterator[Block]:
    """The paragraphs of one part; in `aside` nothing is shown, and every text counts."""
    said: dict[bool, list[str]] = {True: [], False: []}
    number, shown, level = 0, True, 0
    for element in root.iter():
        tag = element.tag
        if tag == WORD + "p":
            yield from _turn(said, number, level)
            number, level = number + 1, 0
        elif tag == WORD + "pStyle":
            style = HEADING.fullmatch(element.get(WORD + "val") or "")
            level = int(style[1]) if style else 0
        elif tag == WORD + "r":
            shown = not _is_unseen(element)
        elif tag == WORD + "t" or (aside and not tag.startswith(WORD)):
            said[shown and not aside].append(element.text or "")
        elif tag in {WORD + "delText", WORD + "instrText"}:
            said[False].append(element.text or "")
        elif tag in {WORD + "tab", WORD + "br", WORD + "cr"}:
            said[shown].append(" ")
        elif tag.endswith("}docPr"):
            said[False] += [f"{element.get(name)} " for name in DESCRIBED if element.get(name)]
    yield from _turn(said, number, level)


def _turn(said: dict[bool, list[str]], number: int, level: int) -> Iterator[Block]:
    for shown, texts in said.items():
        yield Block("".join(texts), line=number, shown=shown, level=level if shown else 0)
        texts.clear()


def _is_unseen(run: "Element") -> bool:
    """Whether a run's own format hides it."""
    about = run.find(WORD + "rPr")
    if about is None:
        return False
    off = {"0", "false", "off"}
    return any(
        (one.tag in UNSEEN_RUN and one.get(WORD + "val") not in off)
        or (one.tag == WORD + "color" and one.get(WORD + "val") == PAPER)
        for one in about
    )
