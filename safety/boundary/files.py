"""The content of a part, out of its base64 and under its caps; and what an address may be that is only passed on.

Nothing here fetches anything. `check_archive` looks into archives, entry by entry, and is made for a bounded process;
the rest takes microseconds, but for base64 itself (about 1 ms per MB).
"""

import binascii
import io
import ipaddress
import socket
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

WHITESPACE: Final = str.maketrans("", "", " \t\r\n")
URL_CHARS: Final = 8_192
INNER: Final = (".local", ".localhost", ".internal", ".intranet", ".lan", ".corp", ".home", ".home.arpa", ".svc")
NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
BLOCK_BYTES: Final = 65_536
MOST_ENTRIES: Final = 4_096  # of an archive
MOST_RATIO: Final = 200  # unpacked to packed bytes of one entry; the XML of a real document reaches about 20
SMALL_BYTES: Final = 1_000_000  # an entry up to this may have any ratio: a blank page packs very well
MOST_DEPTH: Final = 2  # archives in archives; a workbook embedded in a document is one
BROKEN: Final = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class PartError(ValueError):
    """A content part that may not go on. `kind` is a bounded label; the message never repeats what is in the part."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a part, and what its sender says of them: a media type and a name; empty if nothing was said."""

    data: bytes
    declared: str = ""
    name: str = ""


def from_url(url: str, *, most_bytes: int) -> Content | None:
    """The content of a `data:` URL; None for an address of any other kind. Raises PartError."""
    if url[:5].lower() != "data:":
        return None
    about, comma, encoded = url[5:].partition(",")
    declared, *parameters = about.split(";")
    if not comma or not parameters or parameters[-1].strip().lower() != "base64":
        raise PartError("a data: URL must read data:TYPE;base64,DATA", kind="malformed")
    return Content(from_base64(encoded, most_bytes=most_bytes), declared)


def from_base64(encoded: str, *, most_bytes: int) -> bytes:
    """The bytes; raises PartError for what is no base64, for nothing, and, before decoding, for too much."""
    if len(encoded) * 3 // 4 > most_bytes + 2 and len(encoded.translate(WHITESPACE)) * 3 // 4 > most_bytes + 2:
        raise PartError(f"larger than {most_bytes} bytes", kind="too_large")
    try:
        data = binascii.a2b_base64(encoded.translate(WHITESPACE), strict_mode=True)
    except ValueError:  # not ASCII, another alphabet, wrong padding
        raise PartError(
            "the data must be base64 with the standard alphabet and its padding", kind="malformed"
        ) from None
    if not data:
        raise PartError("the data is empty", kind="malformed")
    if len(data) > most_bytes:
        raise PartError(f"larger than {most_bytes} bytes", kind="too_large")
    return data


def check_address(url: str) -> None:
    """Refuse what is no https:// address of a public host, as far as the address itself says so. Raises PartError."""
    if len(url) > URL_CHARS:
        raise PartError(f"an address may hold up to {URL_CHARS} characters", kind="malformed")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # brackets that do not close, a port that is no number
        raise PartError("the address cannot be read", kind="malformed") from None
    if parts.scheme.lower() != "https":
        raise PartError("an address must begin with https://; send other content as a data: URL", kind="remote")
    if not host or port == 0 or "\\" in url or not url.isprintable() or " " in url:
        raise PartError("the address cannot be read", kind="malformed")
    if parts.username is not None or parts.password is not None:
        raise PartError("an address may hold no user or password", kind="remote")
    if _is_private(unicodedata.normalize("NFKC", host).rstrip(".").lower()):
        raise PartError("the address leads into a private network", kind="remote")


def _is_private(host: str) -> bool:
    """Of names only those that can mean nothing public; what a name stands for is for whoever looks it up."""
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001, 2130706433: all are addresses
        except OSError:
            return "." not in host or host.endswith(INNER)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    return not address.is_global or address.is_multicast


def check_archive(data: bytes, *, most_bytes: int) -> int:
    """The unpacked size of an archive, counted and not believed. Raises PartError for a bomb, or what cannot be read.

    `most_bytes` is for all entries, those of archives within it too. Runs in a bounded process.
    """
    return sum(_unpacked(data, most_bytes=most_bytes, depth=1))


def _unpacked(data: bytes, *, most_bytes: int, depth: int) -> Iterator[int]:
    if depth > MOST_DEPTH:
        raise PartError(f"archives within archives, more than {MOST_DEPTH} deep", kind="bomb")
    left = most_bytes
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, len(data), most_bytes)
            for entry in entries:
                for size in _entry(archive, entry, most_bytes=left, depth=depth):
                    left -= size
                    yield size
    except (*BROKEN, OSError, ValueError) as error:
        if isinstance(error, PartError):
            raise
        raise PartError("the archive is broken, encrypted, or packed in a way of its own", kind="truncated") from error


def _check_entries(entries: list[zipfile.ZipInfo], packed_bytes: int, most_bytes: int) -> None:
    """What the archive says of itself, before anything is unpacked."""
    if len(entries) > MOST_ENTRIES:
        raise PartError(f"an archive with more than {MOST_ENTRIES} entries", kind="bomb")
    if sum(entry.compress_size for entry in entries) > packed_bytes:
        raise PartError("an archive whose entries overlap", kind="bomb")
    if sum(entry.file_size for entry in entries) > most_bytes:
        raise PartError(f"an archive that unpacks to more than {most_bytes} bytes", kind="bomb")
    for entry in entries:
        if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise PartError("an archive packed in a way that no document uses", kind="unknown_type")
        if entry.file_size > SMALL_BYTES and entry.file_size > MOST_RATIO * max(1, entry.compress_size):
            raise PartError(f"an archive with an entry packed to less than 1/{MOST_RATIO} of its size", kind="bomb")


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, *, most_bytes: int, depth: int) -> Iterator[int]:
    """The sizes of what comes out of one entry; its header may lie."""
    head, size = b"", 0
    with archive.open(entry) as file:
        while block := file.read(BLOCK_BYTES):
            head = head or block
            size += len(block)
            if size > most_bytes:
                raise PartError("an archive that unpacks to more than its limit", kind="bomb")
    yield size
    if head.startswith(b"PK\x03\x04"):
        yield from _unpacked(archive.read(entry), most_bytes=most_bytes - size, depth=depth + 1)
