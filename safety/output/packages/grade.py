"""What is said of a package's name: known malicious, near a much used one, unknown, once compromised, or nothing.

Unknown means that nobody here can vouch for it, never that it is bad, and is said only where a list of the much used
names exists. What a tenant uses already is known. Pure but for what it remembers.
"""

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Final, Literal, TypeAlias

from conclave.safety.api import Severity
from conclave.safety.boundary.views import looks
from conclave.safety.output.packages.ecosystems import Ecosystem, canonical
from conclave.safety.output.packages.index import PackageIndex
from conclave.safety.output.packages.mentions import Sure
from conclave.safety.output.packages.names import Neighbours
from conclave.safety.output.packages.vocabulary import vocabulary

Kind: TypeAlias = Literal["known_malicious", "near", "unknown", "compromised"]
LEAST_FOR_IMPORT: Final = 6  # characters; modules of one's own have short names
REMEMBERED: Final = 4_096  # names
PLACEHOLDER: Final = re.compile(
    r"(?:(?:your|my|some|example|sample|the|other)[-_.]?)?(?:package|pkg|module|library|plugin)s?(?:[-_.]?name)?[0-9]?|"
    r"foo|bar|baz|foobar|qux|xxx+|(?:your|my)[-_.]?(?:app|project|lib|tool)"
)
NO_NAMES: Final[frozenset[str]] = frozenset()
UNLISTED: Final = {Ecosystem.CONDA: Ecosystem.PYPI}  # whose malicious names count, too: most are on both


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a tenant uses: `names` that the policy says itself, `globs`, and `locked`, what lockfiles and SBOMs hold."""

    names: Mapping[Ecosystem, frozenset[str]] = field(default_factory=dict)
    globs: Mapping[Ecosystem, tuple[str, ...]] = field(default_factory=dict)
    locked: Mapping[Ecosystem, frozenset[str]] = field(default_factory=dict)

    def names_itself(self, ecosystem: Ecosystem, name: str) -> bool:
        """Whether the policy says the very name: that alone outweighs the list of malicious ones."""
        return name in self.names.get(ecosystem, NO_NAMES)

    def knows(self, ecosystem: Ecosystem, name: str) -> bool:
        """Whether it is used here."""
        return (
            self.names_itself(ecosystem, name)
            or name in self.locked.get(ecosystem, NO_NAMES)
            or any(fnmatch.fnmatchcase(name, glob) for glob in self.globs.get(ecosystem, ()))
        )


@dataclass(frozen=True, slots=True)
class Grade:
    """`meant` is the name that was probably meant, `slip` that it is one slip of the finger away."""

    kind: Kind
    severity: Severity
    meant: str = ""
    slip: bool = False


class Grader:
    """The lists, and what one tenant allows beside them."""

    def __init__(self, index: PackageIndex, allowed: Allowed) -> None:
        self._index = index
        self._allowed = allowed
        names = {*allowed.names, *allowed.locked}
        used = {one: {*allowed.names.get(one, ()), *allowed.locked.get(one, ())} for one in names}
        self._used = {ecosystem: Neighbours(sorted(own)) for ecosystem, own in used.items()}
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._grade)

    def grade(self, ecosystem: Ecosystem, name: str, sure: Sure) -> Grade | None:
        """Of a name as written; None: nothing is to be said."""
        return self._remembered(ecosystem, name, sure)

    def _grade(self, ecosystem: Ecosystem, written: str, sure: Sure) -> Grade | None:
        look = looks(written)
        if not look.isascii():
            return None  # no index takes such names, and no reader takes them for one that it has
        name = canonical(ecosystem, look)
        if self._is_malicious(ecosystem, name) and not self._allowed.names_itself(ecosystem, name):
            return Grade("known_malicious", Severity.HIGH)
        if not written.isascii():  # in a list of anything it is a word of another language
            return None if sure is Sure.PERHAPS else Grade("near", Severity.MEDIUM, name, slip=True)
        if self._allowed.knows(ecosystem, name):
            return None
        popular = self._index.is_popular(ecosystem, name)
        if name in self._index.compromised.get(ecosystem, NO_NAMES):
            return Grade("compromised", Severity.LOW, name if popular else "")
        return None if popular or sure is Sure.PERHAPS else self._of_stranger(ecosystem, name, sure)

    def _of_stranger(self, ecosystem: Ecosystem, name: str, sure: Sure) -> Grade | None:
        """Of a name that nobody here knows."""
        meant, slip = self._nearest(ecosystem, name)
        if meant:
            return Grade("near", Severity.MEDIUM, meant, slip)
        if sure is not Sure.YES or not self._index.is_listed(ecosystem) or PLACEHOLDER.fullmatch(name):
            return None
        return Grade("unknown", Severity.LOW)

    def _is_malicious(self, ecosystem: Ecosystem, name: str) -> bool:
        other = UNLISTED.get(ecosystem, ecosystem)
        return name in self._index.malicious.get(other, NO_NAMES) or (
            other is not ecosystem and canonical(other, name) in self._index.malicious.get(other, NO_NAMES)
        )

    def _nearest(self, ecosystem: Ecosystem, name: str) -> tuple[str, bool]:
        """Of the tenant's own names first: they are what its people mean. And whether it is a slip of the finger."""
        lists = (self._used.get(ecosystem), self._index.neighbours.get(ecosystem))
        for names in filter(None, lists):
            if (alike := names.alike(name)) is not None:
                return alike, False
            if (slip := names.slip(name)) is not None:
                return slip, len(name) >= LEAST_FOR_IMPORT and names.slip(name, most=1) is not None
        if (few := _few(ecosystem)) is not None and (meant := few.same(name) or few.slip(name, most=1)) is not None:
            return ("", False) if meant == name or meant[0] != name[0] else (meant, True)
        return "", False


@cache
def _few(ecosystem: Ecosystem) -> Neighbours | None:
    """Much used names of an index whose names nobody has listed: too few to call others unknown, or siblings near."""
    names = vocabulary().much_used.get(ecosystem)
    return None if names is None else Neighbours(names)
