"""The containers of images, walked without decoding a pixel: sizes, frames, and what lies beside the pixels.

PNG, JPEG, GIF and WebP, as their specifications lay them out, in one pass whose steps are counted. A container that
ends early is an IndexError inside, and a PartError to whoever asks. It judges nothing and needs no library.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from conclave.safety.boundary.files import PartError
from conclave.safety.boundary.sniff import Kind

MOST_CHUNKS: Final = 20_000  # of a container: real ones have tens, long animations some thousands
MOST_BLOCKS: Final = 200_000  # that the chunks of a GIF are cut into, of up to 255 bytes each
UNPACKED_BYTES: Final = 65_536  # of one compressed text
TEXT_HEAD_BYTES: Final = 256  # before a compressed text: its keyword and language
PNG_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP"})
WEBP_TEXTS: Final = frozenset({b"EXIF", b"XMP ", b"ICCP"})
FILL: Final = 0xFF  # begins each JPEG marker, and may be repeated before it
MOST_FILL: Final = 16  # times: a marker that begins later is none
STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # JPEG markers without a length
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
SCAN: Final = 0xDA
APPLICATION: Final = frozenset({*range(0xE0, 0xF0), 0xFE})  # what applications write, and comments
GIF_FRAME, GIF_EXTENSION, GIF_END, GIF_CONTROL = 0x2C, 0x21, 0x3B, 0xF9


@dataclass(frozen=True, slots=True)
class Head:
    """What an image says of itself: pixels wide and high, and frames, counted no further than was asked for."""

    width: int
    height: int
    frames: int = 1


def head_of(data: bytes, kind: Kind, *, most_frames: int) -> Head:
    """Width, height and frames, which are counted up to one beyond `most_frames`. Raises PartError."""
    try:
        match kind:
            case Kind.PNG:
                return _png_head(data)
            case Kind.JPEG:
                return _jpeg_head(data)
            case Kind.GIF:
                return _gif_head(data, most_frames + 1)
            case _:
                return _webp_head(data, most_frames + 1)
    except IndexError:
        raise PartError("the image is cut short", kind="truncated") from None


def beside(data: bytes, kind: Kind) -> Iterator[bytes]:
    """What lies beside the pixels, up to where the container ends early: metadata, comments, bytes after the end."""
    try:
        yield from _beside(data, kind)
    except (IndexError, PartError):
        return


def _beside(data: bytes, kind: Kind) -> Iterator[bytes]:
    match kind:
        case Kind.PNG:
            yield from _png_texts(data)
        case Kind.JPEG:
            yield from _jpeg_texts(data)
        case Kind.GIF:
            yield from (data[start:end] for what, start, end in _gif_blocks(data) if what == "text")
        case _:
            yield from (
                data[start:end] for name, start, end in _riff_chunks(data) if name in {b"EXIF", b"XMP ", b"ICCP"}
            )
            yield data[8 + int.from_bytes(data[4:8], "little") :]


def _number(data: bytes, at: int, size: int) -> int:
    """A big-endian number; IndexError where the data ends before it does."""
    if at + size > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + size])


def _png_head(data: bytes) -> Head:
    frames = 1
    for name, start, _ in _png_chunks(data):
        if name == b"acTL":
            frames = max(frames, _number(data, start, 4))
        elif name == b"IDAT":
            break
    return Head(_number(data, 16, 4), _number(data, 20, 4), frames)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's name and where its content lies; the last one is what comes after the end."""
    at = 8
    for _ in range(MOST_CHUNKS):
        size = _number(data, at, 4)
        name = data[at + 4 : at + 8]
        yield name, at + 8, at + 8 + size
        at += 12 + size
        if name == b"IEND":
            yield b"", at, len(data)
            return
    raise PartError(f"an image of more than {MOST_CHUNKS} chunks", kind="bomb")


def _png_texts(data: bytes) -> Iterator[bytes]:
    for name, start, end in _png_chunks(data):
        blob = data[start:end]
        if name in PNG_TEXTS or not name:
            yield blob
        if name in {b"zTXt", b"iTXt", b"iCCP"}:
            yield from _unpacked(blob)


