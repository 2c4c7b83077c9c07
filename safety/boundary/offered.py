"""What the tools that a request offers say of themselves: every text in `tools` and `functions`, with its place.

Names, titles, descriptions, defaults, lists of values, also the names of properties that are no plain names: an expert
reads all of them. They are data of whoever serves the tool, and no message: nothing fences them, because a schema must
stay one. Bounded in number and size; never judges what a text says, and never drops one.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from conclave.safety.api import Origin, Segment
from conclave.safety.boundary.caps import BoundaryError, check_utf8
from conclave.safety.boundary.normalise import fold

OFFERS: Final = ("tools", "functions")
MOST_TEXTS: Final = 10_000  # in one request: 300 tools of 30 texts
SOURCE_CHARS: Final = 256  # of what a tool is called
PLAIN: Final = re.compile(r"[A-Za-z0-9_$-]{1,32}")  # a key that is a name and no text, and may stand in a place
SYMBOLS: Final = frozenset({"type", "$ref", "$schema", "$id", "format"})  # of a schema: no text, if they look like none
SYMBOL: Final = re.compile(r"[A-Za-z0-9_.:/#$@%+-]{0,64}")
LISTS: Final = frozenset({"required", "type"})  # of symbols, too
OF_TOOL: Final = frozenset({"name", "type"})  # what each tool has, and other stages read:
NAMED_TO: Final = 2  # in the tool itself, or in its `function`
USUAL: Final = frozenset({"type", "function", "name", "description", "parameters", "properties", "enum", "items"})
HOLDS: Final = frozenset({str, dict, list})  # the values in which texts may stand


def read_offered(body: Mapping[str, Any], *, room_chars: int) -> tuple[Segment, ...]:
    """The texts, in the order in which they stand there. BoundaryError where they are too many or too long."""
    segments: list[Segment] = []
    for offer in OFFERS:
        offered = body.get(offer)
        if offered is None:
            continue
        listed = enumerate(offered) if isinstance(offered, list) else ((None, offered),)
        for number, tool in listed:
            texts: list[tuple[str, str]] = []
            _read(tool, offer if number is None else f"{offer}[{number}]", "", texts, depth=0)
            if len(segments) + len(texts) > MOST_TEXTS:
                words = f"the tools hold more than {MOST_TEXTS} texts"
                raise BoundaryError(words, place=offer, too_large=True)
            source = _name(tool)
            for text, place in texts:
                check_utf8(text, place=place)
                folded = fold(text, max_chars=room_chars, place=place)
                room_chars -= len(folded)
                segments.append(Segment(Origin.TOOL, text, folded, place, source))
    return tuple(segments)


def _name(tool: object) -> str:
    inner = tool.get("function") or tool.get("custom") or tool if isinstance(tool, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name[:SOURCE_CHARS] if isinstance(name, str) else ""


def _read(value: object, place: str, key: str, texts: list[tuple[str, str]], *, depth: int) -> None:
    """Add the texts below a value that stands under `key`, with their places. As deep as the request's shape may be."""
    if isinstance(value, str):
        if value and not _is_symbol(value, key, depth):
            texts.append((value, place))
    elif isinstance(value, dict):
        for number, (name, inner) in enumerate(value.items()):
            if name in USUAL or PLAIN.fullmatch(name):
                at = f"{place}.{name}"
            else:
                texts.append((name, f"{place}<{number}>"))
                at = f"{place}{{{number}}}"
            if inner.__class__ in HOLDS:
                _read(inner, at, name, texts, depth=depth + 1)
    elif isinstance(value, list):
        words = [one for one in value if isinstance(one, str) and "\n" not in one]
        if words and len(words) == len(value):
            if key not in LISTS or not all(map(SYMBOL.fullmatch, words)):
                texts.append(("\n".join(words), place))
            return
        for number, inner in enumerate(value):
            _read(inner, f"{place}[{number}]", "", texts, depth=depth + 1)


def _is_symbol(text: str, key: str, depth: int) -> bool:
    names = key in SYMBOLS or (depth <= NAMED_TO and key in OF_TOOL)
    return names and SYMBOL.fullmatch(text) is not None
