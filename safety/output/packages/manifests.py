"""Manifests, line by line: what a file in an answer makes somebody install. It sees one line, never the file.

A line says by its shape, and by the language of its fence, which manifest it may be of. Where that leaves a doubt
(`name = "1.0"` is Cargo's and Poetry's, `"name": "1.0"` anybody's) the mention is not sure.
"""

import re
from collections.abc import Iterator
from typing import Final

from conclave.safety.output.packages.ecosystems import Ecosystem
from conclave.safety.output.packages.mentions import Mention, Sure, Where, named
from conclave.safety.output.packages.reading import Line
from conclave.safety.output.packages.vocabulary import vocabulary

MOST_MENTIONS: Final = 200  # of a line
JSON: Final = frozenset({"", "json", "json5", "jsonc", "text", "txt", "diff", "javascript", "js"})
PLAIN: Final = frozenset({"", "text", "txt", "plaintext", "requirements", "pip-requirements", "ini", "cfg", "diff"})
LISTS: Final = PLAIN | {"yaml", "yml"}
TOML: Final = frozenset({"", "toml", "ini", "text", "txt", "diff"})
RUBY: Final = frozenset({"", "ruby", "rb", "gemfile", "gemspec", "text", "diff"})
DOCKER: Final = frozenset({"", "dockerfile", "docker", "containerfile", "text", "diff"})
GO: Final = frozenset({"", "go", "gomod", "go-mod", "mod", "text", "diff"})
REQUIREMENTS: Final = frozenset({"requirements", "pip-requirements"})
_NAME: Final = r"[\w][\w.-]*"
_SIGN: Final = r"(?:===|==|~=|>=|<=|!=|<|>)"
REQUIREMENT: Final = re.compile(
    rf"""[ \t]*[+]?(?P<dash>-[ \t]+)?(?P<name>{_NAME})(?:\[[\w, .-]*\])?(?P<gap>[ \t]*)
    (?P<sign>{_SIGN})[ \t]*(?P<version>[\w.*+!-]+)
    (?:[ \t]*,[ \t]*{_SIGN}[ \t]*[\w.*+!-]+)*[ \t]*(?:;.*|\#.*|\\.*|--hash.*)?""",
    re.DOTALL | re.VERBOSE,
)
BARE: Final = re.compile(rf"[ \t]*(?P<name>{_NAME})(?:\[[\w, .-]*\])?[ \t]*(?:#.*|;.*)?")
TOML_ITEM: Final = re.compile(rf"""[ \t]*[+]?["'](?P<name>{_NAME})(?:\[[\w, .-]*\])?["'][ \t]*,?[ \t]*(?:\#.*)?""")
YAML_ITEM: Final = re.compile(rf"""[ \t]*-[ \t]+["']?(?P<name>{_NAME})(?:\[[\w, .-]*\])?["']?[ \t]*(?:\#.*)?""")
INDENTED: Final = re.compile(rf"[ \t]+(?P<name>{_NAME})(?:\[[\w, .-]*\])?[ \t]*(?:#.*|;.*)?")
ITEMS: Final = {  # what may be a package's name alone, in a list that begins on another line
    **dict.fromkeys(("toml",), TOML_ITEM),
    **dict.fromkeys(("yaml", "yml"), YAML_ITEM),
    **dict.fromkeys(("ini", "cfg"), INDENTED),
    **dict.fromkeys(("", "text", "txt", "plaintext"), BARE),
}
QUOTED: Final = re.compile(
    rf"""["'](?P<name>{_NAME})(?:\[[\w, .-]*\])?[ \t]*(?P<sign>{_SIGN})[ \t]*(?P<version>[\w.*]+)[^"'\n]*["']"""
)
LISTED: Final = re.compile(
    r"""\b(?:dependencies|requires|install_requires|setup_requires|tests_requires?)"?[ \t]*=[ \t]*[\[(]""",
    re.IGNORECASE,
)
ITEM: Final = re.compile(r"""["']([^"'\n]{1,300})["']""")
PAIR: Final = re.compile(
    r'"(?P<name>(?:@[\w.~-]+/)?[\w.~-]+(?P<composer>/[\w.-]+)?)"[ \t]*:[ \t]*"(?P<value>[^"\n]{1,200})"'
)
RANGE: Final = re.compile(
    r"(?:[~^]|[<>]=?)[ ]?v?\d[\w.+ <>=|*^~-]*|latest|next|npm:.*|workspace:.*|git[+:].*|\d+\.x|\*"
)
VERSIONED: Final = re.compile(r"v?\d[\w.*-]*|https?://\S+|file:\S+|[\w-]+/[\w.-]+(?:#\S+)?")
FULL: Final = re.compile(r"\d+\.\d+\.\d+(?:-[\w.]+)?")
KEY: Final = re.compile(
    rf"""[ \t]*[+]?["']?(?P<name>{_NAME})["']?[ \t]*=[ \t]*
    (?P<value>["'](?:[~^<>=*]*\d[\w.,\ <>=*^~-]*|\*|latest)["']
    |\{{[ \t]*(?:version|git|path|extras|features|optional)\b.*)""",
    re.VERBOSE,
)
OWN_KEYS: Final = frozenset(  # of a manifest's own fields, whose values look like versions
    {"version", "python", "node", "npm", "yarn", "pnpm", "php", "requires-python", "target-version", "rust-version"}
    | {"edition", "engines", "vscode", "python_version", "required-version", "lockfileversion", "packagemanager"}
    | {"manifest_version", "resolver", "revision", "schema-version", "apiversion", "line-length"}
)
GEM: Final = re.compile(
    r"""[ \t]*[+]?(?:gem[ \t(]+|[\w.]+\.add_(?:runtime_|development_)?dependency[ \t(]+)["'](?P<name>[\w.-]+)["']"""
)
REFERENCE: Final = re.compile(  # the last one is of scripts
    r"""<(?:(?:Package|Tool|DotNetCliTool)Reference|PackageVersion)\b[^<>]{0,200}?\b(?:Include|Update)=["'](?P<name>[\w.-]+)["']"""
    r"""|\#r[ \t]+"nuget:[ \t]*(?P<script>[\w.-]+)""",
    re.IGNORECASE,
)
COPY: Final = re.compile(  # of a package of npm, on a network of copies
    r"(?:unpkg\.com|jsdelivr\.net/npm|esm\.sh|esm\.run|skypack\.dev)/(?P<name>(?:@[\w.~-]+/)?[\w][\w.~-]*)(?=[@/?\"'`\s)]|$)"
)
FROM: Final = re.compile(
    r"[ \t]*[+]?FROM[ \t]+(?:--platform=\S+[ \t]+)?(?P<name>[\w./:@-]+)(?:[ \t]+(?:AS|as)[ \t]+\S+)?[ \t]*"
)
MODULE: Final = re.compile(
    r"[ \t]*[+]?(?:require[ \t]+)?(?P<name>(?:[\w-]+\.)+[\w-]+/[\w./~-]+)[ \t]+v\d[\w.+-]*(?:[ \t]*//.*)?"
)
READ: Final = REQUIREMENTS | DOCKER | GO | ITEMS.keys()  # what names packages by their place alone
LINES: Final = re.compile(r"[^\r\n]+")


