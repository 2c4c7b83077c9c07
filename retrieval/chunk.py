"""Cuts a document into passages that can be found, and quoted, on their own.

A passage never crosses a heading, never cuts a code fence, a table, a quotation or a list item, and keeps paragraphs
whole up to `PARAGRAPH_CHARS`. Its text is a slice of the source, so that what is quoted is the author's words. Markdown
is read by markdown-it-py (CommonMark and tables); in plain text only blank lines count. It knows nothing of files.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from conclave.retrieval.api import HEADING_SEPARATOR, Passage

PASSAGE_CHARS: Final = 1_200  # about 300 tokens: a screenful, and three of them make an answer
SMALL_CHARS: Final = 400  # a passage below this takes in the next block even if that makes it long
PARAGRAPH_CHARS: Final = 2 * PASSAGE_CHARS  # a longer paragraph is no paragraph, but a file without blank lines
NEWLINE: Final = re.compile(r"\r\n?|\n")  # as markdown-it counts lines
BLANK_LINES: Final = re.compile(r"(?:[ \t]*(?:\r\n?|\n)){2,}")
SENTENCE_END: Final = re.compile(r"[.!?][\"')\]]*\s+")
MARKDOWN: Final = (".md", ".markdown")


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a document that is read as one: the characters `start` to `end`, under a path of headings."""

    start: int
    end: int
    heading: tuple[str, ...] = ()
    prose: bool = False  # may be cut between sentences if it is very long


def chunk(text: str, *, source: str) -> list[Passage]:
    """The passages of a document, in order; `source` is its relative path, whose ending says how to read it."""
    blocks = _markdown_blocks(text) if source.lower().endswith(MARKDOWN) else _text_blocks(text)
    pieces = (piece for block in blocks for piece in _cut(block, text))
    return [
        Passage(text[start:end], source, HEADING_SEPARATOR.join(heading), start, end)
        for start, end, heading in _pack(pieces, text)
        if not text[start:end].isspace()
    ]


def _pack(blocks: Iterator[Block], text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Neighbours under one heading, joined while they fit; a line that ends in a colon stays with what it announces."""
    start = end = -1
    heading: tuple[str, ...] = ()
    for block in blocks:
        fits = block.end - start <= PASSAGE_CHARS or end - start < SMALL_CHARS or text[start:end].endswith(":")
        if start >= 0 and heading == block.heading and fits:
            end = block.end
            continue
        if start >= 0:
            yield start, end, heading
        start, end, heading = block.start, block.end, block.heading
    if start >= 0:
        yield start, end, heading


def _cut(block: Block, text: str) -> Iterator[Block]:
    """The block itself, trimmed; or, if it is prose of monstrous length, its sentences in runs of passage length."""
    start, end = _trimmed(text, block.start, block.end)
    while block.prose and end - start > PARAGRAPH_CHARS:
        ends = [found.end() for found in SENTENCE_END.finditer(text, start, start + PASSAGE_CHARS)]
        stop = ends[-1] if ends else max(text.rfind(" ", start, start + PASSAGE_CHARS), start) + 1
        stop = stop if stop > start + 1 else start + PASSAGE_CHARS
        yield Block(*_trimmed(text, start, stop), block.heading)
        start = stop
    if end > start:
        yield Block(start, end, block.heading)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without empty lines around it; the first line keeps its indent, which may be code."""
    end = start + len(text[start:end].rstrip())
    lead = re.compile(r"(?:[ \t]*(?:\r\n?|\n))*").match(text, start, end)
    return (lead.end() if lead else start), end


def _text_blocks(text: str) -> Iterator[Block]:
    start = 0
    for gap in BLANK_LINES.finditer(text):
        yield Block(start, gap.start(), prose=True)
        start = gap.end()
    yield Block(start, len(text), prose=True)


def _markdown_blocks(text: str) -> Iterator[Block]:
    """The leaves that matter: paragraphs, fences, tables, quotations, list items; headings become their path."""
    lines = [0, *(found.end() for found in NEWLINE.finditer(text)), len(text)]
    path: list[tuple[int, str]] = []
    for first, second in _opened(MarkdownIt("commonmark").enable("table").parse(text)):
        if first.type == "heading_open":
            level = int(first.tag[1:])
            path = [above for above in path if above[0] < level] + [(level, _plain(second))]
        elif first.map:
            begin, stop = (lines[min(line, len(lines) - 1)] for line in first.map)
            yield Block(begin, stop, tuple(title for _, title in path), first.type == "paragraph_open")


def _opened(tokens: list[Token]) -> Iterator[tuple[Token, Token]]:
    """Each top-level block's opening token and the token after it; of a list, its items."""
    depths = accumulate((token.nesting for token in tokens), initial=0)
    for place, (token, depth) in enumerate(zip(tokens, depths, strict=False)):
        item = token.type == "list_item_open" and depth == 1
        if token.nesting >= 0 and (item or (depth == 0 and not token.type.endswith("_list_open"))):
            yield token, tokens[min(place + 1, len(tokens) - 1)]


def _plain(inline: Token) -> str:
    """A heading's words without their markup."""
    words = (child.content if child.type in {"text", "code_inline"} else " " for child in inline.children or ())
    return " ".join("".join(words).split())
