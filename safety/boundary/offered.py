"""What the tools that a request offers say of themselves: every text in `tools` and `functions`, with its place.

Names, titles, descriptions, defaults, lists of values, also the names of properties that are no plain names: an expert
reads all of them. They are data of whoever serves the tool, and no message: nothing fences them, because a schema must
stay one. Bounded in number and size; never judges what a text says, and never drops one.
"""

import re
from collections.abc import Iterator, Mapping
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
OF_TOOL: Final = frozenset({"name", "type"})  # what each tool has, and other stages read


def read_offered(body: Mapping[str, Any], *, room_chars: int) -> tuple[Segment, ...]:
    """The texts, in the order in which they stand there. BoundaryError where they are too many or too long."""
    segments: list[Segment] = []
    for offer in OFFERS:
        offered = body.get(offer)
        if offered is None:
            continue
        for place, tool in enumerate(offered) if isinstance(offered, list) else [(None, offered)]:
            at = offer if place is None else f"{offer}[{place}]"
            source = _name(tool)
            for text, where in _texts(tool, at, "", top=True):
                if len(segments) >= MOST_TEXTS:
                    words = f"the tools hold more than {MOST_TEXTS} texts"
                    raise BoundaryError(words, place=offer, too_large=True)
                check_utf8(text, place=where)
                folded = fold(text, max_chars=room_chars, place=where)
                room_chars -= len(folded)
                segments.append(Segment(Origin.TOOL, text, folded, where, source))
    return tuple(segments)


def _name(tool: object) -> str:
    inner = tool.get("function") or tool.get("custom") or tool if isinstance(tool, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name[:SOURCE_CHARS] if isinstance(name, str) else ""


def _texts(value: object, place: str, key: str, *, top: bool = False) -> Iterator[tuple[str, str]]:
    """Texts and places below a value that stands under `key`. As deep as the request's shape may be."""
    if isinstance(value, str):
        if value and not _is_symbol(value, key, top=top):
            yield value, place
    elif isinstance(value, dict):
        inside = place.count(".") <= 1  # a tool, or its `function`: what a tool is called is told elsewhere
        for number, (name, inner) in enumerate(value.items()):
            plain = PLAIN.fullmatch(name) is not None
            if not plain:
                yield name, f"{place}<{number}>"
            yield from _texts(inner, f"{place}.{name}" if plain else f"{place}{{{number}}}", name, top=inside)
    elif isinstance(value, list):
        words = [one for one in value if isinstance(one, str) and "\n" not in one]
        if words and len(words) == len(value):
            if key not in LISTS or not all(map(SYMBOL.fullmatch, words)):
                yield "\n".join(words), place
            return
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{number}]", "")


def _is_symbol(text: str, key: str, *, top: bool) -> bool:
    return (key in SYMBOLS or (top and key in OF_TOOL)) and SYMBOL.fullmatch(text) is not None
