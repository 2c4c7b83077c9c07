"""Whose a host is, as far as its name says: an address, a name that pretends, a shortener, a place for anybody's files.

Nothing is looked up: the endings under which names are given away come with the package publicsuffixlist, the names
in safety/rules/hosts.yaml are known beforehand. A name that is not there is unknown, which is no finding.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from conclave.safety.api import Severity
from conclave.safety.boundary.views import confusables
from conclave.safety.detect.patterns import RULES
from conclave.safety.output.numbers import number_of
from conclave.safety.output.spelling import Neighbours, skeleton

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

RESERVED: Final = frozenset(  # RFC 2606, RFC 6761, RFC 8375, and what networks use inside
    [
        "example",
        "test",
        "invalid",
        "localhost",
        "local",
        "internal",
        "lan",
        "home",
        "corp",
        "intranet",
        "private",
        "localdomain",
        "arpa",
        "onion",
    ]
)
DOCUMENTED: Final = frozenset({"example.com", "example.net", "example.org", "example.edu"})
EXAMPLES: Final = re.compile(  # second-level names that stand for the reader's own
    r"(?:examples?|(?:your|my|our|their|some|the)[-_]?(?:own|new|real)?[-_]?(?:domain|host|site|website|server|company|org(?:anization)?|"
    r"app|api|cdn|project|name|service|url|blog|shop|store|instance|bucket|endpoint|tenant|account|username)(?:[-_]?(?:name|here))?|"
    r"(?:domain|host|hostname|site|website|server|company|organization|yourname|username|url|foo|bar|foobar|placeholder|acme|contoso|"
    r"fabrikam|mysite|test)(?:[-_]?(?:name|here))?|x{3,}|your[-_][\w-]+|my[-_][\w-]+)"
)
TEMPLATE: Final = re.compile(r"[{}<>$%*()\[\]|#,\s…]|\.\.|^[A-Z_]{3,}$")
LABEL: Final = re.compile(r"(?!-)[^\W_][\w-]{0,62}")
MOST_PARTS: Final = 3  # of a brand's domain before its ending
MOST_NAME: Final = 253
SCRIPTS: Final = (("greek", 0x370, 0x400), ("cyrillic", 0x400, 0x530), ("armenian", 0x530, 0x590))
PREFIX: Final = "xn--"


class Brand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name that others pretend to be: its own domains, the one that is compared first."""

    own: list[str]
    alone: bool = False
    exact: bool = False

    @property
    def label(self) -> str:
        return self.own[0].partition(".")[0]


class HostFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """safety/rules/hosts.yaml."""

    brands: list[Brand]
    honest: list[str]
    baits: list[str]
    shorteners: list[str]
    throwaway: list[str]
    free_endings: list[str]
    code_hosts: list[str]
    landing: list[str]
    owners: list[str]
    data_endings: list[str]
    spaces: list[str]
    registries: list[str]


@dataclass(frozen=True, slots=True)
class Host:
    """A host and what is known of it. `domain` is what somebody registered; `kind` is empty where nothing is wrong.

    `reserved`: nobody else's: a private address, a name that is never given away. `stand_in`: it stands for the
    reader's own, but somebody may have it. `known`: a brand's own, or trusted by the policy.
    """

    name: str
    domain: str = ""
    kind: str = ""
    severity: Severity = Severity.LOW
    like: str = ""
    reserved: bool = False
    stand_in: bool = False
    known: bool = False


@lru_cache(maxsize=1)
def host_file() -> HostFile:
    """The names that are known beforehand."""
    return msgspec.yaml.decode((RULES / "hosts.yaml").read_bytes(), type=HostFile)


@lru_cache(maxsize=1)
def _endings() -> "PublicSuffixList":
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415  60 ms, and only where a policy looks at links

    return PublicSuffixList(accept_unknown=False)


def warm() -> None:
    """Read the lists now: no answer should wait for it."""
    for read in (host_file, _endings, _brands):
        read()


def registrable(name: str) -> str:
    """The part of a name that somebody registered (`b.co.uk` of `a.b.co.uk`); empty if its ending is unknown."""
    found: str | None = _endings().privatesuffix(name)
    return found or ""


