"""Documents become blocks that say where they stand; what no reader sees is there, and marked; bounds hold."""

from collections.abc import Callable

import pytest
from documents import ORDER, WORD, comments, docx, paragraph, pdf

from conclave.retrieval.blocks import Block, ParseError
from conclave.retrieval.parse import DOCX, parse, readable

PDF, HTML, CSV = "application/pdf", "text/html", "text/csv"


@pytest.fixture(autouse=True)
def _with_the_extra() -> None:
    pytest.importorskip("pypdf", reason="the extra `ingest` is not installed")
    pytest.importorskip("defusedxml", reason="the extra `ingest` is not installed")


def blocks(data: bytes, media_type: str, *, chars: int = 100_000, pages: int = 50, size: int = 10**7) -> list[Block]:
    return parse(data, media_type=media_type, most_chars=chars, most_pages=pages, most_bytes=size).blocks


def unseen(data: bytes, media_type: str) -> str:
    return "\n".join(block.text for block in blocks(data, media_type) if not block.shown)


def shown(data: bytes, media_type: str) -> list[str]:
    return [block.text for block in blocks(data, media_type) if block.shown]


def refused(data: bytes, media_type: str, **caps: int) -> str:
    with pytest.raises(ParseError) as error:
        blocks(data, media_type, **caps)
    return error.value.kind


def test_paragraphs_of_a_text_have_lines() -> None:
    found = blocks(b"one\ntwo\r\n\r\n \n\nthree\n", "text/plain")
    assert [(block.text.strip(), block.line) for block in found] == [("one\ntwo", 1), ("three", 6)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("\u00e4\u6f22".encode(), "\u00e4\u6f22"),
        ("\ufeffa".encode(), "a"),
        ("\u00e4\u6f22".encode("utf-16"), "\u00e4\u6f22"),
        ("\u00e4".encode("cp1252"), "\u00e4"),
    ],
    ids=["utf-8", "with a mark", "utf-16", "windows"],
)
def test_texts_are_read_in_their_encoding(data: bytes, text: str) -> None:
    assert shown(data, "text/markdown") == [text]


def test_rows_of_a_table_have_lines() -> None:
    found = blocks(b'name;note\n"a;b";"x\ny"\nc;d\n', CSV)
    assert [(block.text, block.line) for block in found] == [("name | note", 1), ("a;b | x\ny", 2), ("c | d", 4)]


def test_a_page_is_read_by_its_blocks() -> None:
    assert shown(b"<h1>A</h1><p>B <b>bold</b> C<p>D<br>E<ul><li>F<li>G</ul>", HTML) == [
        "A",
        "B bold C",
        "D",
        "E",
        "F",
        "G",
    ]


@pytest.mark.parametrize(
    "page",
    [
        f"<p>a<!-- {ORDER} -->",
        f"<div style='display : none'>{ORDER}</div>",
        f"<div hidden><p>x</p><p>{ORDER}</p></div>",
        f"<span style='font-size:0'>{ORDER}</span>",
        f"<span style='position:absolute;left:-9999px'>{ORDER}</span>",
        f"<img src=x alt='{ORDER}'>",
        f"<meta name=description content='{ORDER}'>",
        f"<script>// {ORDER}</script>",
        f"<head><title>{ORDER}</title></head>",
        f"<template>{ORDER}</template>",
        f"<![CDATA[{ORDER}]]>",
        f"<?php {ORDER} ?>",
    ],
)
def test_what_a_page_keeps_from_its_readers_is_found(page: str) -> None:
    assert ORDER in unseen(page.encode(), HTML)
    assert ORDER not in " ".join(shown(page.encode(), HTML))


def test_what_comes_after_hidden_text_is_shown() -> None:
    assert shown(b"<div hidden><p>x</div>seen<p>too", HTML) == ["seen", "too"]
    assert shown(b"<span style='opacity:0'>x</span>seen</b></i>", HTML) == ["seen"]


