r"""Where the lines and fenced blocks of an answer begin and end: by CommonMark, as far as an answer is read that way.

A fence may be indented and stand in lists and quotations at any depth; a block in it with other fences is its text; one
that is never closed goes to the end of the answer. Lines end with \n, \r\n, \r, U+0085, U+2028 and U+2029. Pure
functions, linear in the line.
"""

import re
from dataclasses import dataclass
from typing import Final

LINE_END: Final = re.compile("\r\n|[\n\r\u0085\u2028\u2029]")
MOST_LINES: Final = 8  # of one logical line: real commands have fewer
MOST_CHARS: Final = 1_024  # of it, from which on nothing continues it
FENCE_CHARS: Final = 512  # of a line that can be a fence

_NESTED: Final = r"[ \t>]*+(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t>]++)*+"
OPENING: Final = re.compile(_NESTED + r"(?P<fence>`{3,}+(?=[^`]*$)|~{3,}+)[ \t]*+(?P<info>.*)", re.DOTALL)
CLOSING: Final = re.compile(r"[ \t>]*+(?P<fence>`{3,}+|~{3,}+)[ \t]*+")
LANGUAGE: Final = re.compile(r"[^\s{},:=.]+")
TAG_START: Final = re.compile(r"[A-Za-z/!?]")


@dataclass(frozen=True, slots=True)
class Fence:
    """How a block was opened: the character, how many of them at least close it, and what it says it holds."""

    mark: str
    size: int
    language: str = ""


BARE: Final = Fence("", 0)  # of a text that is a block as a whole: no line closes it


def opened(line: str) -> Fence | None:
    """The fence that a line opens."""
    if len(line) > FENCE_CHARS or ("```" not in line and "~~~" not in line):
        return None
    found = OPENING.match(line)
    if found is None:
        return None
    language = LANGUAGE.search(found["info"])
    return Fence(found["fence"][0], len(found["fence"]), language[0].lower() if language else "")


def closes(line: str, fence: Fence) -> bool:
    """Whether a line ends the block."""
    if not fence.size or len(line) > FENCE_CHARS or 3 * fence.mark not in line:
        return False
    found = CLOSING.fullmatch(line)
    return found is not None and found["fence"][0] == fence.mark and len(found["fence"]) >= fence.size


def goes_on(line: str, *, code: bool) -> bool:
    """Whether a logical line, so far, is continued by the next line."""
    last = line[-1:]
    if not last or last.isspace():
        line = line.rstrip(" \t")
        if not line:
            return False
        last = line[-1]
    if last in "\\`^|&" and _ends_open(line, last, code=code):
        return True
    if (at := line.rfind("<")) >= 0 and line.find(">", at) < 0 and TAG_START.match(line, at + 1):
        return True
    return not code and "[" in line and _link_is_open(line)


def _ends_open(line: str, last: str, *, code: bool) -> bool:
    if last == "\\":
        return (len(line) - len(line.rstrip("\\"))) % 2 == 1
    if last in "`^":
        return line[-2:-1].isspace()
    return code and (last == "|" or line.endswith("&&"))


def _link_is_open(line: str) -> bool:
    """`[text`, `[text](address`, or `[label]:` whose address is on the next line."""
    closed = line.rfind("]")
    if line.rfind("[") > closed:
        return True
    if line.startswith("(", closed + 1):
        return line.find(")", closed) < 0
    return line.endswith("]:")