def _unpacked(blob: bytes) -> Iterator[bytes]:
    """A compressed text, as far as it is read: it follows the first NUL, and in iTXt some more."""
    for at in range(len(blob[:256])):
        if blob[at : at + 1] == b"\x78" and at and _number(blob, at, 2) % 31 == 0:  # a zlib header
            try:
                yield zlib.decompressobj().decompress(blob[at:], UNPACKED_BYTES)
            except zlib.error:
                continue
            return


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Each marker and where its content lies, up to the first scan."""
    at = 2
    for _ in range(MOST_CHUNKS):
        for _ in range(MOST_FILL):
            if data[at] != FILL or data[at + 1] != FILL:
                break
            at += 1
        marker = _number(data, at + 1, 1)
        if data[at] != FILL or marker == FILL:
            raise PartError("the image is broken", kind="truncated")
        if marker in STANDALONE:
            at += 2
            continue
        size = _number(data, at + 2, 2)
        yield marker, at + 4, at + 2 + size
        if marker == SCAN:
            return
        at += 2 + max(2, size)
    raise PartError(f"an image of more than {MOST_CHUNKS} segments", kind="bomb")


def _jpeg_head(data: bytes) -> Head:
    for marker, start, _ in _jpeg_segments(data):
        if marker in FRAMES:
            return Head(width=_number(data, start + 3, 2), height=_number(data, start + 1, 2))
    raise PartError("an image without a frame", kind="truncated")


def _jpeg_texts(data: bytes) -> Iterator[bytes]:
    start = 0
    for marker, start, end in _jpeg_segments(data):
        if marker in APPLICATION:
            yield data[start:end]
    ended = data.find(b"\xff\xd9", start)  # cannot stand within a scan
    yield data[ended + 2 :] if ended >= 0 else b""


def _gif_head(data: bytes, most: int) -> Head:
    frames = sum(1 for _ in islice((1 for what, _, _ in _gif_blocks(data) if what == "frame"), most))
    if not frames:
        raise PartError("an image without a frame", kind="truncated")
    return Head(int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"), frames)


def _gif_blocks(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Frames, texts (comments, plain text, application data) and what comes after the end."""
    at = 13 + _colours(_number(data, 10, 1))
    left = iter(range(MOST_BLOCKS))
    for _ in range(MOST_CHUNKS):
        what = _number(data, at, 1)
        start = at
        if what == GIF_FRAME:
            at = _past_blocks(data, at + 11 + _colours(_number(data, at + 9, 1)), left)
            yield "frame", start, at
        elif what == GIF_EXTENSION:
            at = _past_blocks(data, at + 2, left)
            if data[start + 1] != GIF_CONTROL:
                yield "text", start + 2, at
        elif what == GIF_END:
            yield "text", at + 1, len(data)
            return
        else:
            raise PartError("the image is broken", kind="truncated")
    raise PartError(f"an image of more than {MOST_CHUNKS} blocks", kind="bomb")


def _colours(flags: int) -> int:
    """Bytes of the table of colours that these flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _past_blocks(data: bytes, at: int, left: Iterator[int]) -> int:
    """Where the blocks from `at` on end; `left` counts those of the whole image."""
    while size := _number(data, at, 1):
        if next(left, None) is None:
            raise PartError(f"an image of more than {MOST_BLOCKS} blocks", kind="bomb")
        at += 1 + size
    return at + 1


def _webp_head(data: bytes, most: int) -> Head:
    size, frames = None, 0
    for name, start, _ in _riff_chunks(data):
        if name == b"VP8X":
            size = (
                1 + int.from_bytes(data[start + 4 : start + 7], "little"),
                1 + int.from_bytes(data[start + 7 : start + 10], "little"),
            )
        elif name == b"VP8L" and size is None:
            bits = int.from_bytes(data[start + 1 : start + 5], "little")
            size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif name == b"VP8 " and size is None:
            bits = int.from_bytes(data[start + 6 : start + 10], "little")
            size = bits & 0x3FFF, bits >> 16 & 0x3FFF
        elif name == b"ANMF":
            frames += 1
            if frames >= most:
                break
    if size is None:
        raise PartError("an image without a frame", kind="truncated")
    return Head(*size, frames=max(1, frames))


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(MOST_CHUNKS):
        if at + 8 > end:
            return
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, at + 8 + size
        at += 8 + size + (size & 1)
    raise PartError(f"an image of more than {MOST_CHUNKS} chunks", kind="bomb")
