"""What a file is, by its own bytes: a small table of magic numbers, and what is left is text or unknown.

What a sender says of a file, its media type or its name, only tells kinds of text apart, which no bytes can. Never
parses, unpacks or decodes anything; linear in the first kilobytes, but for text, which is read whole.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

HEAD_BYTES: Final = 1_024
NAMED: Final[Mapping[str, str]] = {"csv": "text/csv", "md": "text/markdown", "markdown": "text/markdown"}
ALIASES: Final[Mapping[str, str]] = {  # other names under which the same types go
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "application/x-pdf": "application/pdf",
    "text/x-markdown": "text/markdown",
    "application/csv": "text/csv",
    "application/xhtml+xml": "text/html",
    "audio/mp3": "audio/mpeg",
    "audio/mpeg3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "application/x-zip-compressed": "application/zip",
}
ENDINGS: Final[Mapping[str, str]] = {  # of names, where no type is declared
    **{"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"},
    **{"pdf": "application/pdf", "zip": "application/zip", "svg": "image/svg+xml", "wav": "audio/wav"},
    **{"mp3": "audio/mpeg", "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
}
OTHER_TEXTS: Final = frozenset({"application/json", "application/yaml", "application/xml", "application/x-yaml"})
ANYTHING: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})  # says nothing of the type


class Kind(StrEnum):
    """The types that are told apart. SVG is markup that can hold scripts and links, and is no image here."""

    PNG = "image/png"
    JPEG = "image/jpeg"
    GIF = "image/gif"
    WEBP = "image/webp"
    SVG = "image/svg+xml"
    PDF = "application/pdf"
    DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    ZIP = "application/zip"
    HTML = "text/html"
    CSV = "text/csv"
    MARKDOWN = "text/markdown"
    TEXT = "text/plain"
    WAV = "audio/wav"
    MP3 = "audio/mpeg"


IMAGES: Final = frozenset({Kind.PNG, Kind.JPEG, Kind.GIF, Kind.WEBP})
TEXTS: Final = frozenset({Kind.TEXT, Kind.CSV, Kind.MARKDOWN})
DOCUMENTS: Final = TEXTS | {Kind.PDF, Kind.DOCX, Kind.HTML}
AUDIO: Final = frozenset({Kind.WAV, Kind.MP3})
MAGIC: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"\x89PNG\r\n\x1a\n", Kind.PNG),
    (b"\xff\xd8\xff", Kind.JPEG),
    (b"GIF87a", Kind.GIF),
    (b"GIF89a", Kind.GIF),
    (b"%PDF-", Kind.PDF),
    (b"PK\x03\x04", Kind.ZIP),
    (b"PK\x05\x06", Kind.ZIP),  # an empty one
    (b"ID3", Kind.MP3),
    (b"\xff\xfb", Kind.MP3),
    (b"\xff\xf3", Kind.MP3),
    (b"\xff\xf2", Kind.MP3),
)
RIFF: Final[Mapping[bytes, Kind]] = {b"WEBP": Kind.WEBP, b"WAVE": Kind.WAV}
CONTROL: Final = frozenset(range(32)) - frozenset(b"\t\n\f\r\x1b")  # bytes that no text has, whatever its encoding
MARKUP: Final = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<iframe")


def sniff(data: bytes, *, declared: str = "", name: str = "") -> Kind | None:
    """The type of a file, None where it is unknown; `declared` and `name` only say which kind of text a text is."""
    for magic, kind in MAGIC:
        if data.startswith(magic):
            return Kind.DOCX if kind is Kind.ZIP and b"word/document.xml" in data else kind
    if data[:4] == b"RIFF":
        return RIFF.get(data[8:12])
    head = data[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head and head.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")):
        return Kind.SVG
    if not _is_text(data) and not (_is_called_text(declared, name) and not CONTROL.intersection(data)):
        return None
    if head.startswith(MARKUP) or (head.startswith((b"<!--", b"<?xml")) and b"<html" in head):
        return Kind.HTML
    return _kind_of_text(plain_type(declared), name)


def plain_type(declared: str) -> str:
    """A media type without its parameters, in the one spelling that `Kind` has."""
    bare = declared.partition(";")[0].strip().lower()
    return ALIASES.get(bare, bare)


def agrees(kind: Kind, declared: str, name: str = "") -> bool:
    """Whether what is said of a file is no lie: its type, or nothing, or some kind of text for what is text."""
    said = plain_type(declared)
    if said in ANYTHING:
        said = ENDINGS.get(name.rpartition(".")[2].lower(), "")
    if kind in TEXTS or kind is Kind.HTML:
        return said in ANYTHING or said in OTHER_TEXTS or said.startswith("text/")
    return said in ANYTHING or said == kind or (kind is Kind.DOCX and said == Kind.ZIP)


def _is_text(data: bytes) -> bool:
    """UTF-8, or UTF-16 that says so, without the characters that no text has."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return "\0" not in data.decode("utf-16")
        except UnicodeDecodeError:
            return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _is_called_text(declared: str, name: str) -> bool:
    """Whether the sender says so: then it may be of an old 8-bit encoding, as what spreadsheets write often is."""
    said = plain_type(declared)
    ending = name.rpartition(".")[2].lower()
    return said.startswith("text/") or said in OTHER_TEXTS or ending in {"txt", "htm", "html", "log", *NAMED}


def _kind_of_text(said: str, name: str) -> Kind:
    ending = name.rpartition(".")[2].lower()
    if said in {Kind.HTML, Kind.CSV, Kind.MARKDOWN}:
        return Kind(said)
    if ending in {"html", "htm"}:
        return Kind.HTML
    return Kind(NAMED.get(ending, Kind.TEXT))
