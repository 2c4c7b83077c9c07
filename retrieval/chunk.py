"""Cuts a document into passages that can be found, and quoted, on their own.

A passage never crosses a heading, never cuts a code fence, a table, a quotation or a list item unless it is longer than
`Size.block_chars`, and keeps paragraphs whole up to twice a passage. Its text is a slice of the source, so that what is
quoted is the author's words. Markdown is read by markdown-it-py (CommonMark and tables); of source code, definitions at
the margin begin blocks; in plain text only blank lines count. It knows nothing of files.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, TypeAlias

from markdown_it import MarkdownIt
from markdown_it.token import Token

from conclave.retrieval.api import HEADING_SEPARATOR, Passage

PASSAGE_CHARS: Final = 1_200  # about 300 tokens: a screenful, and three of them make an answer
SMALL_CHARS: Final = 400  # a passage below this takes in the next block even if that makes it long
PARAGRAPH_CHARS: Final = 2 * PASSAGE_CHARS  # a longer paragraph is no paragraph, but a file without blank lines
TOKEN_BYTES: Final = 4  # of UTF-8: English has about 4 in a token of today's models, Russian 2 characters, Chinese 1.3
BLOCK_PASSAGES: Final = 4  # a code fence or table longer than so many passages is cut between lines
NEWLINE: Final = re.compile(r"\r\n?|\n")  # as markdown-it counts lines
BLANK_LINES: Final = re.compile(r"(?:[ \t]*(?:\r\n?|\n)){2,}")
SENTENCE_END: Final = re.compile(r"[.!?][\"')\]]*\s+")
PAUSE: Final = re.compile(r"[.!?][\"')\]]*\s+|\n")
Span: TypeAlias = tuple[int, int, tuple[str, ...]]
MARKDOWN: Final = (".md", ".markdown")
MODIFIERS: Final = (
    "export|default|public|private|protected|internal|static|final|abstract|async|pub(?:\\([a-z]+\\))?|unsafe|override|data|"
    "sealed|inline|extern|virtual|open"
)
DEFINITION: Final = re.compile(  # at the margin; at last C and its like: a type, a name, arguments
    rf"(?:(?:{MODIFIERS})[ ]+)*"
    r"(?:def|class|function\*?|func|fn|interface|struct|enum|trait|impl|type|module|namespace|object|record|protocol|"
    r"CREATE|create|sub|macro_rules!|const|let|var)[ ]+(?P<name>\(?[^\s({:;=<]{1,80})"
    r"|(?P<other>[A-Za-z_][\w:<>*&\[\], ]{0,80}[ *&][\w:~]{1,80})\([^;]{0,400}$"
)
LEADS: Final = ("@", "#[", "///", "/**", "//", "#", "--", " *", "*/", "template")  # lines that belong to what follows


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a document that is read as one: the characters `start` to `end`, under a path of headings."""

    start: int
    end: int
    heading: tuple[str, ...] = ()
    prose: bool = False  # may be cut between sentences if it is very long


