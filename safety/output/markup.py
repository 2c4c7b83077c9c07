"""What an address is in the Markdown, HTML or CSS around it: a picture that is fetched at once, a link, a script.

It reads what stands before the address in its line, not the whole page; what it does not know is plain text.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Role: TypeAlias = Literal["text", "link", "fetched", "script", "style", "form", "definition", "import", "hint"]
BEFORE: Final = 1_024  # characters of a line that are looked at before an address
NAME: Final = re.compile(r"<\s*([a-zA-Z][\w:-]*)")
ATTRIBUTE: Final = re.compile(r"([\w:-]+)\s*$")
REL: Final = re.compile(r"""(?i)\brel\s*=\s*["']?([\w\s-]+)""")
DEFINITION: Final = re.compile(r"^\s*\[[^\]]{1,200}\]:\s*<?\s*$")
QUOTES: Final = frozenset("\"'`")
IMPORT: Final = re.compile(
    r"""(?:\bfrom\s*|\bimport\s*\(?\s*|\bimportScripts\s*\(\s*|\brequire\s*\(\s*|\bimport\s+[^;]{0,200}\bfrom\s*)["'`]$"""
)
FETCHES: Final = {  # elements and the attributes whose address a browser fetches unasked
    "img": {"src", "srcset", "data-src", "lowsrc", "longdesc", "dynsrc"},
    "image": {"href", "xlink:href", "src"},
    "use": {"href", "xlink:href"},
    "feimage": {"href", "xlink:href"},
    "source": {"src", "srcset"},
    "video": {"src", "poster"},
    "audio": {"src"},
    "track": {"src"},
    "iframe": {"src", "srcdoc"},
    "frame": {"src"},
    "embed": {"src"},
    "object": {"data", "classid", "codebase"},
    "applet": {"code", "codebase", "archive"},
    "input": {"src"},
    "body": {"background"},
    "table": {"background"},
    "td": {"background"},
    "th": {"background"},
    "tr": {"background"},
    "bgsound": {"src"},
    "meta": {"content"},
    "base": {"href"},
    "portal": {"src"},
    "html": {"manifest"},
    "picture": {"src"},
    "button": {"formaction"},
}
HINTS: Final = frozenset({"preconnect", "dns-prefetch", "canonical", "alternate", "author", "license", "help", "me"})
STYLES: Final = frozenset({"stylesheet", "modulepreload"})


@dataclass(frozen=True, slots=True)
class Around:
    """What an address is; `start` is where its element or link begins, `tag` the text of its HTML tag so far."""

    role: Role
    start: int
    tag: str = ""


def around(text: str, at: int) -> Around:  # noqa: PLR0911  the first that fits counts
    """What the address at `at` is."""
    first = max(0, at - BEFORE)
    before = text[first:at]
    bare = before.rstrip()
    if bare.endswith("<"):
        bare = bare[:-1].rstrip()
    if bare.endswith("]("):
        return _markdown(bare, first)
    opened = before.rfind("<")
    if opened >= 0 and before.find(">", opened) < 0 and (named := NAME.match(before, opened)) is not None:
        return _element(text, first + opened, named[1].lower(), before[opened:])
    if _in_css(bare):
        return Around("fetched", at)
    if before[-1:] in QUOTES and IMPORT.search(before[-256:]) is not None:
        return Around("import", at)
    if not first and "]:" in before and DEFINITION.match(before) is not None:
        return Around("definition", at)
    if before.endswith("<"):
        return Around("link", at - 1)
    return Around("text", at)


def _in_css(bare: str) -> bool:
    said = bare.rstrip("\"'").rstrip().lower()
    return said.endswith(("url(", "@import", "image-set(", "-image:", "src("))


def _markdown(before: str, first: int) -> Around:
    """`[text](` or `![text](`: an image in a link is an image."""
    depth = 0
    for at in range(len(before) - 2, -1, -1):
        if before[at] == "]":
            depth += 1
        elif before[at] == "[":
            depth -= 1
            if not depth:
                if at and before[at - 1] == "!":
                    return Around("fetched", first + at - 1)
                return Around("link", first + at)
    return Around("link", first + len(before) - 2)


def _element(text: str, start: int, name: str, before: str) -> Around:  # noqa: PLR0911  the first that fits counts
    closed = text.find(">", start + len(before))
    tag = text[start : closed + 1] if closed >= 0 else text[start:]
    attribute = _attribute(before)
    if name == "script":
        return Around("script", start, tag)
    if name in ("form", "isindex") or attribute in ("formaction", "action"):
        return Around("form", start, tag)
    if name == "link":
        rel = REL.search(tag)
        kinds = frozenset(rel[1].lower().split()) if rel is not None else frozenset()
        role: Role = "style" if kinds & STYLES else "hint" if kinds & HINTS else "fetched"
        return Around(role, start, tag)
    if attribute == "style" or attribute in FETCHES.get(name, ()):
        return Around("fetched", start, tag)
    if attribute.startswith("on"):
        return Around("fetched", start, tag)
    if attribute.startswith("xmlns") or attribute.endswith("schemalocation"):
        return Around("hint", start, tag)
    return Around("link", start, tag)


def _attribute(before: str) -> str:
    """The attribute in whose value a tag's text ends."""
    quote = max(before.rfind('="'), before.rfind("='"))
    if quote < 0:
        quote = before.rfind("=")
    if quote < 0:
        spaced = re.search(r"""([\w:-]+)\s*=\s+["'][^"']*$""", before)
        return spaced[1].lower() if spaced else ""
    named = ATTRIBUTE.search(before[:quote])
    return named[1].lower() if named else ""
