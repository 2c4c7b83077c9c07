"""The packages that a lockfile or an SBOM names: what somebody uses already. Versions do not count.

The file's name says what it is, as its tool writes it; a JSON file of another name must be a CycloneDX or SPDX
document. A file is read whole and within bounds; what is wrong with it is a ValueError that says what was expected.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import msgspec

from conclave.safety.output.packages.ecosystems import LONGEST_NAME, Ecosystem, canonical

MOST_BYTES: Final = 16 * 2**20
MOST_NAMES: Final = 50_000
Found: TypeAlias = Iterator[tuple[Ecosystem, str]]

REQUIREMENT: Final = re.compile(r"^[ \t]*([A-Za-z0-9][\w.-]*)(?:\[[^\]\n]*\])?[ \t]*(?:[=~!<>@;#\\]|$)", re.MULTILINE)
YARN: Final = re.compile(r'(?:^|, )"?((?:@[\w.~-]+/)?[\w.~-]+)@', re.MULTILINE)
PNPM: Final = re.compile(r"^  ['\"]?/?((?:@[\w.~-]+/)?[\w.~-]+)[@/][0-9][^\n]*:[ \t]*(?:\{\}[ \t]*)?$", re.MULTILINE)
GO_SUM: Final = re.compile(r"^([\w.-]+\.[\w.-]+(?:/[\w.~-]+)*) v\S+ h1:", re.MULTILINE)
GEM: Final = re.compile(r"^    ([\w.-]+) \(", re.MULTILINE)
NODE_MODULE: Final = re.compile(r"(?:^|/)node_modules/((?:@[^/]+/)?[^/]+)$")
PURL: Final = re.compile(r"pkg:([a-z]+)/([^@?#]+)")
PURL_TYPES: Final[Mapping[str, Ecosystem]] = {
    "pypi": Ecosystem.PYPI,
    "npm": Ecosystem.NPM,
    "golang": Ecosystem.GO,
    "gem": Ecosystem.RUBYGEMS,
    "cargo": Ecosystem.CARGO,
    "composer": Ecosystem.COMPOSER,
    "nuget": Ecosystem.NUGET,
    "docker": Ecosystem.DOCKER,
    "conda": Ecosystem.CONDA,
}


def read_lockfile(path: Path) -> Mapping[Ecosystem, frozenset[str]]:
    """Canonical names by ecosystem. Raises OSError, and ValueError for a file that is not what its name says."""
    with path.open("rb") as opened:
        raw = opened.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES // 2**20} MiB, which no lockfile has")
    reads = _reader_of(path.name)
    try:
        found = list(_bounded(reads(raw.decode("utf-8-sig"))))
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 text: {error.reason} at byte {error.start}") from error
    except (tomllib.TOMLDecodeError, msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"cannot be read as {path.name}: {error}") from error
    if not found:
        raise ValueError(f"names no package; is it really a {path.name}?")
    names: defaultdict[Ecosystem, set[str]] = defaultdict(set)
    for ecosystem, name in found:
        names[ecosystem].add(canonical(ecosystem, name))
    return {ecosystem: frozenset(own) for ecosystem, own in names.items()}


def _reader_of(name: str) -> Callable[[str], Found]:
    if name in READERS:
        return READERS[name]
    if name.startswith("requirements") and name.endswith((".txt", ".in")):
        return _requirements
    if name.endswith(".json"):
        return _sbom
    known = ", ".join((*READERS, "requirements*.txt", "a CycloneDX or SPDX file in JSON"))
    raise ValueError(f"{name} is no lockfile that is known here; known: {known}")


def _bounded(found: Found) -> Found:
    for count, (ecosystem, name) in enumerate(found):
        if count >= MOST_NAMES:
            raise ValueError(f"names more than {MOST_NAMES} packages")
        if 0 < len(name) <= LONGEST_NAME:
            yield ecosystem, name


def _requirements(text: str) -> Found:
    yield from ((Ecosystem.PYPI, found[1]) for found in REQUIREMENT.finditer(text))


def _toml_packages(ecosystem: Ecosystem) -> Callable[[str], Found]:
    def read(text: str) -> Found:
        packages = tomllib.loads(text).get("package", ())
        for package in packages if isinstance(packages, list) else ():
            if isinstance(package, dict) and isinstance(name := package.get("name"), str):
                yield ecosystem, name

    return read


def _package_lock(text: str) -> Found:
    data = _mapping(text)
    for place in _children(data, "packages"):
        if found := NODE_MODULE.search(place):
            yield Ecosystem.NPM, found[1]
    below = [_children(data, "dependencies")]
    while below:
        for name, package in below.pop().items():
            yield Ecosystem.NPM, name
            if inner := _children(package, "dependencies"):
                below.append(inner)


def _yarn(text: str) -> Found:
    for line in text.splitlines():
        if line[:1] not in {" ", "#", ""}:
            yield from ((Ecosystem.NPM, found[1]) for found in YARN.finditer(line))


def _pnpm(text: str) -> Found:
    yield from ((Ecosystem.NPM, found[1]) for found in PNPM.finditer(text))


def _go_sum(text: str) -> Found:
    yield from ((Ecosystem.GO, found[1]) for found in GO_SUM.finditer(text))


def _gemfile(text: str) -> Found:
    yield from ((Ecosystem.RUBYGEMS, found[1]) for found in GEM.finditer(text))


def _sbom(text: str) -> Found:
    data = _mapping(text)
    if data.get("bomFormat") != "CycloneDX" and "spdxVersion" not in data:
        raise ValueError("is neither a lockfile that is known here nor a CycloneDX or SPDX document")
    waiting: list[Any] = [data.get("components"), data.get("packages")]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting.append(one.get("components"))
            references = one.get("externalRefs")
            listed = references if isinstance(references, list) else ()
            locators = [each.get("referenceLocator") for each in listed if isinstance(each, dict)]
            for purl in (one.get("purl"), *locators):
                if isinstance(purl, str) and (found := PURL.match(purl)) and found[1] in PURL_TYPES:
                    yield PURL_TYPES[found[1]], unquote(found[2])


def _mapping(text: str) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any])


def _children(data: object, key: str) -> dict[str, Any]:
    below = data.get(key) if isinstance(data, dict) else None
    return below if isinstance(below, dict) else {}


READERS: Final[Mapping[str, Callable[[str], Found]]] = {
    "requirements.txt": _requirements,
    "poetry.lock": _toml_packages(Ecosystem.PYPI),
    "uv.lock": _toml_packages(Ecosystem.PYPI),
    "Cargo.lock": _toml_packages(Ecosystem.CARGO),
    "package-lock.json": _package_lock,
    "npm-shrinkwrap.json": _package_lock,
    "yarn.lock": _yarn,
    "pnpm-lock.yaml": _pnpm,
    "go.sum": _go_sum,
    "Gemfile.lock": _gemfile,
}
