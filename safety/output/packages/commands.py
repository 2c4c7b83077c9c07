"""Commands that install packages, wherever they stand: in a fence, after a prompt, in a string, in a sentence.

A table of tools, one scanner. In a sentence that is not marked as code only the words that can be names count, so that
"run npm install to install the packages" names none. It never says whether a package is good.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Final

from conclave.safety.output.packages.ecosystems import Ecosystem
from conclave.safety.output.packages.mentions import Mention, named
from conclave.safety.output.packages.reading import Line
from conclave.safety.output.packages.tools import NAMING, PROGRAMS, TOOLS, VALUED
from conclave.safety.output.packages.vocabulary import vocabulary

if TYPE_CHECKING:
    from re2 import Set

MOST_MENTIONS: Final = 200  # of a line
MOST_COMMANDS: Final = 50
COMMAND_CHARS: Final = 4_096  # of one command; what policy shows a check at once has 1,024 at most
BEGIN: Final = r"(?<![\w@.-])"
END: Final = r"(?![\w-])"


PROGRAM: Final = re.compile(BEGIN + "(?:" + "|".join(PROGRAMS) + ")", re.IGNORECASE)
PLAIN_PROGRAM: Final = re.compile("|".join(PROGRAMS))  # of a text in lower case: a fifth of the time
HEAD: Final = re.compile(
    BEGIN + "(?:" + "|".join(f"(?P<t{at}>{tool.words})" for at, tool in enumerate(TOOLS)) + ")" + END, re.IGNORECASE
)
SHELLS: Final = frozenset(
    {"", "bash", "sh", "shell", "zsh", "fish", "console", "shell-session", "shellsession", "terminal", "cmd", "bat"}
    | {
        "batch",
        "powershell",
        "ps1",
        "pwsh",
        "dockerfile",
        "docker",
        "makefile",
        "yaml",
        "yml",
        "text",
        "txt",
        "plaintext",
    }
)
LEAD: Final = re.compile(r"""(?:["'`!%(;&|{]|-m|sudo|RUN)\s*$""")  # before a command in a string
STOP: Final = re.compile(  # what stands between quotation marks stops nothing
    r"""(?<=[\s=,\[])(?:"[^"\n`]*"|'[^'\n`]*')(?=[\s,\])]|$)|(?P<stop>[;|`\n\r()]|&&|\s&|&\s|\s#|\s>(?!=)|\s<(?=\s))"""
)
STOP_SIGN: Final = re.compile(r"[;|`\n\r()&#<>]")  # one of them is in each stop
OPENING: Final = "\"'[(,\\"
CLOSED: Final = re.compile(r"""[^"'\[]["'][\\,)\]}.:;!?]*$""")
TOKEN: Final = re.compile(r"\S+")
PROMPT: Final = re.compile(
    r"[\s>$#%!*+\-]*(?:sudo\s+(?:-\w+\s+)*|python[\d.]*\s+-m\s+|py\s+(?:-[\d.]+\s+)?-m\s+|RUN\s+)*", re.IGNORECASE
)
SENTENCE: Final = re.compile(r"[.!?:]\s")
WARNED: Final = re.compile(
    r"""\b(?:do\snot|do\s?n['\u2019]t|never|avoid|must\snot|mustn['\u2019]t|should\snot|shouldn['\u2019]t|not\sto|cannot
    |stop\susing|instead\sof|rather\sthan|beware|malicious|malware|typo-?squat\w*|hallucinated|does\snot\sexist
    |doesn['\u2019]t\sexist|non-?existent|fake|not\sthe\ssame\sas|not\sbe\sconfused|mistaken\sfor)\b""",
    re.IGNORECASE | re.VERBOSE,
)
WARNED_CHARS: Final = 160  # before the command and after it
NAMEY: Final = re.compile(r"[\d@/\[=_]|[^\W\d_]-[^\W\d_]")


def mentions(line: Line) -> Iterator[Mention]:
    """The packages that the line's commands name."""
    if not _any_tool().Match(line.text.encode("utf-8", "replace")):
        return
    found = 0
    for _, head in zip(range(MOST_COMMANDS), _heads(line.text), strict=False):
        at = int(str(head.lastgroup)[1:])
        bare = _is_said(line, head.start())
        reach = min(len(line.text), head.end() + COMMAND_CHARS)
        end = reach
        if STOP_SIGN.search(line.text, head.end(), reach) is not None:
            stops = STOP.finditer(line.text, head.end(), reach)
            end = next((stop.start() for stop in stops if stop["stop"]), reach)
        warned = not line.code and _is_warned(line.text, head.start(), end)
        for start, token in _packages(line.text[:end], head, at, bare=bare):
            name = named(TOOLS[at].ecosystem, token)
            if name is None:
                continue
            found += 1
            if found > MOST_MENTIONS:
                return
            said, offset = name
            first, last = start + offset, start + offset + len(said)
            said = _created(said) if TOOLS[at].creates else said
            yield Mention(TOOLS[at].ecosystem, said, first, last, warned=warned)


def _heads(text: str) -> Iterator[re.Match[str]]:
    """The beginnings of commands: a program's name, and what tells it to install."""
    over = 0
    programs = PLAIN_PROGRAM.finditer(text.lower()) if text.isascii() else PROGRAM.finditer(text)
    for found in programs:  # HEAD looks at what stands before a name, too
        if found.start() >= over and (head := HEAD.match(text, found.start())) is not None:
            over = head.end()
            yield head


def _is_said(line: Line, start: int) -> bool:
    """Whether a command stands in a sentence: in prose where no backtick is open, in programs within comments."""
    if not line.code:
        return line.text.count("`", 0, start) % 2 == 0
    if line.language in SHELLS or LEAD.search(line.text, max(0, start - 12), start):
        return False
    return PROMPT.fullmatch(line.text, 0, start) is None


@cache
def _any_tool() -> "Set":
    """Whether any tool is named at all: twenty times faster than to look for each command."""
    import re2  # noqa: PLC0415  20 ms, and only where a policy looks at answers

    found = re2.Set.SearchSet()
    found.Add(r"(?i)\b(?:" + "|".join(map(re.escape, PROGRAMS)) + ")")
    found.Compile()
    return found


def _packages(text: str, head: re.Match[str], at: int, *, bare: bool) -> Iterator[tuple[int, str]]:
    """The words of a command that can be packages. `bare`: it stands in a sentence, not marked as code."""
    whole_line = bool(PROMPT.fullmatch(text, 0, head.start()))
    takes_value = names_next = by_flag = quoted = False
    first = True
    begin = head.end() + (text[head.end() : head.end() + 1] in {'"', "'"})  # `"pip", "install", "x"`
    for match in TOKEN.finditer(text, begin):
        start, token, last = _stripped(match, bare=bare)
        within = quoted  # one that a quotation mark opens has the name in its first word
        if '"' in match[0] or "'" in match[0]:
            quoted ^= match[0].count('"') % 2 == 1 or match[0].count("'") % 2 == 1
        if token.startswith("-") and len(token) > 1:
            takes_value, names_next, value = _flag(token, at)
            by_flag |= names_next or bool(value)
            if value:
                yield start + len(token) - len(value), value
        elif takes_value or names_next:
            if names_next:
                yield start, token
            takes_value = names_next = False
        elif by_flag and TOOLS[at].one:  # `uvx --from x y`: y is a command of x
            return
        elif token and not TOOLS[at].by_flag and not within:
            if bare and (token.lower() in vocabulary().prose or not (first or whole_line or NAMEY.search(token))):
                return
            yield start, token
            first = False
            if TOOLS[at].one:
                return
        if last or (quoted and not within and CLOSED.search(match[0])):  # the string that the command stands in
            return


def _flag(token: str, at: int) -> tuple[bool, bool, str]:
    """Whether a value follows a flag, whether a package does, and the package that it names itself."""
    flag, _, value = token.partition("=")
    if flag in NAMING[at]:
        return False, not value, value
    flag = flag.lower() if TOOLS[at].ecosystem is Ecosystem.NUGET else flag
    return flag in VALUED[at] and not value, False, ""


def _stripped(match: re.Match[str], *, bare: bool) -> tuple[int, str, bool]:
    """A word without what is around it, and whether it ends the command: in a sentence a sign of its own does."""
    token = match[0].lstrip(OPENING)
    start = match.end() - len(token)
    plain = token.rstrip("\"'),}\\")
    if bare:
        plain = plain.rstrip(".,:;!?*\"')")
    if "[" not in plain:
        plain = plain.rstrip("]\"'")
    return start, plain, bare and token[len(plain) :].strip("\"'") != ""


def _is_warned(text: str, start: int, end: int) -> bool:
    """Whether the sentence around a command is about not doing it."""
    before, after = max(0, start - WARNED_CHARS), end + WARNED_CHARS
    for found in SENTENCE.finditer(text, before, start):
        if found[0][0] != ":":  # `Never do this: pip install x`
            before = found.end()
    over = SENTENCE.search(text, end, after)
    return bool(WARNED.search(text, before, start) or WARNED.search(text, end, over.start() if over else after))


def _created(name: str) -> str:
    """What `npm create` fetches: `vite` is create-vite, `@acme/app` is @acme/create-app."""
    scope, slash, rest = name.rpartition("/")
    return f"{scope}{slash}create-{rest}"