def mentions(line: Line) -> Iterator[Mention]:
    """What the line's manifests name that has a version, or another sign that something is installed."""
    if not line.code:
        return
    count = 0
    for part in LINES.finditer(line.text):
        for mention in _versioned(part[0], line.language, part.start()):
            count += 1
            if count > MOST_MENTIONS:
                return
            yield mention


def bare_mentions(line: Line) -> Iterator[Mention]:
    """What a line names by nothing but its place in a manifest: the name alone, an image, a Go module."""
    if not line.code:
        return
    for _, part in zip(range(MOST_MENTIONS), LINES.finditer(line.text), strict=False):
        if line.language in REQUIREMENTS and (found := BARE.fullmatch(part[0])):
            yield _mention(Ecosystem.PYPI, found, part.start())
        item = ITEMS.get(line.language)
        found = item.fullmatch(part[0]) if item is not None else None
        if found is not None and found["name"].lower() not in vocabulary().other_things:  # what list, other lines say
            yield _mention(Ecosystem.PYPI, found, part.start(), sure=Sure.PERHAPS)
        if line.language in DOCKER and (found := FROM.fullmatch(part[0])) and found["name"] != "scratch":
            if name := named(Ecosystem.DOCKER, found["name"]):
                start = part.start() + found.start("name") + name[1]
                yield Mention(Ecosystem.DOCKER, name[0], start, start + len(name[0]), Where.MANIFEST)
        elif line.language in GO and (found := MODULE.fullmatch(part[0])):
            yield _mention(Ecosystem.GO, found, part.start())