@dataclass(frozen=True, slots=True)
class Size:
    """How long a passage should be, how much of the one before it repeats, and what no block may exceed (0: any)."""

    passage_chars: int = PASSAGE_CHARS
    overlap_chars: int = 0
    block_chars: int = 0

    @classmethod
    def of_tokens(cls, text: str, *, tokens: int, overlap: int) -> "Size":
        """For passages of so many tokens of this text."""
        size = len(text.encode("utf-8", "replace"))
        chars = max(1, round(tokens * TOKEN_BYTES * len(text) / size)) if size else tokens
        return cls(chars, chars * overlap // tokens, chars * BLOCK_PASSAGES)


DEFAULT: Final = Size()


def chunk(text: str, *, source: str) -> list[Passage]:
    """The passages of a document, in order; `source` is its relative path, whose ending says how to read it."""
    blocks = markdown_blocks(text) if source.lower().endswith(MARKDOWN) else text_blocks(text)
    return passages(text, blocks, source=source)


def passages(text: str, blocks: Iterable[Block], *, source: str, size: Size = DEFAULT) -> list[Passage]:
    """The blocks of a text as passages."""
    pieces = (piece for block in blocks for piece in _cut(block, text, size))
    spans = [span for span in _pack(pieces, text, size) if not text[span[0] : span[1]].isspace()]
    if size.overlap_chars:
        spans = _overlapped(spans, text, size.overlap_chars)
    return [
        Passage(text[start:end], source, HEADING_SEPARATOR.join(heading), start, end) for start, end, heading in spans
    ]


def _overlapped(spans: list[Span], text: str, most: int) -> list[Span]:
    """Each span begins with the last sentences or lines of the one before it, if both stand under one heading."""
    found = spans[:1]
    for before, (start, end, heading) in pairwise(spans):
        begin = start
        if heading == before[2]:
            first = max(before[0] + 1, start - most)
            ends = [cut.end() for cut in PAUSE.finditer(text, first, start) if cut.end() < start]
            begin = ends[0] if ends else start
        found.append((begin, end, heading))
    return found


def _pack(blocks: Iterator[Block], text: str, size: Size) -> Iterator[Span]:
    """Neighbours under one heading, joined while they fit; a line that ends in a colon stays with what it announces."""
    start = end = -1
    small = size.passage_chars * SMALL_CHARS // PASSAGE_CHARS
    heading: tuple[str, ...] = ()
    for block in blocks:
        fits = block.end - start <= size.passage_chars or end - start < small or text[start:end].endswith(":")
        if size.block_chars and block.end - start > size.block_chars:
            fits = False
        if start >= 0 and heading == block.heading and fits:
            end = block.end
            continue
        if start >= 0:
            yield start, end, heading
        start, end, heading = block.start, block.end, block.heading
    if start >= 0:
        yield start, end, heading


def _cut(block: Block, text: str, size: Size) -> Iterator[Block]:
    """The block itself, trimmed; or, if it is prose of monstrous length, its sentences in runs of passage length."""
    start, end = _trimmed(text, block.start, block.end)
    most = 2 * size.passage_chars if block.prose else size.block_chars
    pause = SENTENCE_END if block.prose else NEWLINE
    while most and end - start > most:
        ends = [found.end() for found in pause.finditer(text, start, start + size.passage_chars)]
        stop = ends[-1] if ends else max(text.rfind(" ", start, start + size.passage_chars), start) + 1
        stop = stop if stop > start + 1 else start + size.passage_chars
        yield Block(*_trimmed(text, start, stop), block.heading)
        start = stop
    if end > start:
        yield Block(start, end, block.heading)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without empty lines around it; the first line keeps its indent, which may be code."""
    end = start + len(text[start:end].rstrip())
    lead = re.compile(r"(?:[ \t]*(?:\r\n?|\n))*").match(text, start, end)
    return (lead.end() if lead else start), end


def text_blocks(text: str) -> Iterator[Block]:
    """Paragraphs: what stands between blank lines."""
    start = 0
    for gap in BLANK_LINES.finditer(text):
        yield Block(start, gap.start(), prose=True)
        start = gap.end()
    yield Block(start, len(text), prose=True)


def markdown_blocks(text: str) -> Iterator[Block]:
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


def code_blocks(text: str) -> Iterator[Block]:
    """Definitions at the margin, each under its name and with the comments above it; what is before them is prose."""
    heading: tuple[str, ...] = ()
    start = at = 0
    lead = -1  # where the comments and decorators begin that stand right above
    for line in text.splitlines(keepends=True):
        found = DEFINITION.match(line) if not line[0].isspace() else None
        if found is not None:
            begin = lead if lead >= 0 else at
            if begin > start:
                yield Block(start, begin, heading)
            start, heading = begin, ((found["name"] or found["other"]).split()[-1].lstrip("(*&"),)
        lead = (lead if lead >= 0 else at) if line.startswith(LEADS) else -1
        at += len(line)
    yield Block(start, len(text), heading)


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
