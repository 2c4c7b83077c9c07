"""The check `links`: addresses in answers that nobody should follow, fetch or build on without a word.

It judges what an address says of itself, offline: whose name it is or pretends to be, what it carries, what may change
behind it. An unknown host is no finding. It never says that an address is safe.
"""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from conclave.safety.api import Finding, Severity
from conclave.safety.output.addresses import Address, addresses, bare_hosts
from conclave.safety.output.api import Excerpt, Unit
from conclave.safety.output.cdn import Fetched, fetched
from conclave.safety.output.hosts import Host, Hosts, decoded, host_file, listed, registrable, warm
from conclave.safety.output.markup import Around, around
from conclave.safety.output.mention import mentioned
from conclave.safety.output.payload import Cargo, cargo, is_template, is_text
from conclave.safety.output.reading import Reading, read
from conclave.safety.runner import MOST_FINDINGS

NAME: Final = "links"
EVIDENCE_CHARS: Final = 80
TRIGGERS: Final = (
    *(
        "http:",
        "https:",
        "ws:",
        "wss:",
        "ftp:",
        "http\\",
        "://",
        '"//',
        "'//",
        "(//",
        "=//",
        "<//",
        "\\\\",
        "![",
        "](",
        "]:",
        "url(",
        "@import",
        "data:",
        "script:",
    ),
    *(
        "<script",
        "<link",
        "<img",
        "<image",
        "<iframe",
        "<frame",
        "<form",
        "<meta",
        "<embed",
        "<object",
        "<video",
        "<audio",
        "<base",
    ),
    *(
        "<a ",
        "<svg",
        "<table",
        "<td",
        "<body",
        "<div",
        "<span",
        "<p ",
        "<input",
        "<source",
        "<button",
        "<style",
        "<use",
        "<portal",
    ),
    *("href", "src=", "srcset", "action=", "document.cookie", "localstorage", "sessionstorage"),
    *(
        ".com",
        ".co/",
        '.co"',
        ".app/",
        '.app"',
        ".org",
        ".net",
        ".io",
        ".dev",
        ".ai",
        ".xyz",
        ".info",
        ".ru",
    ),
    *(".cloud", ".site", ".online", ".tech", ".store", ".live", ".pro", ".top", ".club", ".link", ".space", ".website"),
    *(".icu", ".tk", ".ml", ".ga", ".cf", ".gq"),
)
REMEDY: Final = {
    "exfiltration": "Do not show or open it: who does sends what stands in the address to its host.",
    "lookalike": "Type the name of the host yourself; this one only looks like one that you know.",
    "userinfo": "What stands before the @ is no host: the address leads to what stands behind it.",
    "ip": "Use the host's name: a bare address says nothing of whose it is, and no certificate vouches for it.",
    "punycode": "Compare the name letter by letter: it is written with letters of another alphabet.",
    "shortener": "Give the address that it leads to: who owns the short one may change it.",
    "throwaway": "Anybody gets such a name for an hour; use a host whose owner is known.",
    "unpinned": "Name an exact version (`@1.2.3`): without one, whatever is published next is run.",
    "no_integrity": 'Add integrity="sha384-..." and crossorigin="anonymous", so that a changed file is not run.',
    "code_host": "Anybody puts files there and may change them: read it first, keep your own copy, or name a commit.",
    "plain_http": "Use https: what comes over plain http can be read and changed on the way.",
    "data_uri": "A page that stands in its own address runs with nobody's name; write it into a file instead.",
    "script_uri": "An address must not be a script; use an event handler, or a link to a page.",
}
FILLED: Final = {"encoded", "person", "template", "named", "sentence"}
CLICKED: Final = {"encoded", "person", "named", "sentence"}
DOCUMENTS: Final = re.compile(r"(?i)\.(?:dtd|xsd|xsl|rdf|owl|wsdl)\b|#$")
PICTURE: Final = re.compile(r"(?i)\.(?:png|jpe?g|gif|svg|webp|avif|ico|bmp|mp4|webm)$")
COMMIT: Final = re.compile(r"(?:^|/)[0-9a-f]{40}(?:/|$)")
PROGRAM: Final = re.compile(r"(?i)\.(?:exe|msi|dll|scr|bat|cmd|ps1|vbs|hta|jar|apk|dmg|pkg|lnk|iso)(?:[?#]|$)")
BEHIND: Final = re.compile(r"""[^\s()"'>]{0,64}>?(?:\s{1,8}["'(][^"')]{0,200}["')])?\s{0,8}\)""")
ENTITY: Final = re.compile(  # as Markdown and attributes take them in addresses; `&amp;` changes no host
    r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|colon|sol|bsol|period|quest|equals|commat|num|percnt|lowbar|hyphen|dash);"
)
ESCAPED: Final = re.compile(r"\\([:/.?=&#%_-])")  # Markdown's, in what stands between the brackets of a link
USER_HOST: Final = re.compile(r"^[\w-]+(?:\.[\w-]+)+")
BACKSLASH: Final = re.compile(r"\\{1,4}@[\w-]+(?:\.[\w-]+)+")
DATA: Final = re.compile(
    r"""(?i)(?<![\w-])data:\s*(?P<type>text/html|text/javascript|application/(?:x-)?(?:java|ecma)script|application/xhtml\+xml|text/xml|"""
    r"""image/svg\+xml)(?:;[\w=-]{1,32}){0,4},(?P<body>[^\s"'`)]{0,2048}[^\n"`]{0,64})"""
)
ACTIVE: Final = re.compile(r"(?i)<script|%3cscript|\bon\w{3,20}\s*=|javascript:|PHNjcmlwdA|onload|foreignObject")
VALUE: Final = re.compile(
    r"""(?i)(?:\]\(\s*<?|\]:\s*<?|\b(?:href|src|action|formaction|data|background|location|srcdoc|content)\s*=\s*["'`]?(?:\d*\s*;\s*url=)?|"""
    r"""\blocation\.(?:href|assign\(|replace\()\s*=?\s*["'`]|window\.open\(\s*["'`]|<(?=\s*(?:java|vb)script))(?P<value>[^"'>)\n]{6,200})"""
)
SCRIPT: Final = re.compile(r"(?i)(?:java|vb|live)script:(?P<body>.*)", re.DOTALL)
CONTROLS: Final = re.compile(r"[\x00-\x20\x7f]+")
IDLE: Final = re.compile(
    r"(?i)(?:void\s*\(?\s*\(?0?\)?\s*\)?)?;?|//|#|(?:window\.)?(?:history\.(?:back|go|forward)|print|close|location\.reload)\s*\(?[^)]{0,8}\)?;?"
)
ACTS: Final = re.compile(
    r"(?i)cookie|fetch|http|eval|document\.(?:write|location)|location\s*=|xmlhttp|localstorage|import\(|src\s*=|atob"
)
BROWSER_KEEPS: Final = re.compile(r"(?i)document\s*\.\s*cookie|document\[.cookie.\]|\b(?:local|session)Storage\b")
SENDS: Final = re.compile(r"(?i)\+|\$\{|fetch|src|location|open\(|sendBeacon|axios|post|encodeURI|btoa|ws|href")
ORDER: Final = ("userinfo", "lookalike", "ip", "punycode", "throwaway", "shortener")


