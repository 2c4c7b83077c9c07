"""The shipped lists: what they say of every name that they were made of, and how they are made."""

import gzip
from pathlib import Path

import msgspec
import pytest

from conclave.safety.api import Finding, Severity
from conclave.safety.output.api import Excerpt
from conclave.safety.output.packages.build import MALICIOUS, POPULAR, built
from conclave.safety.output.packages.build import build as build_lists
from conclave.safety.output.packages.check import PackageCheck
from conclave.safety.output.packages.ecosystems import Ecosystem
from conclave.safety.output.packages.index import HEADER, NAMES, SHIPPED, PackageIndex

COMMANDS = {
    Ecosystem.PYPI: "pip install {}",
    Ecosystem.NPM: "npm install {}",
    Ecosystem.GO: "go get {}",
    Ecosystem.RUBYGEMS: "gem install {}",
}
OTHERS = (
    ("bash", Ecosystem.PYPI, "python3 -m pip install --upgrade {}==1.0"),
    ("bash", Ecosystem.PYPI, "uv add {}"),
    ("bash", Ecosystem.PYPI, "poetry add {}@latest"),
    ("", Ecosystem.PYPI, "{}==1.2.3"),
    ("bash", Ecosystem.NPM, "npx {} --help"),
    ("bash", Ecosystem.NPM, "yarn add {}@1.0.0"),
    ("bash", Ecosystem.NPM, "pnpm add -D {}"),
    ("json", Ecosystem.NPM, '    "{}": "^1.0.0",'),
)
WARNED_SHARE = 0.01


def said_of(check: PackageCheck, text: str, language: str = "bash") -> list[Finding]:
    return list(check.inspect(Excerpt(text, code=True, language=language)))


@pytest.mark.parametrize("ecosystem", [Ecosystem.PYPI, Ecosystem.NPM])
def test_every_malicious_name_in_an_install_command_is_flagged(
    packages: PackageCheck, index: PackageIndex, ecosystem: Ecosystem
) -> None:
    missed = []
    for name in index.malicious[ecosystem]:
        found = said_of(packages, COMMANDS[ecosystem].format(name))
        if [(one.kind, one.severity) for one in found] != [("package.known_malicious", Severity.HIGH)]:
            missed.append(name)
    assert missed == []


@pytest.mark.parametrize(("language", "ecosystem", "form"), OTHERS, ids=[form for _, _, form in OTHERS])
def test_every_tenth_of_them_is_flagged_however_it_is_installed(
    packages: PackageCheck, index: PackageIndex, language: str, ecosystem: Ecosystem, form: str
) -> None:
    names = sorted(index.malicious[ecosystem])[::10]
    kinds = {name: [one.kind for one in said_of(packages, form.format(name), language)] for name in names}
    assert {name: kind for name, kind in kinds.items() if kind != ["package.known_malicious"]} == {}


@pytest.mark.parametrize("ecosystem", [Ecosystem.PYPI, Ecosystem.NPM])
def test_without_the_list_of_malicious_names_each_of_them_is_unknown_or_worse(
    index: PackageIndex, ecosystem: Ecosystem
) -> None:
    withheld = PackageCheck(index=PackageIndex({}, {}, index.popular))
    names = index.malicious[ecosystem]
    assert [name for name in names if not said_of(withheld, COMMANDS[ecosystem].format(name))] == []


@pytest.mark.parametrize("ecosystem", list(COMMANDS), ids=str)
def test_of_the_much_used_names_none_of_the_first_5000_is_flagged_and_at_most_one_in_a_hundred_of_the_others(
    packages: PackageCheck, index: PackageIndex, ecosystem: Ecosystem
) -> None:
    names = index.popular[ecosystem]
    flagged = [place for place, name in enumerate(names) if said_of(packages, COMMANDS[ecosystem].format(name))]
    assert [place for place in flagged if place < 5_000] == []
    assert len(flagged) <= WARNED_SHARE * max(1, len(names) - 5_000)


def test_once_compromised_packages_are_annotated_at_most(packages: PackageCheck, index: PackageIndex) -> None:
    for ecosystem, names in index.compromised.items():
        found = [one for name in names for one in said_of(packages, COMMANDS[ecosystem].format(name))]
        assert {one.severity for one in found} <= {Severity.LOW}
        assert {one.kind for one in found} <= {"package.compromised"}


def rows(path: Path, *values: dict[str, object]) -> None:
    with gzip.open(path, "wb") as opened:
        opened.write(b"\n".join(map(msgspec.json.encode, values)))


def sources(folder: Path, *malicious: dict[str, object]) -> Path:
    rows(folder / MALICIOUS, *malicious)
    rows(folder / POPULAR, {"ecosystem": "pypi", "name": "Good_Name", "rank": 1})
    return folder


def test_what_was_built_is_what_is_read(tmp_path: Path) -> None:
    data = sources(tmp_path, {"ecosystem": "pypi", "name": "Bad.Name", "kind": "malicious_intent"})
    build_lists(data, tmp_path / "out")
    index = PackageIndex.load(tmp_path / "out")
    assert index == built(data)
    assert index.malicious[Ecosystem.PYPI] == {"bad-name"}
    assert "good-name" in index.popular[Ecosystem.PYPI]


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    data = sources(tmp_path, {"ecosystem": "npm", "name": "bad", "kind": "malicious_intent"})
    for out in ("one", "two"):
        build_lists(data, tmp_path / out)
    assert (tmp_path / "one" / NAMES).read_bytes() == (tmp_path / "two" / NAMES).read_bytes()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"ecosystem": "pypi", "name": "good-name", "kind": "malicious_intent"}, "stands in both lists"),
        ({"ecosystem": "pypi", "name": "x", "kind": "strange"}, "no kind of package"),
        ({"ecosystem": "pipy", "name": "x", "kind": "malicious_intent"}, "line 1"),
        ({"ecosystem": "npm", "name": "x y", "kind": "malicious_intent"}, "no name of a package"),
    ],
    ids=["in both", "unknown kind", "unknown ecosystem", "no name"],
)
def test_a_row_that_makes_no_sense_is_an_error_that_says_so(tmp_path: Path, row: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        built(sources(tmp_path, row))


@pytest.mark.parametrize("damage", [b"", b"not zlib", None], ids=["empty", "no zlib", "one byte other"])
def test_a_damaged_list_is_not_used(tmp_path: Path, damage: bytes | None) -> None:
    """A list that has lost a name would be silent about it."""
    for name in (HEADER, NAMES):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    packed = bytearray((tmp_path / NAMES).read_bytes())
    packed[len(packed) // 2] ^= 1
    (tmp_path / NAMES).write_bytes(bytes(packed) if damage is None else damage)
    with pytest.raises(ValueError, match=NAMES):
        PackageIndex.load(tmp_path)
