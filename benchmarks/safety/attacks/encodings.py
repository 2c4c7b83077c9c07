"""How attackers write an order so that a filter does not read it, and images that carry one: the makers of the suite.

`written` fills in a case: `⟦name:text⟧` is the text put through the encoding of that name, from the inside out, and
`⟦3⟧` the suite's third order. Of the gateway nothing is used, so that it is not its own judge.
"""

import base64
import codecs
import re
import string
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

INNERMOST: Final = re.compile(r"⟦(?:([a-z][a-z0-9]*):)?([^⟦⟧]*)⟧", re.DOTALL)
FLOOD_CHARS: Final = 20_000
LEET: Final = str.maketrans("oieasOIEAS", "0134501345")
LOOKS: Final = str.maketrans("aceiopsxyACEHIKMOPSTX", "асеіорѕхуАСЕНІКМОРЅТХ")  # noqa: RUF001  look-alikes
PNG: Final = b"\x89PNG\r\n\x1a\n"
SIDE: Final = 8  # pixels of a small image


def caesar(text: str, by: int) -> str:
    """Each letter moved on in the alphabet."""
    low, high = string.ascii_lowercase, string.ascii_uppercase
    return text.translate(str.maketrans(low + high, low[by:] + low[:by] + high[by:] + high[:by]))


def _atbash(text: str) -> str:
    low, high = string.ascii_lowercase, string.ascii_uppercase
    return text.translate(str.maketrans(low + high, low[::-1] + high[::-1]))


def _selectors(text: str) -> str:
    return "".join(chr(0xFE00 + byte) if byte < 16 else chr(0xE0100 + byte - 16) for byte in text.encode())  # noqa: PLR2004  the first 16 stand apart


def _bits(text: str) -> str:
    return "".join("\u200b" if bit == "0" else "\u200c" for byte in text.encode() for bit in f"{byte:08b}")


def _styled(first: int, small: int) -> Callable[[str], str]:
    def style(text: str) -> str:
        styled = {c: chr(first + at) for at, c in enumerate(string.ascii_uppercase)}
        styled |= {c: chr(small + at) for at, c in enumerate(string.ascii_lowercase)}
        return "".join(styled.get(character, character) for character in text)

    return style


def _a1z26(text: str) -> str:
    words = re.findall("[a-z]+", text.lower())
    return " ".join("-".join(str(ord(letter) - 96) for letter in word) for word in words)


def _hexdump(text: str) -> str:
    data = text.encode()
    rows = (data[at : at + 16] for at in range(0, len(data), 16))
    return "\n".join(f"{16 * number:08x}  {row.hex(' ')}" for number, row in enumerate(rows))


def _in_lines(text: str) -> str:
    return base64.encodebytes(text.encode()).decode().rstrip()


ENCODINGS: Final[Mapping[str, Callable[[str], str]]] = {
    "a1z26": _a1z26,
    "atbash": _atbash,
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base6416": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "base64lines": _in_lines,
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base85": lambda text: base64.a85encode(text.encode(), adobe=True).decode(),
    "binary": lambda text: " ".join(f"{byte:08b}" for byte in text.encode()),
    "binaryrun": lambda text: "".join(f"{byte:08b}" for byte in text.encode()),
    "bits": _bits,
    "caesar3": lambda text: caesar(text, 3),
    "caesar7": lambda text: caesar(text, 7),
    "camel": lambda text: "".join(word.capitalize() for word in text.split()),
    "circled": _styled(0x24B6, 0x24D0),
    "cyrillic": lambda text: text.translate(LOOKS),
    "decimal": lambda text: " ".join(str(byte) for byte in text.encode()),
    "dotted": lambda text: "  ".join(".".join(word) for word in text.split()),
    "escapes": lambda text: "".join(f"\\u{ord(character):04x}" for character in text),
    "flood": lambda text: text * (FLOOD_CHARS // len(text)),
    "fullwidth": _styled(0xFF21, 0xFF41),
    "hex": lambda text: text.encode().hex(),
    "hex16be": lambda text: text.encode("utf-16-be").hex(),
    "hexdump": _hexdump,
    "joined": "\u200b".join,
    "leet": lambda text: text.translate(LEET),
    "marks": lambda text: "".join(f"{c}\u0336" if c.isalpha() else c for c in text),
    "mathbold": _styled(0x1D400, 0x1D41A),
    "octal": lambda text: "".join(f"\\{byte:03o}" for byte in text.encode()),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "reversed": lambda text: text[::-1],
    "reversedwords": lambda text: " ".join(word[::-1] for word in text.split()),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "selectors": _selectors,
    "softhyphens": lambda text: re.sub(r"(?<=\w)(?=\w)", "\u00ad", text),
    "spaced": lambda text: "   ".join(" ".join(word) for word in text.split()),
    "swapped": lambda text: re.sub(r"(.)(.)", r"\2\1", text),
    "tags": lambda text: "".join(chr(0xE0000 + ord(character)) for character in text),
    "underscored": lambda text: "_".join(text.split()),
    "zerospaces": lambda text: re.sub(r"(?<=\w)(?=\w)", "\u200b", text),
}


def written(text: str, orders: Sequence[str]) -> str:
    """The text of a case. Raises KeyError for an encoding that is not there, IndexError for an order."""

    def fill(match: re.Match[str]) -> str:
        if match[1]:
            return ENCODINGS[match[1]](match[2])
        return orders[int(match[2]) - 1]

    while INNERMOST.search(text):
        text = INNERMOST.sub(fill, text)
    return text


def image(kind: str, said: str) -> tuple[str, bytes]:
    """An image's media type and bytes: `said` stands in it, but not in its pixels."""
    words = said.encode()
    if kind == "svg":
        return "image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"><text>%b</text></svg>' % words
    if kind == "frames":
        frame = b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
        head = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff!\xfe\x0awheat beer\0"
        return "image/gif", head + frame * int(said) + b";"
    width, height = map(int, said.split("x")) if kind == "bomb" else (SIDE, SIDE)
    chunks = [("IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))]
    if kind in {"text", "bomb", "cut"}:
        chunks.append(("tEXt", b"Comment\0" + (words if kind == "text" else b"wheat beer")))
    if kind == "comment":
        chunks.append(("iTXt", b"Description\0\0\0\0\0" + words))
    if kind == "exif":
        tiff = (
            b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x010E, 2, len(words) + 1, 26) + b"\0\0\0\0" + words + b"\0"
        )
        chunks.append(("eXIf", tiff))
    chunks += [("IDAT", zlib.compress((b"\0" + b"\x7f" * SIDE) * SIDE)), ("IEND", b"")]
    made = PNG + b"".join(_chunk(name, data) for name, data in chunks)
    if kind == "cut":
        return "image/png", made[: len(made) - 30]
    return "image/png", made + (words if kind == "behind" else b"")


def _chunk(name: str, data: bytes) -> bytes:
    body = name.encode() + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