class LinkCheck:
    """Addresses in prose, Markdown, HTML and code. `allow` and `own_hosts` are the policy's."""

    name = NAME
    unit: Unit = "line"
    triggers = TRIGGERS

    def __init__(self, *, allow: Sequence[str] = (), own_hosts: Sequence[str] = ()) -> None:
        warm()
        file = host_file()
        self._hosts = Hosts(allow=allow, own_hosts=own_hosts)
        self._code_hosts = frozenset(file.code_hosts)
        self._landing = frozenset(file.landing)
        self._owners = frozenset(file.owners)
        self._spaces = frozenset(file.spaces)
        self._data_endings = frozenset(file.data_endings)

    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        reading = _as_shown(excerpt)
        text = reading.text
        found: list[Finding] = []
        seen: list[tuple[int, int]] = []
        for address in addresses(text):
            seen.append((address.start, address.end))
            found += self._address(excerpt, reading, address)
        if "." in text:
            found += self._bare(excerpt, reading, seen)
        if "script" in text.lower() or "&" in text:
            found += _script_uris(excerpt, reading)
        if "data:" in text.lower():
            found += _data_uris(excerpt, reading)
        kept = _each_place_once(found)
        if len(kept) > MOST_FINDINGS:  # what is left over is covered by the last one
            return [*kept[: MOST_FINDINGS - 1], replace(kept[MOST_FINDINGS - 1], end=len(excerpt.text))]
        return kept

    def _address(self, excerpt: Excerpt, reading: Reading, address: Address) -> Iterator[Finding]:
        text = reading.text
        host = self._hosts.judge(address.host)
        place = around(text, address.start)
        bare = not host.kind and not host.known
        if listed(host.name, self._hosts.allow):
            if not listed(host.name, self._hosts.own_hosts):
                yield from self._plain(reading, address, host, place)
            return
        if _pretends(address):
            yield _finding(reading, address, "userinfo", Severity.HIGH, address.userinfo or address.host)
        elif host.kind and place.role != "hint":
            severity = host.severity
            if severity > Severity.LOW and _warned(excerpt, text, address):
                severity = Severity.LOW
            yield _finding(reading, address, host.kind, severity, host.like or host.name)
        if severity_out := self._carries(excerpt, text, address, host, place):
            start = place.start if place.role != "text" else address.start
            yield _finding(
                reading,
                address,
                "exfiltration",
                severity_out,
                host.name,
                start=start,
                end=_closed(text, place, address),
            )
        copies = fetched(host.name, address.rest) if place.role != "hint" else []
        yield from self._copies(reading, address, place, copies)
        if not copies and (kept := self._kept(address, host)):
            yield _finding(reading, address, "code_host", kept, host.name)
        elif bare or host.known:
            yield from self._plain(reading, address, host, place)

    def _plain(self, reading: Reading, address: Address, host: Host, place: Around) -> Iterator[Finding]:
        if address.scheme not in ("http", "ws", "ftp") or host.reserved or host.stand_in or place.role == "hint":
            return
        path = (host.name + address.path).rstrip("/")
        if listed(host.name, self._spaces) or DOCUMENTS.search(address.rest):
            return
        if any(path.startswith(space) or path.startswith("www." + space) for space in self._spaces if "/" in space):
            return
        written = reading.text[address.start : address.end]
        sure = host.known and address.scheme == "http" and reading.places is None and ":" not in written[5:]
        instead = f"https{written[4:]}" if sure else ""
        yield _finding(reading, address, "plain_http", Severity.LOW, host.name, instead=instead)

    def _carries(self, excerpt: Excerpt, text: str, address: Address, host: Host, place: Around) -> Severity | None:  # noqa: PLR0911  the first that fits counts
        if host.known or place.role == "hint":
            return None
        line = text[max(0, place.start - 200) : address.end + 300]
        if (
            _may_keep(line)
            and BROWSER_KEEPS.search(line) is not None
            and not host.reserved
            and SENDS.search(line) is not None
        ):
            return Severity.HIGH
        load: Cargo = cargo(host.name, host.domain, address.rest)
        rendered = not excerpt.code
        if host.reserved:
            return Severity.HIGH if rendered and place.role == "fetched" and self._filled_host(address.host) else None
        if place.role in ("fetched", "definition", "script", "style", "import"):
            if load in FILLED and rendered:
                return Severity.HIGH
            return Severity.MEDIUM if load == "encoded" else None
        if place.role == "form":
            return Severity.HIGH if rendered else None
        if not rendered:
            return None
        if place.role == "link":
            return Severity.MEDIUM if load in CLICKED else None
        return Severity.MEDIUM if load == "encoded" else None

    def _filled_host(self, name: str) -> bool:
        """A name whose first part is to be filled in, below a domain that nobody knows."""
        if not is_template(name):
            return False
        below = re.split(r"[}\]>]\.", name)[-1].lower()
        domain = registrable(below)
        return bool(domain) and not self._hosts.judge(below).known and not self._hosts.judge(below).reserved

    def _copies(
        self, reading: Reading, address: Address, place: Around, copies: Sequence[Fetched]
    ) -> Iterator[Finding]:
        if not copies:
            return
        if strangers := [one for one in copies if one.owner and one.owner.lower() not in self._owners]:
            shown = place.role in ("fetched", "text", "link") and PICTURE.search(address.path) is not None
            severity = Severity.LOW if shown else Severity.HIGH  # a picture runs nothing
            yield _finding(reading, address, "code_host", severity, strangers[0].name)
        loose = [one for one in copies if one.pin != "exact"]
        if loose and not strangers:
            severity = Severity.MEDIUM if any(one.pin == "none" for one in loose) else Severity.LOW
            yield _finding(reading, address, "unpinned", severity, loose[0].name)
        elif not loose and place.role in ("script", "style") and place.tag.endswith(">"):
            tag = place.tag.lower()
            if "integrity" not in tag or "crossorigin" not in tag:
                end = place.start + len(place.tag)
                yield _finding(
                    reading, address, "no_integrity", Severity.MEDIUM, copies[0].name, start=place.start, end=end
                )

    def _kept(self, address: Address, host: Host) -> Severity | None:
        """How bad it is to take a file from a place where anybody puts one."""
        path = address.path.strip("/\\")
        name = host.name
        if not listed(name, self._code_hosts) and not _is_raw(name, path):
            return None
        if not path or (name in self._landing and "/" not in path and len(path) < 8):  # noqa: PLR2004  no file's id
            return None
        if PROGRAM.search(address.rest):
            return Severity.HIGH
        owner = path.split("/")[0].lower()
        github = name.endswith(("githubusercontent.com", "github.com", "githack.com", "rawgit.com"))
        if github and (owner in self._owners or COMMIT.search(path)):
            return Severity.LOW
        if path.rpartition(".")[2].lower() in self._data_endings or (name == "gist.github.com" and "raw" not in path):
            return Severity.LOW
        return Severity.MEDIUM

    def _bare(self, excerpt: Excerpt, reading: Reading, seen: Sequence[tuple[int, int]]) -> Iterator[Finding]:
        """Names without a scheme: only those that pretend to be another."""
        for match in bare_hosts(reading.text):
            if any(start <= match.start() < end for start, end in seen):
                continue
            name = match[0]
            host = self._hosts.judge(name)
            if host.kind not in ("lookalike", "punycode") or host.severity is Severity.LOW:
                continue
            if (
                decoded(name) == name
                and name.isascii()
                and host.like.partition(".")[0] == host.domain.partition(".")[0]
            ):
                continue  # `openai.ai` without more may be anything
            severity = Severity.LOW if mentioned(reading.text, *match.span(), code=excerpt.code) else host.severity
            start, end = reading.span(*match.span())
            yield _made(host.kind, severity, start, end, host.like or name)


