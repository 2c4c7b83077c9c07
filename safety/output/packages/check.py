"""The checks `packages` and `dependencies`: names of packages in answers that nobody should install unlooked.

`packages` reads commands and versioned lines of manifests, and alone can stop a stream for a known malicious name.
`dependencies` reads what shows no sign before the name: imports, bare names in a requirements file, images, modules.
Pure, linear in the line; it never asks an index.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from conclave.safety.api import Finding, Severity
from conclave.safety.output.api import Excerpt, Unit
from conclave.safety.output.packages import commands, imports, manifests
from conclave.safety.output.packages.grade import Allowed, Grade, Grader
from conclave.safety.output.packages.index import PackageIndex, shipped
from conclave.safety.output.packages.leads import LEADS
from conclave.safety.output.packages.mentions import Mention, Where
from conclave.safety.output.packages.reading import Line

PACKAGES: Final = "packages"
DEPENDENCIES: Final = "dependencies"
EVIDENCE_CHARS: Final = 80
ALLOW: Final = Allowed()
COMMANDS: Final = (
    *("install", "pip ", "pip3", "pipx", "npm", "npx", "yarn", "bun ", "bunx", "deno ", "uv ", "uvx", "poetry", "pdm "),
    *("rye add", "pipenv", "conda", "mamba ", "go get", "go run", "bundle add", "gem i ", "gem fetch", "cargo add"),
    *("composer ", "create-project", "add package", "dotnet add", "docker ", "podman ", '"pip"', "'pip'", "pixi add"),
)
MANIFESTS: Final = (
    *('":', '" :', '= "^', '= "~', '= ">', '= "=', '= "<', '= "*', '="^', '="~', "= {", "==", ">=", "~=", "<=", "!="),
    *(f'= "{digit}' for digit in range(10)),
    *(
        "dependencies",
        "requires",
        "tests_require",
        "packagereference",
        "packageversion",
        '"nuget:',
        "unpkg.com/",
        "jsdelivr.net/npm/",
        "esm.sh/",
        "esm.run/",
        "skypack.dev/",
        "toolreference",
        "gem '",
        'gem "',
        "_dependency",
    ),
)
PINNED: Final = re.compile(r"""(?:\[[^\]]*\])?[ ]?(?:==?[ ]?|@|["'][ ]?:[ ]?["'])v?\d""")
EACH_LIST: Final = (  # a name beside one on each list
    "pip install reqeusts && npm install reqeusts && gem install reqeusts && go get github.com/gin-gonic/gni"
)
CONFIDENCE: Final = {"known_malicious": 1.0, "near": 0.7, "unknown": 0.5, "compromised": 0.5}


class PackageCheck:
    """Packages that an answer says to install."""

    name = PACKAGES
    unit: Unit = "line"
    triggers = (*COMMANDS, *MANIFESTS)
    leads = LEADS

    def __init__(self, *, index: PackageIndex | None = None, allowed: Allowed = ALLOW) -> None:
        self._grader = Grader(index or shipped(), allowed)

    def warm(self) -> None:
        """Build what the first package would wait for: 0.3 s of CPU, once for all checks of a process."""
        self.inspect(Excerpt(EACH_LIST, code=True, language="bash"))

    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        line = Line.of(excerpt)
        told = list(commands.mentions(line))
        known = {(mention.start, mention.end) for mention in told}
        told += [one for one in manifests.mentions(line) if (one.start, one.end) not in known]
        return _findings(self.name, line, told, self._grader)


class DependencyCheck:
    """Packages that an answer relies on without saying how to install them."""

    name = DEPENDENCIES
    unit: Unit = "line"
    triggers = ("",)
    languages = manifests.READ | imports.READ

    def __init__(self, *, index: PackageIndex | None = None, allowed: Allowed = ALLOW) -> None:
        self._grader = Grader(index or shipped(), allowed)

    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        if not excerpt.code or excerpt.language not in self.languages or not _relies(excerpt):
            return ()
        line = Line.of(excerpt)
        return _findings(self.name, line, (*manifests.bare_mentions(line), *imports.mentions(line)), self._grader)


def _relies(excerpt: Excerpt) -> bool:
    """Whether a line can name a package: by its place in a manifest, or with a word that imports one."""
    if excerpt.language in manifests.READ or excerpt.language in imports.GO or not excerpt.text.isascii():
        return True
    return any(word in excerpt.text for word in imports.WORDS)


def _findings(check: str, line: Line, mentions: Iterable[Mention], grader: Grader) -> Sequence[Finding]:
    found = []
    for mention in mentions:
        grade = grader.grade(mention.ecosystem, mention.name, mention.sure)
        if grade is not None and (grade := _in_place(grade, mention, line)) is not None:
            found.append(_finding(check, line, mention, grade))
    return found


def _in_place(grade: Grade, mention: Mention, line: Line) -> Grade | None:
    """The grade, milder where nobody is told to install it."""
    if mention.where is Where.IMPORT:  # a file of one's own may have any name
        alarming = grade.kind == "known_malicious" or grade.slip
        return Grade("unknown", Severity.LOW, grade.meant) if alarming else None
    if grade.kind == "compromised" and grade.meant and not PINNED.match(line.text, mention.end):
        return None  # the newest version of a package that everybody uses was cleaned long ago
    if mention.warned:
        return Grade(grade.kind, Severity.LOW, grade.meant)
    return grade


def _finding(check: str, line: Line, mention: Mention, grade: Grade) -> Finding:
    return Finding(
        check=check,
        kind=f"package.{grade.kind}",
        severity=grade.severity,
        confidence=CONFIDENCE[grade.kind],
        place="",
        start=line.place(mention.start),
        end=line.end(mention.end if mention.until is None else mention.until),
        evidence=f"{mention.ecosystem}:{mention.name}"[:EVIDENCE_CHARS],
        remedy=_remedy(grade, mention),
        instead=grade.meant if grade.kind == "near" and mention.until is None else "",
    )


def _remedy(grade: Grade, mention: Mention) -> str:
    meant = f" Probably {grade.meant} was meant." if grade.meant and grade.kind != "compromised" else ""
    match grade.kind:
        case "known_malicious":
            return f"Do not install it: it is on the list of malicious {mention.ecosystem} packages.{meant}"
        case "near":
            return f"Look at the name again before you install it: {grade.meant} was probably meant."
        case "compromised":
            return "Some versions of it were compromised: look up which, and pin one that was not."
        case "unknown":
            return f"Look it up before you use it: it is not among the much used {mention.ecosystem} packages.{meant}"