def _versioned(text: str, language: str, at: int) -> Iterator[Mention]:
    if language in LISTS and (found := REQUIREMENT.fullmatch(text)) is not None:
        if found["dash"] is not None or language not in {"yaml", "yml"}:
            yield _mention(Ecosystem.PYPI, found, at, sure=_sure(found, language), until="version")
        return
    if '"' in text or "'" in text:
        yield from _listed(text, at)
    found = KEY.fullmatch(text.rstrip().rstrip(",")) if language in TOML and "=" in text else None
    if found is not None and found["name"].lower() not in OWN_KEYS:
        yield _mention(Ecosystem.PYPI, found, at, sure=Sure.PERHAPS, until="value")
    if language in JSON and '"' in text:
        yield from _pairs(text, at)
    if language in RUBY and (found := GEM.match(text)) is not None:
        yield _mention(Ecosystem.RUBYGEMS, found, at)
    for found in REFERENCE.finditer(text):
        yield _mention(Ecosystem.NUGET, found, at, group="name" if found["name"] else "script")
    for found in COPY.finditer(text):
        yield _mention(Ecosystem.NPM, found, at, sure=Sure.LIKELY)


def _sure(found: re.Match[str], language: str) -> Sure:
    """`x >= 10` may be a comparison; `x==1.0` is hardly one."""
    if found["gap"] or found["sign"] in {"<", ">"} or len(found["name"]) == 1:
        return Sure.PERHAPS
    return Sure.YES if language in REQUIREMENTS or "." in found["version"] or found["sign"] == "~=" else Sure.LIKELY


def _listed(text: str, at: int) -> Iterator[Mention]:
    """Requirements between quotation marks, as in `dependencies = [...]` and `install_requires`."""
    begins = LISTED.search(text) if "=" in text and ("requires" in text or "dependencies" in text) else None
    if begins is None:
        for found in QUOTED.finditer(text):
            sure = Sure.YES if "." in found["version"] or found["sign"] in {"==", "~="} else Sure.PERHAPS
            yield _mention(Ecosystem.PYPI, found, at, sure=sure)
        return
    for item in ITEM.finditer(text, begins.end()):
        if name := named(Ecosystem.PYPI, item[1].strip()):
            start = at + item.start(1) + name[1]
            yield Mention(Ecosystem.PYPI, name[0], start, start + len(name[0]), Where.MANIFEST)


def _pairs(text: str, at: int) -> Iterator[Mention]:
    """`"name": "range"` of package.json and composer.json."""
    for found in PAIR.finditer(text):
        ranged = RANGE.fullmatch(found["value"]) is not None
        if found["name"].lower() in OWN_KEYS or not (ranged or VERSIONED.fullmatch(found["value"])):
            continue
        if found["composer"] and not found["name"].startswith("@"):
            yield _mention(Ecosystem.COMPOSER, found, at)
        else:
            full = Sure.LIKELY if FULL.fullmatch(found["value"]) else Sure.PERHAPS
            yield _mention(Ecosystem.NPM, found, at, sure=Sure.YES if ranged and found["value"] != "*" else full)


def _mention(  # noqa: PLR0913  a mention's own facts
    ecosystem: Ecosystem,
    found: re.Match[str],
    at: int,
    *,
    sure: Sure = Sure.YES,
    until: str = "",
    group: str = "name",
) -> Mention:
    start, end = found.span(group)
    last = at + found.end(until) if until else None
    return Mention(ecosystem, found[group], at + start, at + end, Where.MANIFEST, sure=sure, until=last)