def _as_shown(excerpt: Excerpt) -> Reading:
    """The line as whoever renders it reads its addresses."""
    reading = read(excerpt.text)
    if "&" in reading.text:
        reading = reading.replaced(ENTITY, lambda match: html.unescape(match[0]))
    if not excerpt.code and "\\" in reading.text and ("](" in reading.text or "]:" in reading.text):
        reading = reading.replaced(ESCAPED, lambda match: match[1])
    return reading


def _may_keep(line: str) -> bool:
    lowered = line.lower()
    return "cook" in lowered or "torage" in lowered


def _closed(text: str, place: Around, address: Address) -> int:
    """Where the link or picture of Markdown around an address ends, or the address itself."""
    if place.start < address.start and text[place.start] in "![":
        behind = BEHIND.match(text, address.end)
        return behind.end() if behind is not None else address.end
    return address.end


def _pretends(address: Address) -> bool:
    if BACKSLASH.match(address.rest) is not None or "@" in address.host:
        return True
    if not address.userinfo:
        return False
    named = USER_HOST.match(address.userinfo)
    return named is not None and bool(registrable(named[0].lower())) and named[0].lower() != address.host.lower()


def _is_raw(name: str, path: str) -> bool:
    """A file of a repository as it is, on the hosts that give them out."""
    parts = path.split("/")
    if name == "github.com":
        return len(parts) > 3 and parts[2] == "raw"  # noqa: PLR2004  owner, repository, raw, branch
    if name == "gitlab.com":
        return "/-/raw/" in path
    if name == "bitbucket.org":
        return len(parts) > 3 and parts[2] == "raw"  # noqa: PLR2004
    return name == "huggingface.co" and "/resolve/" in path and path.endswith((".pkl", ".pt", ".bin", ".pickle", ".py"))


