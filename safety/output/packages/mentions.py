"""A package that a line names: what the parsers of commands, manifests and imports hand to the grader."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from conclave.safety.output.packages.ecosystems import LONGEST_NAME, Ecosystem

FILES: Final = (".whl", ".tar.gz", ".zip", ".tgz", ".txt", ".toml", ".lock", ".git")
VERSION: Final = re.compile(r"[v^~]?[0-9]+(?:\.[0-9*x]+)*")
EGG: Final = re.compile(r"[#&]egg=([\w.-]+)")
_WORD: Final = r"[\w][\w.-]*"
NAMES: Final[Mapping[Ecosystem, re.Pattern[str]]] = {  # a name, and what may stand behind it
    Ecosystem.PYPI: re.compile(rf"({_WORD})(?:\[[^\]]*\])?(?:(?:[=~!<>@;]|\s).*)?", re.DOTALL),
    Ecosystem.CONDA: re.compile(rf"(?:[\w-]+::)?({_WORD})(?:\[[^\]]*\])?(?:(?:[=~!<>@;]|\s).*)?", re.DOTALL),
    Ecosystem.NPM: re.compile(r"(?:(?:[\w.-]+@)?npm:)?((?:@[\w.~-]+/)?[\w][\w.~-]*)(?:@[\w.^~*<>=|-]*)?"),
    Ecosystem.GO: re.compile(r"((?:[\w-]+\.)+[\w-]+(?:/[\w.~-]+)+)(?:/?\.\.\.)?(?:@[\w.+-]+)?"),
    Ecosystem.RUBYGEMS: re.compile(rf"({_WORD})(?::[\w.]+)?"),
    Ecosystem.CARGO: re.compile(r"([\w-]+)(?:@[\w.^~*=<>-]+)?"),
    Ecosystem.COMPOSER: re.compile(r"([\w.-]+/[\w.-]+)(?:[:=@].*)?"),
    Ecosystem.NUGET: re.compile(rf"({_WORD})"),
    Ecosystem.DOCKER: re.compile(r"((?:[\w.-]+(?::\d+)?/)*[\w.-]+)(?::[\w.-]+)?(?:@sha256:[0-9a-f]+)?"),
    Ecosystem.BREW: re.compile(r"((?:[\w.-]+/)*[\w.@+-]+)"),
    Ecosystem.APT: re.compile(r"([\w][\w.+-]*)(?:[:=/].*)?"),
}


class Where(Enum):
    """What a name stands in."""

    COMMAND = "command"
    MANIFEST = "manifest"
    IMPORT = "import"


class Sure(IntEnum):
    """How sure it is that something is a package of the ecosystem, and so what may be said of its name."""

    PERHAPS = 0  # that it is on a list of bad ones
    LIKELY = 1  # that it is near a much used one, too
    YES = 2  # that nobody knows it, too


@dataclass(frozen=True, slots=True)
class Mention:
    """A package's name as written, from `start` to `end` of the line.

    `until`: where the sign that made it a package ends, if that stands behind the name. `warned`: the sentence is about
    not installing it.
    """

    ecosystem: Ecosystem
    name: str
    start: int
    end: int
    where: Where = Where.COMMAND
    sure: Sure = Sure.YES
    warned: bool = False
    until: int | None = None


def named(ecosystem: Ecosystem, token: str) -> tuple[str, int] | None:
    """The package that a word of a command names, and where in the word; None for paths, URLs, files and versions."""
    if "://" in token or token.startswith(("git+", "file:", "link:", "workspace:")):
        if ecosystem is Ecosystem.PYPI and (egg := EGG.search(token)):
            return egg[1], egg.start(1)
        if ecosystem is not Ecosystem.PYPI or "@" not in token.partition("://")[0]:
            return None
    if len(token) > 2 * LONGEST_NAME or token.endswith(FILES) or VERSION.fullmatch(token):
        return None
    found = NAMES[ecosystem].fullmatch(token)
    if found is None or len(found[1]) > LONGEST_NAME:
        return None
    return found[1], found.start(1)
