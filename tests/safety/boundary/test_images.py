"""Images: bombs are refused by their heads, what hides beside the pixels is read and then gone, the picture stays."""

import io
import struct
import zlib
from typing import Any

import pytest
from documents import ORDER, chunk, gif, png, text_chunk

from conclave.safety.boundary.containers import head_of
from conclave.safety.boundary.files import PartError
from conclave.safety.boundary.images import check_head, reencoded, words_of
from conclave.safety.boundary.sniff import Kind, sniff

Image = pytest.importorskip("PIL.Image", reason="the extra `ingest` is not installed")
MOST = 50_000_000


def picture(form: str, *, mode: str = "RGB", size: tuple[int, int] = (60, 40), **more: Any) -> bytes:
    """A slope from black to white, as this format."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(out, form, **more)
    return out.getvalue()


def exif(**tags: object) -> Any:
    made = Image.Exif()
    for name, value in tags.items():
        made[{"description": 0x010E, "comment": 0x9C9C, "turned": 0x0112}[name]] = value
    return made


def opened(data: bytes) -> Any:
    return Image.open(io.BytesIO(data))


def refused(data: bytes, kind: Kind = Kind.PNG, *, frames: int = 100) -> str:
    with pytest.raises(PartError) as error:
        check_head(data, kind, most_pixels=MOST, most_frames=frames)
    return error.value.kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(60, 40), Kind.PNG),
        (picture("JPEG"), Kind.JPEG),
        (picture("JPEG", progressive=True), Kind.JPEG),
        (picture("GIF", mode="P"), Kind.GIF),
        (picture("WEBP"), Kind.WEBP),
        (picture("WEBP", lossless=True), Kind.WEBP),
        (picture("WEBP", exif=exif(description="x")), Kind.WEBP),
    ],
    ids=["png", "jpeg", "progressive", "gif", "webp", "lossless webp", "extended webp"],
)
def test_a_head_says_the_size(data: bytes, kind: Kind) -> None:
    head = head_of(data, kind, most_frames=10)
    assert (head.width, head.height, head.frames) == (60, 40, 1)


def test_forty_thousand_pixels_square_are_refused_by_the_head_alone() -> None:
    assert refused(png(40_000, 40_000, rows=zlib.compress(b""))) == "bomb"


def test_a_jpeg_and_a_webp_that_claim_too_much_are_refused() -> None:
    jpeg = picture("JPEG").replace(struct.pack(">HH", 40, 60), struct.pack(">HH", 65_000, 65_000))
    assert refused(jpeg, Kind.JPEG) == "bomb"
    webp = bytearray(picture("WEBP", lossless=True))
    at = webp.index(b"VP8L") + 9
    webp[at : at + 4] = (0x0FFFFFFF).to_bytes(4, "little")
    assert refused(bytes(webp), Kind.WEBP) == "bomb"


def test_ten_thousand_frames_are_refused() -> None:
    assert refused(gif(10_000), Kind.GIF) == "bomb"
    assert check_head(gif(100), Kind.GIF, most_pixels=MOST, most_frames=100).frames == 100


def test_an_animated_png_is_counted_by_what_it_says() -> None:
    animated = png(4, 3, chunk(b"acTL", struct.pack(">II", 5_000, 0)))
    assert refused(animated) == "bomb"


def test_an_animated_webp_is_counted() -> None:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(0, 250, 10)]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], duration=10)
    assert refused(out.getvalue(), Kind.WEBP, frames=10) == "bomb"
    assert check_head(out.getvalue(), Kind.WEBP, most_pixels=MOST, most_frames=25).frames == 25


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(0, 3), Kind.PNG),
        (png()[:20], Kind.PNG),
        (picture("JPEG")[:30], Kind.JPEG),
        (b"\xff\xd8\xff\xd9", Kind.JPEG),
        (gif(1)[:-12], Kind.GIF),
        (gif(0), Kind.GIF),
        (picture("WEBP")[:12], Kind.WEBP),
    ],
    ids=["no width", "cut png", "cut jpeg", "no frame", "cut gif", "no frames", "cut webp"],
)
def test_a_head_that_is_cut_short_is_refused(data: bytes, kind: Kind) -> None:
    assert refused(data, kind) == "truncated"


@pytest.mark.parametrize("kind", [Kind.PNG, Kind.JPEG, Kind.GIF, Kind.WEBP])
def test_any_bytes_after_a_magic_number_end_soon(kind: Kind) -> None:
    start = {
        Kind.PNG: b"\x89PNG\r\n\x1a\n",
        Kind.JPEG: b"\xff\xd8\xff",
        Kind.GIF: b"GIF89a",
        Kind.WEBP: b"RIFF\xff\xff\xff\x7fWEBP",
    }[kind]
    for rest in (b"", b"\0" * 100_000, b"\xff" * 100_000, bytes(range(256)) * 400):
        assert refused(start + rest, kind) in {"truncated", "bomb"}
        assert isinstance(words_of(start + rest, kind), str)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(9, 9, text_chunk(ORDER)), Kind.PNG),
        (png(9, 9, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(ORDER.encode()))), Kind.PNG),
        (png(9, 9, chunk(b"iTXt", b"Comment\0\x01\0en\0\0" + zlib.compress(ORDER.encode()))), Kind.PNG),
        (png(9, 9) + b"PK\x03\x04" + ORDER.encode(), Kind.PNG),
        (picture("JPEG", exif=exif(description=ORDER)), Kind.JPEG),
        (picture("JPEG", exif=exif(comment=ORDER.encode("utf-16-le"))), Kind.JPEG),
        (picture("JPEG", comment=ORDER.encode()), Kind.JPEG),
        (picture("JPEG") + ORDER.encode() + b"\xff\xd9", Kind.JPEG),
        (gif(1, comment=ORDER), Kind.GIF),
        (gif(1) + ORDER.encode(), Kind.GIF),
        (picture("WEBP", exif=exif(description=ORDER)), Kind.WEBP),
        (picture("WEBP", xmp=f"<x>{ORDER}</x>".encode()), Kind.WEBP),
        (picture("WEBP", icc_profile=ORDER.encode()), Kind.WEBP),
    ],
    ids=[
        *("png text", "png packed text", "png international text", "png with a zip behind it", "exif", "exif utf-16"),
        *("jpeg comment", "behind a jpeg", "gif comment", "behind a gif", "webp exif", "webp xmp", "webp profile"),
    ],
)
def test_an_order_beside_the_pixels_is_read_and_then_gone(data: bytes, kind: Kind) -> None:
    made = reencoded(data, kind=kind, most_pixels=MOST)
    assert ORDER in made.words
    assert ORDER.encode() not in made.data
    assert ORDER.encode("utf-16-le") not in made.data
    assert b"PK" not in made.data
    assert words_of(made.data, Kind(made.kind)) == ""
    assert sniff(made.data) == made.kind


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_keeps_every_pixel(mode: str) -> None:
    data = picture("PNG", mode=mode)
    made = reencoded(data, kind=Kind.PNG, most_pixels=MOST)
    assert opened(made.data).mode == mode
    assert opened(made.data).tobytes() == opened(data).tobytes()
    assert made.words == ""


def test_a_jpeg_is_hardly_changed_by_a_second_time() -> None:
    data = picture("JPEG", quality=60)
    made = opened(reencoded(data, kind=Kind.JPEG, most_pixels=MOST).data).tobytes()
    worst = max(abs(a - b) for a, b in zip(opened(data).tobytes(), made, strict=True))
    assert worst <= 4


def test_a_photo_that_its_exif_turns_comes_out_turned() -> None:
    made = reencoded(picture("JPEG", exif=exif(turned=6)), kind=Kind.JPEG, most_pixels=MOST)
    assert opened(made.data).size == (40, 60)


def test_broken_exif_turns_nothing_and_hinders_nothing() -> None:
    data = picture("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert opened(reencoded(data, kind=Kind.JPEG, most_pixels=MOST).data).size == (60, 40)


def test_what_is_seen_through_stays_so() -> None:
    data = picture("PNG", mode="P", transparency=opened(picture("PNG", mode="P")).getpixel((0, 0)))
    assert opened(reencoded(data, kind=Kind.PNG, most_pixels=MOST).data).getpixel((0, 0))[3] == 0


def test_cmyk_becomes_rgb() -> None:
    assert opened(reencoded(picture("JPEG", mode="CMYK"), kind=Kind.JPEG, most_pixels=MOST).data).mode == "RGB"


def test_of_a_gif_the_first_frame_is_left_as_a_png() -> None:
    made = reencoded(gif(5), kind=Kind.GIF, most_pixels=MOST)
    assert made.kind == "image/png"
    assert opened(made.data).n_frames == 1


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(60, 40, rows=zlib.compress(b"\0" * 10)), Kind.PNG),
        (png(60, 40)[:-30], Kind.PNG),
        (picture("JPEG", size=(600, 400))[:3_000], Kind.JPEG),
        (picture("WEBP", size=(600, 400))[:-900], Kind.WEBP),
        (b"GIF89a" + b"\0" * 40, Kind.GIF),
    ],
    ids=["few rows", "cut png", "cut jpeg", "cut webp", "empty gif"],
)
def test_an_image_that_ends_early_is_refused(data: bytes, kind: Kind) -> None:
    with pytest.raises(PartError) as error:
        reencoded(data, kind=kind, most_pixels=MOST)
    assert error.value.kind == "truncated"


def test_more_pixels_than_the_head_said_are_refused_where_they_are_decoded() -> None:
    with pytest.raises(PartError) as error:
        reencoded(png(600, 400), kind=Kind.PNG, most_pixels=1_000)
    assert error.value.kind == "bomb"


def test_only_so_many_words_are_read() -> None:
    data = png(4, 3, *(text_chunk(f"{number} " + "word " * 1_000) for number in range(50)))
    assert len(words_of(data, Kind.PNG)) <= 16_384


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xff\xd8\xff" + b"\xff" * 1_000, Kind.JPEG),
        (b"\xff\xd8" + b"\xff\xd0" * 30_000, Kind.JPEG),
        (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0abcd\0\0\0\0" * 30_000, Kind.PNG),
        (b"GIF89a" + b"\0" * 7 + b"\x21\xfe" + b"\x01a" * 300_000, Kind.GIF),
        (b"RIFF\xff\xff\xff\x7fWEBP" + b"abcd\0\0\0\0" * 30_000, Kind.WEBP),
    ],
    ids=["fill bytes", "markers", "chunks", "blocks", "riff"],
)
def test_a_container_of_countless_small_things_is_not_walked_to_its_end(data: bytes, kind: Kind) -> None:
    assert refused(data, kind) in {"bomb", "truncated"}