def _warned(excerpt: Excerpt, text: str, address: Address) -> bool:
    return mentioned(text, address.start, address.end, code=excerpt.code, language=excerpt.language)


def _script_uris(excerpt: Excerpt, reading: Reading) -> Iterator[Finding]:
    for match in VALUE.finditer(reading.text):
        said = CONTROLS.sub("", html.unescape(match["value"]))
        script = SCRIPT.match(said)
        if script is None:
            continue
        body = script["body"].strip()
        if IDLE.fullmatch(body) is not None:
            continue
        acts = ACTS.search(reading.text, match.start("value")) is not None
        severity = Severity.HIGH if acts or not excerpt.code else Severity.LOW
        if mentioned(reading.text, *match.span("value"), code=excerpt.code, language=excerpt.language):
            severity = Severity.LOW
        yield _made("script_uri", severity, *reading.span(*match.span("value")), said)


def _data_uris(excerpt: Excerpt, reading: Reading) -> Iterator[Finding]:
    for match in DATA.finditer(reading.text):
        picture = match["type"].lower() == "image/svg+xml"
        body = match["body"]
        if picture and ACTIVE.search(body) is None and not (is_text(body) and "c2NyaXB0" in body):
            continue
        severity = Severity.MEDIUM
        if mentioned(reading.text, *match.span(), code=excerpt.code, language=excerpt.language):
            severity = Severity.LOW
        yield _made("data_uri", severity, *reading.span(*match.span()), match["type"])


def _finding(  # noqa: PLR0913  a finding's own facts
    reading: Reading,
    address: Address,
    kind: str,
    severity: Severity,
    evidence: str,
    *,
    start: int | None = None,
    end: int | None = None,
    instead: str = "",
) -> Finding:
    first = address.start if start is None else start
    last = address.end if end is None else end
    return _made(kind, severity, *reading.span(first, last), evidence, instead)


def _made(kind: str, severity: Severity, start: int, end: int, evidence: str, instead: str = "") -> Finding:  # noqa: PLR0913,PLR0917  as above
    return Finding(
        check=NAME,
        kind=f"{NAME}.{kind}",
        severity=severity,
        confidence=1.0,
        place="",
        start=start,
        end=end,
        evidence=evidence[:EVIDENCE_CHARS],
        remedy=REMEDY[kind],
        instead=instead,
    )


def _each_place_once(found: Sequence[Finding]) -> list[Finding]:
    """In order of place; the same kind once where spans overlap."""
    kept: list[Finding] = []
    for one in sorted(found, key=lambda one: (one.start, -one.end)):
        if not any(one.kind == other.kind and one.start < other.end for other in kept[-8:]):
            kept.append(one)
    return kept
