"""Builds the lists of package names from their sources: `conclave safety lists build --data DIR`, about a second.

A name that is both malicious and much used would block honest answers, so such a row is an error and not a choice.
"""

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from conclave.safety.output.packages.ecosystems import LONGEST_NAME, Ecosystem, canonical
from conclave.safety.output.packages.index import Header, PackageIndex
from conclave.safety.output.packages.vocabulary import vocabulary

MALICIOUS: Final = "malicious_packages.jsonl.gz"
POPULAR: Final = "package_names.jsonl.gz"
INTENT: Final = "malicious_intent"  # the package was made to harm
ALSO_RANK: Final = 1_000  # of the names that are added by hand
COMPROMISED: Final = "compromised_lib"  # an honest package, some versions of which were not


class Row(msgspec.Struct):
    """A row of either source."""

    ecosystem: Ecosystem
    name: str
    kind: str = ""
    rank: int = 0


def built(data: Path) -> PackageIndex:
    """The lists of a folder's two sources. Raises FileNotFoundError, and ValueError with the row that is wrong."""
    bad: dict[str, dict[Ecosystem, set[str]]] = {INTENT: {}, COMPROMISED: {}}
    for row in _rows(data / MALICIOUS):
        if row.kind not in bad:
            raise ValueError(f"{MALICIOUS}: {row.kind!r} is no kind of package; known: {', '.join(bad)}")
        bad[row.kind].setdefault(row.ecosystem, set()).add(canonical(row.ecosystem, row.name))
    ranked: dict[Ecosystem, dict[str, int]] = {}
    for row in _rows(data / POPULAR):
        names, name = ranked.setdefault(row.ecosystem, {}), canonical(row.ecosystem, row.name)
        names[name] = min(row.rank, names.get(name, row.rank))
    for ecosystem, others in vocabulary().also_used.items():
        names = ranked.setdefault(Ecosystem(ecosystem), {})
        for name in others:
            names.setdefault(name, ALSO_RANK)
    for ecosystem, names in ranked.items():
        if both := sorted(bad[INTENT].get(ecosystem, set()) & names.keys()):
            raise ValueError(f"{both[0]!r} of {ecosystem} stands in both lists; one of them is wrong")
    return PackageIndex(
        malicious={ecosystem: frozenset(names) for ecosystem, names in bad[INTENT].items()},
        compromised={ecosystem: frozenset(names) for ecosystem, names in bad[COMPROMISED].items()},
        popular={ecosystem: sorted(names, key=lambda name: (names[name], name)) for ecosystem, names in ranked.items()},
    )


def build(data: Path, out: Path) -> Header:
    """Write the lists of a folder's sources into another. As `built`."""
    return built(data).save(out, sources=_digests(data))


def _digests(data: Path) -> Mapping[str, str]:
    return {name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in (MALICIOUS, POPULAR)}


def _rows(path: Path) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(Row)
    with gzip.open(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise ValueError(f"{path.name}, line {number}: {error}") from error
            if not 0 < len(row.name) <= LONGEST_NAME or not row.name.isprintable() or " " in row.name:
                raise ValueError(f"{path.name}, line {number}: {row.name[:64]!r} is no name of a package")
            yield row