def is_ending(name: str) -> bool:
    """Whether names are given away under it."""
    return bool(_endings().publicsuffix(name))


def within(name: str, domains: Iterable[str]) -> bool:
    """Whether a host is one of these or lies below one."""
    return any(name == domain or name.endswith("." + domain) for domain in domains)


def listed(name: str, domains: frozenset[str]) -> bool:
    """The same for many domains."""
    while name:
        if name in domains:
            return True
        name = name.partition(".")[2]
    return False


class Hosts:
    """Judges hosts. `allow` are domains or hosts that a policy trusts, `own_hosts` those that are its own."""

    def __init__(self, *, allow: Sequence[str] = (), own_hosts: Sequence[str] = ()) -> None:
        file = host_file()
        self.allow = frozenset(allow) | frozenset(own_hosts)
        self.own_hosts = frozenset(own_hosts)
        self._shorteners = frozenset(file.shorteners)
        self._throwaway = frozenset(file.throwaway)
        self._free = frozenset(file.free_endings)
        self._brands = _brands() if not own_hosts else Brands.of(file, own_hosts)
        self.judge = lru_cache(maxsize=4_096)(self._judge)

    def _judge(self, name: str) -> Host:
        """What a host's name says of it; `name` as written, without a port."""
        shown = name.strip().rstrip(".").replace("\u3002", ".")
        if not shown or len(shown) > MOST_NAME or (TEMPLATE.search(shown) and not shown.startswith("[")):
            return Host(shown, reserved=True)
        shown = shown.lower()
        if listed(shown, self.own_hosts):
            return Host(shown, shown, reserved=True, known=True)
        if (number := number_of(shown)) is not None:
            return self._number(shown, number.private, hidden=number.hidden)
        if not all(LABEL.fullmatch(label) for label in shown.split(".")):
            return Host(shown, reserved=True)
        return self._name(shown)

    def _number(self, shown: str, private: bool, *, hidden: bool) -> Host:
        if listed(shown, self.allow):
            return Host(shown, shown, known=True)
        if hidden:
            return Host(shown, kind="ip", severity=Severity.HIGH)
        return Host(shown, reserved=True) if private else Host(shown, kind="ip", severity=Severity.MEDIUM)

    def _name(self, shown: str) -> Host:  # noqa: PLR0911  the first that fits counts
        plain = decoded(shown)
        if "." not in shown or shown.rpartition(".")[2] in RESERVED:
            return Host(shown, reserved=True)
        domain = registrable(plain)
        if listed(shown, self.allow):
            return Host(shown, domain, known=True)
        label = (domain or shown).partition(".")[0]
        if EXAMPLES.fullmatch(label):
            return Host(shown, domain, reserved=domain in DOCUMENTED, stand_in=True)
        if listed(shown, self._shorteners):
            return Host(shown, domain, "shortener")
        if listed(shown, self._throwaway):
            return Host(shown, domain, "throwaway", Severity.MEDIUM)
        if self._brands.own(plain):
            return Host(shown, domain, known=True)
        if like := self._brands.like(plain, domain):
            return Host(shown, domain, "lookalike", Severity.HIGH, like=like)
        if severity := _mixed(plain):
            return Host(shown, domain, "punycode", severity)
        if PREFIX in shown:
            return Host(shown, domain, "punycode", Severity.LOW)
        if shown.rpartition(".")[2] in self._free:
            return Host(shown, domain, "throwaway")
        return Host(shown, domain, reserved=not domain)


