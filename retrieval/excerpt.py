"""Picks the part of a passage that answers: the block, sentences or table rows where the question's terms stand.

What it returns are slices of the passage in their order, never a rewording; code is shown whole. It does not decide
whether the passage answers at all.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from conclave.retrieval.api import Hit, Match

QUOTE_CHARS: Final = 600  # a passage up to here is quoted whole; of longer prose as many sentences as fit
CODE_CHARS: Final = 4_000  # code beyond this loses its end: a screenful or two
ROWS: Final = 3  # of a table, under its head
FENCE: Final = re.compile(r" {0,3}(```+|~~~+)")
RULE: Final = re.compile(r"[\s:|-]*\Z")  # the line under a table's head
SENTENCE: Final = re.compile(r"(?<!\d)[.!?][\"')\]*_]*\s+|\n(?=\s*(?:[-*+]|\d+[.)])\s)")


@dataclass(frozen=True, slots=True)
class Part:
    """A block of a passage at `at`, which is `prose`, `code` or a `table`."""

    at: int
    text: str
    kind: str


def excerpt(match: Match) -> str:
    """The words to quote. A sentence that ends in a colon and the block it announces stay together."""
    text = match.passage.text
    if len(text) <= QUOTE_CHARS:
        return text
    parts = _parts(text)
    weights = [_weight(match.hits, part.at, part.at + len(part.text)) for part in parts]
    first = last = weights.index(max(weights))
    if parts[first].text.endswith(":") and last + 1 < len(parts):
        last += 1
    elif first and parts[first - 1].text.endswith(":"):
        first -= 1
    return "\n\n".join(_shortened(part, match.hits) for part in parts[first : last + 1])


def _parts(text: str) -> list[Part]:
    """Blocks between empty lines; an empty line inside a fence belongs to the fence."""
    parts: list[Part] = []
    start, at, fence = 0, 0, ""
    for line in text.splitlines(keepends=True):
        mark, after = FENCE.match(line), at + len(line)
        if fence:
            if line.strip().startswith(fence) and not line.strip(" \t\r\n`~"):
                fence, parts, start = "", [*parts, *_part(text, start, after)], after
        elif mark:
            fence, parts, start = mark[1], [*parts, *_part(text, start, at)], at
        elif not line.strip():
            parts, start = [*parts, *_part(text, start, at)], after
        at = after
    return [*parts, *_part(text, start, at)]


def _part(text: str, start: int, end: int) -> list[Part]:
    block = text[start:end].rstrip()
    if not block:
        return []
    lines = block.splitlines()
    if FENCE.match(lines[0]):
        return [Part(start, block, "code")]
    is_table = len(lines) > 1 and "|" in lines[0] and "-" in lines[1] and RULE.match(lines[1])
    return [Part(start, block, "table" if is_table else "prose")]


def _shortened(part: Part, hits: Sequence[Hit]) -> str:
    if part.kind == "code":
        return _code(part.text)
    if len(part.text) <= QUOTE_CHARS:
        return part.text
    return _rows(part, hits) if part.kind == "table" else _sentences(part, hits)


def _code(text: str) -> str:
    if len(text) <= CODE_CHARS:
        return text
    kept = text[: text.rfind("\n", 0, CODE_CHARS)]
    return f"{kept}\n…\n{text.splitlines()[-1]}"


def _rows(part: Part, hits: Sequence[Hit]) -> str:
    """A table's head and its best rows, in their order."""
    lines = part.text.splitlines(keepends=True)
    starts = _starts(part.at, lines)
    weights = [_weight(hits, start, start + len(line)) for start, line in zip(starts, lines, strict=True)]
    best = sorted(range(2, len(lines)), key=lambda row: -weights[row])[:ROWS]
    return "".join([*lines[:2], *(lines[row] for row in sorted(best) if weights[row] > 0)]).rstrip()


def _sentences(part: Part, hits: Sequence[Hit]) -> str:
    """The run of sentences, about QUOTE_CHARS long, that holds most of the question; of equals, begun by it."""
    ends = [*(found.end() for found in SENTENCE.finditer(part.text)), len(part.text)]
    starts = [0, *ends[:-1]]
    runs = []
    for start, end in zip(starts, ends, strict=True):
        stop = max(end, ends[bisect_right(ends, start + QUOTE_CHARS) - 1])
        at = part.at + start
        runs.append((_weight(hits, at, part.at + stop), _weight(hits, at, part.at + end), -start, stop))
    _, _, start, stop = max(runs)
    return part.text[-start:stop].strip()


def _starts(at: int, pieces: Sequence[str]) -> list[int]:
    starts = []
    for piece in pieces:
        starts.append(at)
        at += len(piece)
    return starts


def _weight(hits: Sequence[Hit], start: int, end: int) -> float:
    """The summed weight of the distinct terms between two places; `hits` are in the order of the text."""
    first, last = (bisect_left(hits, place, key=attrgetter("at")) for place in (start, end))
    return sum({hit.term: hit.weight for hit in hits[first:last]}.values())
