"""What a file is, by its bytes; what its sender says of it is only believed among texts."""

import pytest
from documents import docx, gif, paragraph, pdf, png

from conclave.safety.boundary.sniff import Kind, agrees, plain_type, sniff


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(), Kind.PNG),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", Kind.JPEG),
        (gif(1), Kind.GIF),
        (b"RIFF\x24\0\0\0WEBPVP8 ", Kind.WEBP),
        (b"RIFF\x24\0\0\0WAVEfmt ", Kind.WAV),
        (b"RIFF\x24\0\0\0AVI LIST", None),
        (b"ID3\x04\0\0\0\0\0\0", Kind.MP3),
        (pdf(["a"]), Kind.PDF),
        (docx(paragraph("a")), Kind.DOCX),
        (b"PK\x03\x04 some other archive", Kind.ZIP),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", Kind.SVG),
        (b"  <!DOCTYPE html><p>a", Kind.HTML),
        (b"<!-- a --><html>", Kind.HTML),
        (b"plain words", Kind.TEXT),
        ("naïve, 漢字".encode(), Kind.TEXT),
        ("wide".encode("utf-16"), Kind.TEXT),
        (b"\x00\x01\x02", None),
        (b"\xfe\xed\xfa\xce", None),
        (b"MZ\x90\x00", None),
        (b"junk %PDF-1.4", Kind.TEXT),
    ],
    ids=str,
)
def test_the_bytes_say_what_it_is(data: bytes, kind: Kind | None) -> None:
    assert sniff(data) is kind


@pytest.mark.parametrize(
    ("declared", "name", "kind"),
    [
        ("text/csv", "", Kind.CSV),
        ("Text/CSV; charset=utf-8", "", Kind.CSV),
        ("", "table.csv", Kind.CSV),
        ("", "README.MD", Kind.MARKDOWN),
        ("", "page.htm", Kind.HTML),
        ("image/png", "", Kind.TEXT),
        ("application/pdf", "a.pdf", Kind.TEXT),
    ],
)
def test_of_what_is_said_only_the_kind_of_text_counts(declared: str, name: str, kind: Kind) -> None:
    assert sniff(b"a,b", declared=declared, name=name) is kind


def test_text_of_an_old_encoding_is_text_where_its_sender_says_so() -> None:
    text = "Größe;Straße\n".encode("cp1252")
    assert sniff(text) is None
    assert sniff(text, declared="text/csv") is Kind.CSV
    assert sniff(text, name="a.txt") is Kind.TEXT
    assert sniff(text + b"\x01", declared="text/csv") is None


@pytest.mark.parametrize(
    ("kind", "declared", "name", "true"),
    [
        (Kind.PNG, "image/png", "", True),
        (Kind.JPEG, "image/jpg", "", True),
        (Kind.PNG, "", "", True),
        (Kind.PNG, "application/octet-stream", "photo.png", True),
        (Kind.PNG, "image/jpeg", "", False),
        (Kind.PDF, "", "report.docx", False),
        (Kind.PDF, "application/pdf", "report.docx", True),
        (Kind.HTML, "text/plain", "", True),
        (Kind.HTML, "application/pdf", "", False),
        (Kind.TEXT, "application/json", "", True),
        (Kind.DOCX, "application/zip", "", True),
        (Kind.ZIP, str(Kind.DOCX), "", False),
    ],
    ids=str,
)
def test_a_lie_is_told_from_silence(kind: Kind, declared: str, name: str, true: bool) -> None:
    assert agrees(kind, declared, name) is true


def test_a_type_is_read_without_its_parameters() -> None:
    assert plain_type(" IMAGE/JPG ; q=1") == "image/jpeg"
