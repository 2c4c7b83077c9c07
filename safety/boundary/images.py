"""Images: their caps, the words that hide beside their pixels, and the same picture made anew.

`check_head` decides before a pixel is decoded, and needs no library. `reencoded` decodes, with Pillow, and is made for
a bounded process; what it gives back holds pixels and nothing else: no metadata, no profile, no further frames, no
bytes after the end. Neither looks at what a picture shows.
"""

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from conclave.safety.boundary.containers import Head, beside, head_of
from conclave.safety.boundary.files import PartError
from conclave.safety.boundary.sniff import Kind

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_WORDS: Final = 16_384  # characters beside the pixels that are read
ASCII_RUN: Final = re.compile(rb"(?:[\x20-\x7e\t\r\n]|[\xc2-\xf4][\x80-\xbf]{1,3}){6,}")  # binary has runs of 4 or 5
WIDE_RUN: Final = re.compile(rb"(?:[\x20-\x7e]\x00){6,}")  # UTF-16, as Windows writes titles and comments
QUALITY: Final = 90
PNG_LEVEL: Final = 3
SENT: Final = {Kind.PNG: Kind.PNG, Kind.JPEG: Kind.JPEG, Kind.GIF: Kind.PNG, Kind.WEBP: Kind.WEBP}
MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})  # that PNG holds
BROKEN: Final = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Reencoded:
    """The same picture of `kind` without anything beside it. `words` stood in its metadata, or after its end."""

    data: bytes
    kind: str
    words: str


def can_reencode() -> bool:
    """Whether Pillow is installed here."""
    return find_spec("PIL") is not None


def check_head(data: bytes, kind: Kind, *, most_pixels: int, most_frames: int) -> Head:
    """The head of an image within its caps, before anything is decoded. Raises PartError."""
    head = head_of(data, kind, most_frames=most_frames)
    if head.width < 1 or head.height < 1:
        raise PartError("an image without pixels", kind="truncated")
    if head.width * head.height > most_pixels:
        raise PartError(f"an image of {head.width} x {head.height}: more than {most_pixels} pixels", kind="bomb")
    if head.frames > most_frames:
        raise PartError(f"an image of more than {most_frames} frames", kind="bomb")
    return head


def words_of(data: bytes, kind: Kind) -> str:
    """What can be read in an image's metadata, and after its end: for the checks, never for an expert."""
    found: dict[str, None] = {}
    chars = 0
    for blob in beside(data, kind):
        for pattern, encoding in ((ASCII_RUN, "utf-8"), (WIDE_RUN, "utf-16-le")):
            for run in pattern.finditer(blob):
                words = run[0].decode(encoding, "replace").strip()
                chars += len(words) + 1
                found[words] = None
                if chars >= MOST_WORDS:
                    return "\n".join(found)[:MOST_WORDS]
    return "\n".join(found)


def reencoded(data: bytes, *, kind: str, most_pixels: int) -> Reencoded:
    """Decode and write again, from pixels alone. Raises PartError for what cannot be decoded to its end."""
    from PIL import Image  # noqa: PLC0415  the extra `ingest`

    found = Kind(kind)
    Image.MAX_IMAGE_PIXELS = most_pixels
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=[found.name]) as image:
            if image.width * image.height > most_pixels:
                raise PartError(f"an image of more than {most_pixels} pixels", kind="bomb")
            image.load()
            written = _written(_bare(_upright(image)), found, _tables(image))
    except (PartError, Image.DecompressionBombError) as error:
        raise error if isinstance(error, PartError) else PartError("an image of too many pixels", kind="bomb") from None
    except BROKEN as error:
        raise PartError("the image is cut short or broken", kind="truncated") from error
    return Reencoded(written, SENT[found], words_of(data, found))


def _upright(image: "Image") -> "Image":
    """As its EXIF turns it: that goes with the rest of it."""
    from PIL import ImageOps  # noqa: PLC0415  the extra `ingest`

    try:
        return ImageOps.exif_transpose(image)
    except BROKEN:  # metadata that nobody can read turns nothing
        return image


def _bare(image: "Image") -> "Image":
    """The first frame's pixels, in a mode that PNG can hold, and nothing that came with them."""
    if "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode not in MODES:
        image = image.convert("RGB")
    bare = image.copy()
    bare.info = {}
    return bare


def _tables(image: "Image") -> dict[str, Any]:
    """How a JPEG was compressed: with its own tables it hardly loses a second time."""
    tables = getattr(image, "quantization", None)
    if image.mode not in {"L", "RGB"} or not tables:
        return {"quality": QUALITY}
    from PIL.JpegImagePlugin import get_sampling  # noqa: PLC0415  the extra `ingest`

    sampling = get_sampling(image)
    return {"qtables": tables} | ({"subsampling": sampling} if sampling >= 0 else {})


def _written(image: "Image", kind: Kind, tables: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    if kind is Kind.JPEG:
        image.convert("L" if image.mode in {"1", "L"} else "RGB").save(out, "JPEG", **tables)
    elif kind is Kind.WEBP:
        image.convert("RGBA" if "A" in image.getbands() else "RGB").save(out, "WEBP", quality=QUALITY, method=1)
    else:
        image.save(out, "PNG", compress_level=PNG_LEVEL)
    return out.getvalue()
