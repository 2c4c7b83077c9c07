"""Addresses in a line, taken apart as browsers do: with backslashes, userinfo, and what closes them in Markdown.

Pure and linear. An address that is a template (`http://{host}/`) keeps its braces.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

ADDRESS: Final = re.compile(
    r"""(?i)(?<![\w+.-])(?P<scheme>https?|wss?|ftp):[/\\]{1,}+(?P<rest>[^\s"'<>`^]++)"""
    r"""|(?<=[("'=<\s])[/\\]{2}(?=[\w-]++\.)(?P<relative>[^\s"'<>`^]++)"""
)
BARE: Final = re.compile(
    r"(?i)(?<![\w.@/\\%+=-])(?:[^\W_](?:[\w-]{0,62}[^\W_])?\.)+(?:com|org|net|io|dev|ai|co|app|xyz|info|ru|cloud|"
    r"online|website|tk|icu)(?![\w-]|\.\w|\()"
)
SLASHES: Final = re.compile(r":[/\\]|[/\\]{2}")  # one of them is in each
SCHEMES: Final = frozenset({"http", "https", "ws", "wss", "ftp"})
LONGEST_SCHEME: Final = 5
AUTHORITY: Final = re.compile(r"[^/\\?#|,;]*+")
PATH: Final = re.compile(r"[^?#]*+")
BRACKET: Final = re.compile(r"[()\[\]{}]")
TRAILING: Final = ".,;:!?*_~"
PAIRS: Final = {")": "(", "]": "[", "}": "{"}
MOST: Final = 64  # of a line; what more there are is a list


@dataclass(frozen=True, slots=True)
class Address:
    """An address at `start` to `end` of a line. `host` is as written, `rest` from the path on."""

    start: int
    end: int
    scheme: str
    userinfo: str
    host: str
    rest: str

    @property
    def path(self) -> str:
        path = PATH.match(self.rest)
        return path[0] if path is not None else ""


def addresses(text: str) -> Iterator[Address]:
    """Those that say how they are reached, and those that leave it to the page (`//host/`)."""
    for count, match in enumerate(_matches(text)):
        if count >= MOST:
            return
        group = "rest" if match["rest"] is not None else "relative"
        rest = _closed(match[group])
        authority = AUTHORITY.match(rest)
        said = authority[0] if authority is not None else ""
        userinfo, _, place = said.rpartition("@")
        if not place and not said:
            continue
        yield Address(
            match.start(),
            match.start(group) + len(rest),
            (match["scheme"] or "").lower(),
            userinfo,
            unquote(_host(place)),
            rest[len(said) :],
        )


def _matches(text: str) -> Iterator[re.Match[str]]:
    """What `ADDRESS.finditer` finds; it tries each character, which takes five times as long."""
    over = 0
    for slashes in SLASHES.finditer(text):
        starts = [at := slashes.start()]
        if text[at] == ":":
            said = text[max(over, at - LONGEST_SCHEME) : at].lower()
            starts = [at - size for size in range(2, len(said) + 1) if said[-size:] in SCHEMES]
        for start in starts:
            if start >= over and (match := ADDRESS.match(text, start)) is not None:
                over = match.end()
                yield match
                break


def bare_hosts(text: str) -> Iterator[re.Match[str]]:
    """Names of hosts that stand alone (`api.openai.com`); only those with an ending that code seldom has."""
    return BARE.finditer(text)


def _host(place: str) -> str:
    """Without the port."""
    if place.startswith("["):
        return place.partition("]")[0] + "]"
    return place.partition(":")[0]


def _closed(text: str) -> str:
    """Without what belongs to the sentence or to the link around it."""
    depth = dict.fromkeys(PAIRS.values(), 0)
    for match in BRACKET.finditer(text):
        sign = match[0]
        if sign in depth:
            depth[sign] += 1
        elif depth[PAIRS[sign]]:
            depth[PAIRS[sign]] -= 1
        else:
            text = text[: match.start()]
            break
    return text.rstrip(TRAILING)
