"""The lists of package names that ship with Conclave: which are malicious, which were once, and which are much used.

Names are kept as they are, not as hashes, so that no other name is ever taken for one of them. The file is one block of
compressed lines; its card and counts stand beside it in JSON. Read once, when a policy needs it; never written here.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

import msgspec

from conclave.safety.output.packages.ecosystems import Ecosystem, owner
from conclave.safety.output.packages.names import Neighbours

SHIPPED: Final = Path(__file__).parents[2] / "artifacts" / "packages"
HEADER: Final = "lists.json"
NAMES: Final = "lists.bin"
MOST_BYTES: Final = 16 * 2**20  # unpacked; the shipped lists have 0.6 MB
FORMAT: Final = 1


class Header(msgspec.Struct, frozen=True):
    """What lies in the block: `lists` in its order, each with how many names it has; `sha256` of it unpacked."""

    format: int
    sha256: str
    lists: dict[str, int]
    sources: dict[str, str]


@dataclass(frozen=True)
class PackageIndex:
    """Canonical names. `popular` has the most used first; an ecosystem without such a list is not in it."""

    malicious: Mapping[Ecosystem, frozenset[str]]
    compromised: Mapping[Ecosystem, frozenset[str]]
    popular: Mapping[Ecosystem, Sequence[str]]
    digest: str = field(default="", compare=False)

    @classmethod
    def load(cls, folder: Path = SHIPPED) -> "PackageIndex":
        """Raises FileNotFoundError, and ValueError for files that do not belong together."""
        header = msgspec.json.decode((folder / HEADER).read_bytes(), type=Header)
        try:
            text = zlib.decompressobj().decompress((folder / NAMES).read_bytes(), MOST_BYTES)
        except zlib.error as error:
            raise ValueError(f"{folder / NAMES} cannot be unpacked: {error}") from error
        names = text.decode().split("\n")
        sound = hashlib.sha256(text).hexdigest() == header.sha256 and len(names) == sum(header.lists.values())
        if header.format != FORMAT or not sound:
            raise ValueError(f"{folder / NAMES} is not the file that {HEADER} describes: build both again")
        found: dict[str, dict[Ecosystem, list[str]]] = {"malicious": {}, "compromised": {}, "popular": {}}
        for name, size in header.lists.items():
            kind, _, ecosystem = name.partition(".")
            found[kind][Ecosystem(ecosystem)] = names[:size]
            del names[:size]
        return cls(_sets(found["malicious"]), _sets(found["compromised"]), found["popular"], header.sha256)

    def save(self, folder: Path, *, sources: Mapping[str, str]) -> Header:
        """Write it into a folder: the same names make the same bytes."""
        lists = {
            f"{kind}.{ecosystem}": list(names) if kind == "popular" else sorted(names)
            for kind in ("malicious", "compromised", "popular")
            for ecosystem, names in sorted(getattr(self, kind).items())
            if names
        }
        text = "\n".join(name for names in lists.values() for name in names).encode()
        sizes = {name: len(names) for name, names in lists.items()}
        header = Header(FORMAT, hashlib.sha256(text).hexdigest(), sizes, dict(sources))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAMES).write_bytes(zlib.compress(text, 9))
        (folder / HEADER).write_bytes(msgspec.json.format(msgspec.json.encode(header), indent=2) + b"\n")
        return header

    def is_listed(self, ecosystem: Ecosystem) -> bool:
        """Whether there is a list of the much used names."""
        return ecosystem in self.popular

    def is_popular(self, ecosystem: Ecosystem, name: str) -> bool:
        """Whether a name is much used, or only whoever publishes much used ones can publish it."""
        known = self._known.get(ecosystem, frozenset())
        if name in known or owner(ecosystem, name) in self._owners.get(ecosystem, frozenset()):
            return True
        return ecosystem is Ecosystem.GO and any(name[:at] in known for at, sign in enumerate(name) if sign == "/")

    @cached_property
    def neighbours(self) -> Mapping[Ecosystem, Neighbours]:
        """The much used names, and what may be taken for them."""
        return {ecosystem: Neighbours(names) for ecosystem, names in self.popular.items()}

    @cached_property
    def _known(self) -> dict[Ecosystem, frozenset[str]]:
        return _sets(self.popular)

    @cached_property
    def _owners(self) -> dict[Ecosystem, frozenset[str]]:
        return {
            ecosystem: frozenset(filter(None, (owner(ecosystem, name) for name in names)))
            for ecosystem, names in self.popular.items()
        }


def _sets(lists: Mapping[Ecosystem, Sequence[str]]) -> dict[Ecosystem, frozenset[str]]:
    return {ecosystem: frozenset(names) for ecosystem, names in lists.items()}


@lru_cache(maxsize=1)
def shipped() -> PackageIndex:
    """The lists that come with Conclave, read once."""
    return PackageIndex.load()
