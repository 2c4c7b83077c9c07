"""A pack that cannot be used says where and why, for every mistake at once."""

from pathlib import Path

import pytest

from conclave.safety.api import Origin, Severity
from conclave.safety.detect.packs import MOST_BYTES, PackError, read_pack, shipped

GOOD = """\
# ours
rules:
  - name: heron
    severity: high
    literals: [Project Heron, no]
    origins: [user, tool]
    message: Not announced.
  - name: ticket
    pattern: '\\bOPS-\\d+\\b'
    unless: ['closed']
    directions: [request, answer]
    begins: [OPS-]
"""


def pack(folder: Path, text: str | bytes) -> Path:
    path = folder / "pack.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(PackError) as caught:
        read_pack(path)
    assert str(caught.value).startswith(f"{path}:")
    return [f"{fault.line}: {fault.message}" for fault in caught.value.faults]


def test_a_pack_is_read_as_it_is_written(tmp_path: Path) -> None:
    heron, ticket = read_pack(pack(tmp_path, GOOD))
    assert (heron.severity, heron.literals, heron.origins) == (
        Severity.HIGH,
        ("Project Heron", "no"),
        {Origin.USER, Origin.TOOL},
    )
    assert (ticket.pattern, ticket.severity, ticket.origins) == (r"\bOPS-\d+\b", Severity.MEDIUM, frozenset(Origin))
    assert (ticket.directions, ticket.begins) == ({"request", "answer"}, ("OPS-",))


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    text = """\
rules:
  - name: One
    literals: [abc]
  - name: two
    patern: abc
  - name: three
    pattern: '(abc'
  - name: four
    literals: abc
  - name: five
    literals: [abc]
    origins: [users]
  - name: six
    literals: [abc]
    severity: severe
  - name: seven
  - name: eight
    literals: [abc]
  - name: eight
    literals: [abc]
"""
    assert faults(pack(tmp_path, text)) == [
        "2: name: 'One': a rule needs a name of up to 64 of a-z, 0-9 and _, which begins with a letter",
        "5: unknown key 'patern'; did you mean 'pattern'?",
        "7: pattern: RE2 does not take it (missing ): (abc); it has no look-around and no back-reference",
        "9: literals: must be a list, such as [a, b]",
        "12: origins: 'users' is none of system, developer, user, assistant, tool, file, image, retrieved, memory",
        "15: severity: 'severe' is none of low, medium, high",
        "16: pattern: is missing; a rule needs a pattern, literals, or both",
        "19: name: 'eight' is given twice, first on line 17",
    ]


HOPELESS = {
    "empty": ("", "1: has no rules"),
    "no rules": ("rules: []", "1: has no rules"),
    "a list": ("- a", "1: must be a mapping with rules"),
    "a text": ("hello", "1: must be a mapping with rules"),
    "rules of texts": ("rules: [a]", "1: must be a mapping with name"),
    "no YAML": ("rules:\n  - name: [", "is not YAML"),
    "a tab": ("rules:\n\t- name: a", "2: is not YAML"),
    "control character": ("rules:\n - name: a\x01", "2: holds a control character"),
    "not UTF-8": (b"rules:\n  - name: \xff", "2: is not UTF-8"),
    "anchors": ("rules: &a\n  - name: *a", "anchors are not read"),
    "deep": ("[" * 100_000, "1: is not YAML: is nested too deeply"),
    "large": (b"#" * (MOST_BYTES + 1), "make two packs of it"),
    "a key twice": ("rules: [{name: a, name: b, literals: [abc]}]", "name is given twice"),
}


@pytest.mark.parametrize(("text", "complaint"), HOPELESS.values(), ids=HOPELESS)
def test_what_is_no_pack_is_refused(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    assert complaint in " | ".join(faults(pack(tmp_path, text)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert faults(tmp_path / "pack.yaml") == ["1: cannot be read: No such file or directory"]


def test_the_shipped_pack_is_sound() -> None:
    rules = shipped()
    assert len({rule.name for rule in rules}) == len(rules) >= 10
    assert all(rule.message and "system" not in map(str, rule.origins) for rule in rules)
