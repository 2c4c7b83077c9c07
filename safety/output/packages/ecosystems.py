"""Where packages come from, and when two spellings are one name there. Pure."""

import re
from enum import StrEnum
from typing import Final

LONGEST_NAME: Final = 214  # npm's limit; no other index here takes more
PEP_503: Final = re.compile(r"[-_.]+")
MAJOR: Final = re.compile(r"/v[0-9]{1,4}$")
DOCKER_TAG: Final = re.compile(r"(?:@sha256:.*|:[^/]*)$")


class Ecosystem(StrEnum):
    """An index of packages, by the name that purl and OSV give it or a short one."""

    PYPI = "pypi"
    NPM = "npm"
    GO = "go"
    RUBYGEMS = "rubygems"
    CARGO = "cargo"
    COMPOSER = "composer"
    NUGET = "nuget"
    DOCKER = "docker"
    BREW = "brew"
    APT = "apt"
    CONDA = "conda"


def canonical(ecosystem: Ecosystem, name: str) -> str:
    """The one spelling of a name: PEP 503 for PyPI, a Go module without its major version, an image without its tag."""
    name = name.lower()
    if ecosystem is Ecosystem.PYPI:
        return PEP_503.sub("-", name)
    if ecosystem is Ecosystem.GO:
        return MAJOR.sub("", name.rstrip("/"))
    if ecosystem is Ecosystem.DOCKER:
        return DOCKER_TAG.sub("", name).removeprefix("docker.io/").removeprefix("library/")
    return name.replace("_", "-") if ecosystem is Ecosystem.CARGO else name


def owner(ecosystem: Ecosystem, name: str) -> str:
    """Who alone publishes under a canonical name: an npm scope, host and account of a Go module; empty: anyone."""
    if ecosystem is Ecosystem.NPM and name.startswith("@"):
        return name.partition("/")[0]
    if ecosystem is Ecosystem.GO:
        return "/".join(name.split("/")[:2])
    return ""
