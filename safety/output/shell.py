"""The check `shell`: commands and settings that run what nobody has read, destroy, hide, stay, or let others in.

The patterns are data (safety/rules/shell.yaml) over logical lines, as written and as a shell would read them. Judges
take back what is honest: a folder of one's own, a known registry, an own host. It runs and fetches nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Final

import msgspec

from conclave.safety.api import Finding, Severity
from conclave.safety.detect.patterns import RULES, SEVERITIES, Hit, Judge, Patterns, Rule, Span
from conclave.safety.output.addresses import addresses
from conclave.safety.output.api import Excerpt, Unit
from conclave.safety.output.disguise import DISGUISED, undisguised
from conclave.safety.output.hosts import DOCUMENTED, Hosts, host_file, listed, warm
from conclave.safety.output.mention import mentioned
from conclave.safety.output.reading import Reading, read
from conclave.safety.output.signs import RuleSigns
from conclave.safety.runner import MOST_FINDINGS

NAME: Final = "shell"
EVIDENCE_CHARS: Final = 80
REMEDY: Final = {
    "pipe_to_shell": "Download it to a file, read it or compare its checksum, and only then run it.",
    "destructive": "Say exactly what may go, look at the list first, and have a copy.",
    "encoded": "Decode it and read what it does; there is hardly ever a reason to hide a command.",
    "persistence": "Make sure that you want this to run again by itself, and know what it runs.",
    "disabled_security": "Leave it on, and make an exception as small as the task needs.",
    "exfiltration": "Do not run it: it sends secrets or access to somebody else.",
    "registry_override": "Install from the usual registry, or from one that your organisation runs.",
    "disabled_tls": "Keep checking certificates; give the program the right authority instead (--cacert, verify=FILE).",
    "install_hook": "What runs when a package is installed should be read first; install with scripts off.",
    "remote_install": "Install a released version from the registry, or name a commit of an owner whom you know.",
}
OWN_PLACES: Final = frozenset(
    ["user", "username", "your-username", "yourusername", "your_username", "org", "owner", "repo", "myorg", "my-org"]
)
MORE_PLACES: Final = frozenset(
    ["your-org", "yourorg", "your-name", "yourname", "example", "me", "acme", "company", "account"]
)
OWNER: Final = re.compile(r"(?i)(?:github|gitlab|bitbucket|codeberg)(?:\.com|\.org)?[/:]+([\w.$<{-][\w.{}<>$-]*)")
OWN_SOURCE: Final = re.compile(r"""["'](?:url|repository|homepage|bugs)["']\s*:\s*["']$""")
OWN_SOURCE_CHARS: Final = 40
SHORT: Final = re.compile(r"""(?i)(?:install_github\s*\(\s*["']|github:|gitlab:|bitbucket:)([\w.-]+)""")
WIPED: Final = re.compile(  # what must not be removed with all that is in it
    r"(?:/|/\*|/\.\*?|~|~/|~/\*|~/\.\*|\.\./?|\.\./\*|\*|\./\*|\.|\./|\$HOME|\$HOME/|\$HOME/\*|\$\{HOME\}/?\*?|\$PWD/?\*?|"
    r"/(?:etc|usr|var|bin|sbin|lib|lib64|boot|home|root|opt|srv|dev|sys|proc|Users|System|Library|Applications)(?:/\*?)?|"
    r"/home/\*/?|/home/[\w$]+/?\*?|/Users/[\w$]+/?\*?|/usr/(?:bin|lib|share|local)/?\*?|/var/(?:lib|log)/?\*?|/mnt/c/?\S*|"
    r"[A-Za-z]:[\\/]*\*?|--no-preserve-root)"
)
UNSET: Final = re.compile(r"/?\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\}|[1-9@])/(?:\*|\.\*)?")
ALL: Final = frozenset(["*", ".", "./", "./*"])
QUOTED: Final = re.compile("[\"'`]")
DOTS: Final = frozenset([".", "..", "./", "../"])


class ShellFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """safety/rules/shell.yaml: `names` are parts of patterns, written `<<NAME>>` there."""

    names: dict[str, str]
    triggers: list[str]
    rules: list[Rule]


@lru_cache(maxsize=1)
def shell_file() -> ShellFile:
    """The shipped rules, their parts put in."""
    file = msgspec.yaml.decode((RULES / "shell.yaml").read_bytes(), type=ShellFile)
    made = []
    for rule in file.rules:
        pattern = rule.pattern
        for name, part in file.names.items():
            pattern = pattern.replace(f"<<{name}>>", part)
        made.append(msgspec.structs.replace(rule, pattern=pattern))
    return msgspec.structs.replace(file, rules=made)


class ShellCheck:
    """Commands in prose, in fenced code and in strings of programs. `allow` and `own_hosts` as for links."""

    name = NAME
    unit: Unit = "line"

    def __init__(self, *, allow: Sequence[str] = (), own_hosts: Sequence[str] = ()) -> None:
        warm()
        _signs()
        self.triggers: Sequence[str] = shell_file().triggers
        self._patterns = Patterns(shell_file().rules, Judges(Hosts(allow=allow, own_hosts=own_hosts)).by_name)

    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        reading = read(excerpt.text)
        rules, disguised = _signs().seen(reading.text)
        found = self._found(reading, excerpt) if rules else []
        plain = undisguised(reading) if disguised else None
        if plain is not None and _signs().within(plain.text):
            seen = list(found)
            for one in self._found(plain, excerpt):
                if not any(one.start < other.end and other.start < one.end for other in seen):
                    found.append(one)
        if len(found) > MOST_FINDINGS:  # what is left over is covered by the last one
            kept = sorted(found, key=lambda one: one.start)[:MOST_FINDINGS]
            return [*kept[:-1], replace(kept[-1], end=len(excerpt.text))]
        return sorted(found, key=lambda one: one.start)

    def _found(self, reading: Reading, excerpt: Excerpt) -> list[Finding]:
        hits = islice(self._patterns.hits(reading.text), MOST_FINDINGS + 1)
        return [_finding(hit, reading, excerpt) for hit in hits]


@lru_cache(maxsize=1)
def _signs() -> RuleSigns:
    return RuleSigns(shell_file().rules, beside=DISGUISED)


def _finding(hit: Hit, reading: Reading, excerpt: Excerpt) -> Finding:
    said = reading.text[hit.start : hit.end]
    end = hit.end - (len(said) - len(said.rstrip()))
    start = hit.start + (len(said) - len(said.lstrip()))
    severity = SEVERITIES[hit.rule.severity]
    if severity > Severity.LOW and mentioned(reading.text, start, end, code=excerpt.code, language=excerpt.language):
        severity = Severity.LOW
    first, last = reading.span(start, max(start, end))
    return Finding(
        check=NAME,
        kind=f"{NAME}.{hit.rule.kind}",
        severity=severity,
        confidence=1.0,
        place="",
        start=first,
        end=last,
        evidence=said.strip()[:EVIDENCE_CHARS],
        remedy=REMEDY[hit.rule.kind],
    )


@dataclass(frozen=True, slots=True)
class Judges:
    """What a match is worth, by the name that its rule gives: the span that is meant, or None where it is honest."""

    hosts: Hosts

    @property
    def by_name(self) -> dict[str, Judge]:
        return {
            "fetched": self.fetched,
            "leaves": self.leaves,
            "reaches": self.reaches,
            "registry": self.registry,
            "trusted": self.trusted,
            "owner": self.owner,
            "removal": removal,
        }

    def fetched(self, text: str, start: int, end: int) -> Span | None:
        """Honest where all of it comes from hosts that the policy trusts."""
        names = _hosts_in(text[start:end])
        return None if names and all(listed(name, self.hosts.allow) for name in names) else Span(start, end)

    def leaves(self, text: str, start: int, end: int) -> Span | None:
        """Honest where it stays in the house."""
        names = _hosts_in(text[start:end])
        return None if names and all(map(self._inside, names)) else Span(start, end)

    def reaches(self, text: str, start: int, end: int) -> Span | None:
        """Honest where the line names only hosts in the house, or none but `localhost`."""
        names = _hosts_in(text)
        return (
            None
            if (names and all(map(self._inside, names))) or (not names and "localhost" in text)
            else Span(start, end)
        )

    def registry(self, text: str, start: int, end: int) -> Span | None:
        """Honest for a registry that is known, for one in the house, and for a place that is to be filled in."""
        said = text[start:end]
        names = _hosts_in(said)
        if not names:
            tail = re.split(r"""[=\s"':]+""", said.rstrip("\"'"))[-1]
            if tail.lower() == "off":
                return Span(start, end)
            if "trusted" not in said.lower():
                return None
            names = [tail]
        return None if all(map(self._is_registry, names)) else Span(start, end)

    def trusted(self, text: str, start: int, end: int) -> Span | None:
        """Honest in the house; that a host is no known registry, `registry` says."""
        name = text[start:end].rsplit(maxsplit=1)[-1].rpartition("=")[2].strip("\"':")
        return None if self._inside(name) or not self._is_registry(name) else Span(start, end)

    def owner(self, text: str, start: int, end: int) -> Span | None:
        """Honest for owners of repositories that many people look at, known hosts, and places to be filled in.

        A manifest that says where its own source is (`"url": "git+https://..."`) installs nothing from there.
        """
        if OWN_SOURCE.search(text, max(0, start - OWN_SOURCE_CHARS), start) is not None:
            return None
        said = text[start:end]
        named = OWNER.search(said) or SHORT.search(said)
        if named is not None:
            owner = named[1].lower().rstrip("/")
            known = owner in OWN_PLACES or owner in MORE_PLACES or owner in _owners() or owner[:1] in "<{$"
            return None if known else Span(start, end)
        names = _hosts_in(said.replace("git+ssh://", "https://").replace("ssh://", "https://"))
        honest = names and all(self._inside(name) or self.hosts.judge(name).known for name in names)
        return None if honest or "file://" in said else Span(start, end)

    def _inside(self, name: str) -> bool:
        host = self.hosts.judge(name)
        return (host.reserved and host.domain not in DOCUMENTED) or listed(host.name, self.hosts.allow)

    def _is_registry(self, name: str) -> bool:
        host = self.hosts.judge(name)
        return host.reserved or host.stand_in or listed(host.name, self.hosts.allow) or listed(host.name, _registries())


def removal(text: str, start: int, end: int) -> Span | None:
    """Honest where what is removed is a folder of one's own."""
    said = text[start:end]
    for word in _arguments(said):
        if WIPED.fullmatch(word) is None and UNSET.fullmatch(word) is None:
            continue
        if word in ALL and "-" in said and not re.search(r"-\w*[rR]|--recursive", said):
            continue
        return Span(start, end)
    return None


def _arguments(said: str) -> Iterator[str]:
    """The words behind the command, without quotes; the sentence goes on behind a word that ends a quotation."""
    for word in said.split()[1:]:
        bare = QUOTED.sub("", word)
        yield bare if bare in DOTS else bare.rstrip(".,:") or bare
        if word.endswith(("`", '"', "'")) and not word.startswith(("`", '"', "'", "-")):
            return


def _hosts_in(text: str) -> list[str]:
    return [address.host for address in addresses(text)]


@lru_cache(maxsize=1)
def _owners() -> frozenset[str]:
    return frozenset(host_file().owners)


@lru_cache(maxsize=1)
def _registries() -> frozenset[str]:
    return frozenset(host_file().registries)