def test_a_word_document_is_read_by_its_paragraphs() -> None:
    assert shown(docx(paragraph("One") + paragraph("Two")), DOCX) == ["One", "Two"]


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (paragraph(ORDER, "<w:vanish/>"), {}),
        (paragraph(ORDER, '<w:color w:val="FFFFFF"/>'), {}),
        (f"<w:p><w:del><w:r><w:delText>{ORDER}</w:delText></w:r></w:del></w:p>", {}),
        (f'<w:p><w:r><x:docPr xmlns:x="y" descr="{ORDER}"/></w:r></w:p>', {}),
        ("", {"word/comments.xml": comments(ORDER)}),
        ("", {"docProps/core.xml": f'<c:p xmlns:c="a"><d:title xmlns:d="b">{ORDER}</d:title></c:p>'.encode()}),
    ],
    ids=["hidden", "white", "deleted", "described", "comment", "properties"],
)
def test_what_a_word_document_keeps_from_its_readers_is_found(body: str, parts: dict[str, bytes]) -> None:
    data = docx(paragraph("seen") + body, parts)
    assert ORDER in unseen(data, DOCX)
    assert shown(data, DOCX) == ["seen"]


@pytest.mark.parametrize("part", ["header1", "footer2", "footnotes", "endnotes"])
def test_headers_and_notes_are_read(part: str) -> None:
    data = docx("", {f"word/{part}.xml": f"<w:hdr {WORD}>{paragraph('note')}</w:hdr>".encode()})
    assert shown(data, DOCX) == ["note"]


def test_text_that_is_not_hidden_after_all_is_shown() -> None:
    assert shown(docx(paragraph("a", '<w:vanish w:val="0"/>')), DOCX) == ["a"]


def test_a_pdf_has_pages() -> None:
    found = [(block.text, block.page) for block in blocks(pdf(["Hello", "World"]), PDF) if block.shown]
    assert found == [("Hello", 1), ("World", 2)]


def test_notes_and_titles_of_a_pdf_are_found() -> None:
    found = unseen(pdf(["a"], title=ORDER, note="look away"), PDF)
    assert ORDER in found
    assert "look away" in found


def test_a_thousand_pages_are_refused_and_not_cut() -> None:
    assert refused(pdf(["x"] * 1_000), PDF, pages=500) == "too_many_pages"
    assert len(blocks(pdf(["x"] * 50), PDF, pages=50)) == 50


@pytest.mark.parametrize(
    ("make", "media_type"),
    [
        (lambda text: text.encode(), "text/plain"),
        (lambda text: text.encode(), CSV),
        (lambda text: f"<p>{text}".encode(), HTML),
        (lambda text: docx(paragraph(text)), DOCX),
        (lambda text: pdf([text]), PDF),
    ],
    ids=["text", "csv", "html", "docx", "pdf"],
)
def test_more_text_than_the_cap_is_refused_and_not_cut(make: Callable[[str], bytes], media_type: str) -> None:
    assert refused(make("x" * 101), media_type, chars=100) in {"too_large", "broken"}
    assert len(blocks(make("x" * 50), media_type, chars=100)) == 1


def test_a_part_that_unpacks_to_too_much_is_refused() -> None:
    assert refused(docx(paragraph("x" * 100_000)), DOCX, size=10_000) == "too_large"


def test_entities_are_refused() -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
    assert refused(docx("", {"word/footnotes.xml": bomb}), DOCX) == "broken"
    outside = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
    assert refused(docx("", {"word/footnotes.xml": outside}), DOCX) == "broken"


@pytest.mark.parametrize("media_type", [PDF, DOCX])
@pytest.mark.parametrize("data", [b"", b"%PDF-1.4 nothing", b"PK\x03\x04 nothing", bytes(range(256)) * 40], ids=ascii)
def test_broken_documents_are_refused(data: bytes, media_type: str) -> None:
    assert refused(data, media_type) == "broken"


def test_a_document_cut_short_is_broken_or_read_as_far_as_it_goes() -> None:
    whole = docx(paragraph("x" * 500))
    for end in range(0, len(whole), 37):
        assert refused(whole[:end], DOCX) == "broken"


def test_other_types_are_refused() -> None:
    assert refused(b"x", "application/zip") == "unknown_type"
    assert not readable("application/zip")
    assert readable("text/plain")
    assert readable(PDF)


def test_an_error_never_repeats_the_document() -> None:
    with pytest.raises(ParseError) as error:
        blocks(b"%PDF-1.4 secret", PDF)
    assert "secret" not in str(error.value)
