"""What is read out of a document: blocks of text that say where they stand, or an error that says why there are none.

Plain values. It reads nothing itself: `parse.py` does, with a reader for each type.
"""

import zipfile
import zlib
from dataclasses import dataclass
from typing import Final

BROKEN: Final = (  # what readers of broken files raise
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, NotImplementedError, RuntimeError, ArithmeticError),
    *(
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
    ),  # XML's ParseError is a SyntaxError
)


class ParseError(ValueError):
    """A document without blocks. `kind`: `broken`, `encrypted`, `too_large`, `too_many_pages`, `unknown_type`,
    `not_installed`. The message never repeats what is in it."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, a row or a page of text. `page` and `line` count from 1; 0 where there are none. `level` is a
    heading's, 1 to 9; 0 of what is none."""

    text: str
    page: int = 0
    line: int = 0
    shown: bool = True
    level: int = 0


@dataclass(frozen=True, slots=True)
class Parsed:
    """The blocks of a document in order, and its pages where it has some."""

    blocks: list[Block]
    pages: int = 0


@dataclass(frozen=True, slots=True)
class Caps:
    """`chars` of text in all blocks, `pages`, and `bytes_` that one part of a container may unpack to."""

    chars: int
    pages: int
    bytes_: int


def decoded(data: bytes) -> str:
    """A text file's text: UTF-8, UTF-16 that says so, else Windows' Latin letters; its lines end in a line feed."""
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")
