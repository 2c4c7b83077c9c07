"""The texts of an HTML page, in blocks; what styles, comments and attributes keep from its readers is not shown.

Styles count where they stand at the element; sheets and scripts are not run, so what they hide counts as shown.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Final

from conclave.retrieval.blocks import Block, Caps, decoded

INLINE: Final = frozenset(
    {
        "a",
        "abbr",
        "b",
        "cite",
        "code",
        "em",
        "font",
        "i",
        "mark",
        "q",
        "s",
        "small",
        "span",
        "strong",
        "sub",
        "sup",
        "tt",
        "u",
    }
)
VOID: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
SPOKEN: Final = ("alt", "title", "aria-label", "placeholder", "content", "value", "summary", "label")
UNSEEN_TAGS: Final = frozenset({"script", "style", "template", "noscript", "title", "head"})
UNSEEN_STYLE: Final = re.compile(
    r"display:none|visibility:hidden|opacity:0(?:\.0+)?(?:;|$)|font-size:0|(?:left|top|text-indent):-\d{3,}|clip:rect\(0"
)
SPACES: Final = re.compile(r"\s+")


def html(data: bytes, _: Caps) -> Iterator[Block]:
    page = Page()
    page.feed(decoded(data))
    page.close()
    page.turn()
    yield from page.blocks


class Page(HTMLParser):
    """The texts of an HTML page; what styles, comments and attributes keep from its readers is not shown."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._said: list[str] = []
        self._open: list[tuple[str, bool]] = []  # elements, and whether they hide what is in them
        self._unseen = 0
        self._line = 1
        self._level = 0  # of the heading that is open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        if tag not in INLINE:
            self.turn()
        for name in SPOKEN:
            if known.get(name):
                self._aside(known[name])
        if tag not in VOID:
            style = SPACES.sub("", known.get("style", "")).lower()
            hides = tag in UNSEEN_TAGS or "hidden" in known or bool(UNSEEN_STYLE.search(style))
            if hides:
                self.turn()
            self._open.append((tag, hides))
            self._unseen += hides
            if tag in HEADINGS:
                self._level = HEADINGS[tag]

    def handle_endtag(self, tag: str) -> None:
        if all(tag != one for one, _ in self._open[-256:]):
            return
        hid = False
        while self._open:
            one, hides = self._open.pop()
            hid |= hides
            if hides:
                self.turn()
                self._unseen -= 1
            if one == tag:
                break
        if tag not in INLINE or hid:
            self.turn()
        if tag in HEADINGS:
            self._level = 0

    def handle_data(self, data: str) -> None:
        if not self._said:
            self._line = self.getpos()[0]
        self._said.append(data)

    def handle_comment(self, data: str) -> None:
        self._aside(data)

    def handle_decl(self, decl: str) -> None:
        if not decl.lower().startswith("doctype"):
            self._aside(decl)

    def unknown_decl(self, data: str) -> None:
        self._aside(data)

    def handle_pi(self, data: str) -> None:
        self._aside(data)

    def turn(self) -> None:
        """The end of a paragraph."""
        text = SPACES.sub(" ", "".join(self._said)).strip()
        self._said.clear()
        if text:
            self.blocks.append(Block(text, line=self._line, shown=not self._unseen, level=self._level))

    def _aside(self, text: str) -> None:
        self.blocks.append(Block(SPACES.sub(" ", text).strip(), line=self.getpos()[0], shown=False))