class Brands:
    """The names that others pretend to be, ready to be compared with."""

    def __init__(self, brands: Sequence[Brand], honest: Iterable[str], baits: Iterable[str]) -> None:
        self._domains = frozenset(domain for brand in brands for domain in brand.own)
        self._honest = frozenset(honest)
        self._baits = frozenset(baits)
        self._labels: Mapping[str, Brand] = {brand.label: brand for brand in brands}
        self._shapes = {skeleton(brand.label): brand for brand in brands if len(brand.label) > 3}  # noqa: PLR2004
        self._near = Neighbours(brand.label for brand in brands if not brand.exact)
        self._tokens = {skeleton(brand.label): brand for brand in brands if len(brand.label) > 4}  # noqa: PLR2004

    @classmethod
    def of(cls, file: HostFile, own_hosts: Sequence[str] = ()) -> "Brands":
        """Of the file, and of hosts that are a policy's own."""
        own = [Brand([registrable(host) or host]) for host in own_hosts]
        return cls([*own, *file.brands], file.honest, file.baits)

    def own(self, name: str) -> bool:
        """Whether a host is a brand's."""
        return listed(name, self._domains) or listed(name, self._honest)

    def like(self, name: str, domain: str) -> str:
        """The domain that a host pretends to be; empty if it does not."""
        if not domain:
            return ""
        if like := self._before(name, domain):
            return like
        label, _, ending = domain.partition(".")
        brand = self._labels.get(label)
        if brand is not None:
            return brand.own[0] if brand.alone and ending not in {"edu", "gov", "mil"} else ""
        shape = skeleton(label)
        bare = shape.replace("-", "")
        brand = self._shapes.get(shape) or self._shapes.get(bare)
        if brand is None and not domain.isascii():
            return ""
        if brand is None and (near := self._near.of(label) or self._near.of(label.replace("-", ""))):
            brand = self._labels[near]
        if brand is None:
            brand = self._baited(shape)
        return brand.own[0] if brand is not None else ""

    def _before(self, name: str, domain: str) -> str:
        """A brand's whole domain stands before the one that counts: `openai.com.evil.io`."""
        parts = name[: -len(domain)].rstrip(".").split(".") if len(name) > len(domain) else []
        for first in range(len(parts) - 1):
            for last in range(first + 2, min(len(parts), first + 4) + 1):
                said = ".".join(parts[first:last])
                if said in self._domains:
                    return said
        return self._joined(name) if "-" in name else ""

    def _joined(self, name: str) -> str:
        """A brand's whole domain before a hyphen: `openai.com-login.io`."""
        parts = name.split(".")
        for last, label in enumerate(parts):
            head, hyphen, _ = label.partition("-")
            for first in range(max(0, last - MOST_PARTS), last) if hyphen else ():
                if (said := ".".join((*parts[first:last], head))) in self._domains:
                    return said
        return ""

    def _baited(self, shape: str) -> Brand | None:
        """A brand's name with words that lure: `paypal-login`, `openaiapi`."""
        words = shape.split("-")
        if len(words) > 1:
            named = [word for word in words if word in self._tokens]
            if len(named) == 1 and all(word in named or word in self._lures or word.isdigit() for word in words):
                return self._tokens[named[0]]
            return None
        for token, brand in self._tokens.items():
            if len(shape) > len(token) and (shape.startswith(token) or shape.endswith(token)):
                rest = shape[len(token) :] if shape.startswith(token) else shape[: -len(token)]
                if len(rest) > 2 and rest in self._lures:  # noqa: PLR2004  `the`, `com`
                    return brand
        return None

    @property
    def _lures(self) -> frozenset[str]:
        return _shapes_of(self._baits)


@lru_cache(maxsize=4)
def _shapes_of(words: frozenset[str]) -> frozenset[str]:
    return frozenset(map(skeleton, words))


@lru_cache(maxsize=1)
def _brands() -> Brands:
    return Brands.of(host_file())


def decoded(name: str) -> str:
    """A name with its `xn--` parts as they are shown; what is not one stays as it is."""
    if PREFIX not in name:
        return name
    shown = []
    for label in name.split("."):
        if label.startswith(PREFIX):
            try:
                shown.append(label[len(PREFIX) :].encode("ascii").decode("punycode"))
            except (UnicodeError, IndexError, OverflowError):
                shown.append(label)
        else:
            shown.append(label)
    return ".".join(shown)


def _mixed(name: str) -> Severity | None:
    """Letters of several alphabets in one part, or one that is written in look-alikes only, under a Latin ending."""
    if name.isascii():
        return None
    for label in name.split("."):
        if label.isascii():
            continue
        foreign = {script for script, first, last in SCRIPTS if any(first <= ord(c) < last for c in label)}
        if foreign and (len(foreign) > 1 or any(c.isascii() and c.isalpha() for c in label)):
            return Severity.MEDIUM
        if foreign and label.translate(confusables()).isascii() and name.rpartition(".")[2].isascii():
            return Severity.MEDIUM
    return None
