"""Code that a page or a program fetches from a public network of copies: which package, of which version.

An exact version never changes there. A tag (`latest`), a range, a branch or nothing at all is whatever somebody
publishes next.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Pin: TypeAlias = Literal["exact", "range", "none"]
NETWORKS: Final = {  # host: how its paths are built
    "cdn.jsdelivr.net": "jsdelivr",
    "fastly.jsdelivr.net": "jsdelivr",
    "gcore.jsdelivr.net": "jsdelivr",
    "testingcf.jsdelivr.net": "jsdelivr",
    "esm.run": "npm",
    "unpkg.com": "npm",
    "npmcdn.com": "npm",
    "esm.sh": "esm",
    "esm.unpkg.com": "npm",
    "cdn.esm.sh": "esm",
    "cdn.skypack.dev": "esm",
    "cdn.pika.dev": "esm",
    "jspm.dev": "npm",
    "ga.jspm.io": "jspm",
    "cdn.statically.io": "statically",
    "cdnjs.cloudflare.com": "libs",
    "ajax.googleapis.com": "libs",
    "ajax.aspnetcdn.com": "files",
    "code.jquery.com": "files",
    "maxcdn.bootstrapcdn.com": "files",
    "stackpath.bootstrapcdn.com": "files",
    "netdna.bootstrapcdn.com": "files",
    "cdn.bootcdn.net": "libs",
    "cdn.bootcss.com": "files",
    "lib.baomitu.com": "files",
    "cdn.staticfile.org": "files",
    "cdn.tailwindcss.com": "root",
    "deno.land": "deno",
}
EXACT: Final = re.compile(r"v?\d+\.\d+\.\d+(?:[-+.]?[\w.-]*)?|[0-9a-f]{40}")
RANGE: Final = re.compile(r"[v~^]?\d+(?:\.(?:\d+|x))?(?:\.x)?")
NUMBER: Final = re.compile(r"\d+\.\d+")
PACKAGE: Final = re.compile(r"(?:v\d+/|stable/|pin/|npm:)?\*?((?:@[\w.-]+/)?[\w.-]+)(?:@([^/?#,]+))?")
REPOSITORY: Final = re.compile(r"([\w.-]+)/([\w.-]+?)(?:@([^/?#,]+))?(?=[/?#,]|$)")
LATEST: Final = re.compile(r"(?i)(?:^|[-/.@])latest(?:[-/.@]|$)")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is fetched. `owner` is whose repository it is from, empty for a package of a registry."""

    name: str
    pin: Pin
    owner: str = ""


def fetched(host: str, rest: str) -> list[Fetched]:  # noqa: PLR0911  one way for each kind of network
    """What an address fetches from a network of copies; nothing for another host, or for its front page."""
    style = NETWORKS.get(host)
    path = rest.lstrip("/\\")
    if style is None or (not path.strip("?#") and style != "root"):
        return []
    match style:
        case "jsdelivr":
            return _jsdelivr(path)
        case "npm":
            return _package(path)
        case "esm" | "jspm":
            return _repository(path[3:]) if path.startswith("gh/") else _package(path)
        case "statically":
            return _statically(path)
        case "deno":
            return [_of(path[2:])] if path.startswith("x/") else []
        case "root":
            return [Fetched(host, "range" if not NUMBER.search(path) else "exact")]
        case _:
            pin: Pin = "none" if LATEST.search(path) else "exact" if NUMBER.search(path) else "none"
            return [Fetched(path.split("?")[0], pin)] if "." in path else []


def _jsdelivr(path: str) -> list[Fetched]:
    kind, _, behind = path.partition("/")
    match kind:
        case "npm":
            return _package(behind)
        case "gh":
            return _repository(behind)
        case "wp":
            trunk = "trunk" in behind or not (NUMBER.search(behind) or "@" in behind)
            return [Fetched(behind.split("?")[0], "none" if trunk else "exact")]
        case "combine":
            return [one for part in behind.split(",")[:32] for one in _jsdelivr(part.lstrip("/"))]
        case _:
            return []


def _statically(path: str) -> list[Fetched]:
    kind, _, behind = path.partition("/")
    if kind in ("gh", "gl", "bb"):
        parts = behind.split("/")
        if len(parts) < 2:  # noqa: PLR2004  owner and repository
            return []
        branch = parts[2] if len(parts) > 2 else ""  # noqa: PLR2004
        return [Fetched("/".join(parts[:2]), _pin(branch), parts[0])]
    return [Fetched(behind, "exact" if NUMBER.search(behind) else "none")] if kind == "libs" else []


def _package(path: str) -> list[Fetched]:
    return [_of(path)] if PACKAGE.match(path) else []


def _of(path: str) -> Fetched:
    match = PACKAGE.match(path)
    return Fetched(match[1], _pin(match[2] or "")) if match is not None else Fetched(path, "none")


def _repository(path: str) -> list[Fetched]:
    match = REPOSITORY.match(path)
    return [Fetched(f"{match[1]}/{match[2]}", _pin(match[3] or ""), match[1])] if match is not None else []


def _pin(version: str) -> Pin:
    if EXACT.fullmatch(version):
        return "exact"
    return "range" if RANGE.fullmatch(version) else "none"
