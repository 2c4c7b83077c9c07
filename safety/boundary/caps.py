"""How large, how deep and how odd a request may be: checked before anything is made of its text.

`check_shape` looks at the whole body, also at what no later stage reads. It never changes a value and never repeats
the client's text in an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PLACE_CHARS: Final = 64  # of a key that the client made up
VALUES: Final = 100_000  # JSON values below one key of the body: more cost time and mean nothing to an expert


@dataclass(frozen=True, slots=True)
class Caps:
    """`messages` in a request, `text_chars` over all its texts in their folded view, `nesting` of its JSON."""

    messages: int
    text_chars: int
    nesting: int


class BoundaryError(ValueError):
    """A request that may not pass. `place` is the path of what is wrong; `too_large` says that a size is the reason."""

    def __init__(self, message: str, *, place: str, too_large: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.too_large = too_large


def check_shape(body: Mapping[str, object], *, nesting: int) -> None:
    """Every string of the body is text that UTF-8 can carry, and nothing lies deeper than `nesting`. Linear time."""
    for key, value in body.items():
        check_utf8(key, place="")
        _check_value(value, place=key[:PLACE_CHARS], nesting=nesting)


def check_utf8(text: str, *, place: str) -> None:
    """Refuse a lone surrogate, which JSON can write and UTF-8 cannot."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BoundaryError(
            f"the text holds a lone surrogate (U+{ord(text[error.start]):04X}), which is not valid Unicode", place=place
        ) from None


def _check_value(value: object, *, place: str, nesting: int) -> None:
    level: list[object] = [value]
    values = 0
    for _ in range(nesting):
        values += len(level)
        if values > VALUES:
            raise BoundaryError(f"the request holds more than {VALUES} JSON values", place=place, too_large=True)
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                check_utf8(item, place=place)
            elif isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list | tuple):
                below.extend(item)
        if not below:
            return
        level = below
    raise BoundaryError(f"the request is nested deeper than {nesting} levels", place=place)
