"""Lockfiles and SBOMs, as their tools write them, cut short."""

from pathlib import Path

import pytest

from conclave.safety.output.packages.ecosystems import Ecosystem
from conclave.safety.output.packages.lockfiles import MOST_BYTES, read_lockfile

FILES = {
    "requirements.txt": (
        "Flask==3.0.0 \\\n    --hash=sha256:aa\nmy_pkg>=1 ; python_version > '3'\n# no\n-r other.txt\n",
        "pypi",
        {"flask", "my-pkg"},
    ),
    "requirements-dev.in": ("pytest\n", "pypi", {"pytest"}),
    "poetry.lock": ('[[package]]\nname = "Foo.Bar"\nversion = "1"\n\n[metadata]\nx = "1"\n', "pypi", {"foo-bar"}),
    "uv.lock": (
        'version = 1\n[[package]]\nname = "foo"\nsource = { registry = "https://acme.example" }\n',
        "pypi",
        {"foo"},
    ),
    "Cargo.lock": ('[[package]]\nname = "serde_json"\nversion = "1.0"\n', "cargo", {"serde-json"}),
    "package-lock.json": (
        '{"packages": {"": {}, "node_modules/a": {}, "node_modules/a/node_modules/@s/b": {}},'
        ' "dependencies": {"c": {"dependencies": {"d": {}}}}}',
        "npm",
        {"a", "@s/b", "c", "d"},
    ),
    "yarn.lock": (
        '# v1\n\n"@s/a@^1.0", "@s/a@^1.1":\n  version "1.1"\n  dependencies:\n    x "^1"\n\nb@^2:\n  version "2"\n',
        "npm",
        {"@s/a", "b"},
    ),
    "pnpm-lock.yaml": (
        "lockfileVersion: '9.0'\npackages:\n\n  '@s/a@1.0.0':\n    resolution: {}\n\n"
        "  b@2.0.0:\n    x: y\n  /c/3.0.0:\n    x: y\n",
        "npm",
        {"@s/a", "b", "c"},
    ),
    "go.sum": ("github.com/a/b/v2 v2.0.0 h1:x=\ngithub.com/a/b/v2 v2.0.0/go.mod h1:y=\n", "go", {"github.com/a/b"}),
    "Gemfile.lock": (
        "GEM\n  specs:\n    rails (7.1.0)\n      actionpack (= 7.1.0)\n\nDEPENDENCIES\n  rails\n",
        "rubygems",
        {"rails"},
    ),
    "bom.json": (
        '{"bomFormat": "CycloneDX", "components": ['
        '{"purl": "pkg:npm/%40s/a@1.0", "components": [{"purl": "pkg:npm/b@1"}]}]}',
        "npm",
        {"@s/a", "b"},
    ),
    "sbom.spdx.json": (
        '{"spdxVersion": "SPDX-2.3", "packages": [{"externalRefs": [{"referenceLocator": "pkg:pypi/Foo@1"}]}]}',
        "pypi",
        {"foo"},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_the_names_of_a_file_are_read(tmp_path: Path, name: str) -> None:
    text, ecosystem, names = FILES[name]
    (tmp_path / name).write_text(text)
    assert read_lockfile(tmp_path / name) == {Ecosystem(ecosystem): names}


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("Cargo.toml", b"", "no lockfile that is known here"),
        ("poetry.lock", b"[[package", "cannot be read as poetry.lock"),
        ("package-lock.json", b"[]", "cannot be read as package-lock.json"),
        ("package-lock.json", b'{"dependencies": ' * 100_000, "cannot be read"),
        ("poetry.lock", b'package = "x"', "names no package"),
        ("go.sum", b"\xff\xfe", "no UTF-8"),
        ("bom.json", b"{}", "nor a CycloneDX"),
        ("yarn.lock", b"", "names no package"),
        ("requirements.txt", b"x" * (MOST_BYTES + 1), "more than 16 MiB"),
        ("requirements.txt", b"\n".join(b"p%d==1" % n for n in range(50_001)), "more than 50000 packages"),
    ],
    ids=["no lockfile", "broken", "a list", "nested", "no packages", "no text", "no sbom", "empty", "huge", "many"],
)
def test_what_is_no_lockfile_is_refused_with_what_was_expected(
    tmp_path: Path, name: str, raw: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=words):
        read_lockfile(tmp_path / name)
