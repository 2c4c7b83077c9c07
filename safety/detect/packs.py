"""Signature packs: rules in a YAML file. Every problem at once, each with its line and what to do about it.

    rules:
      - name: project_names
        severity: high
        literals: [Project Heron, Projekt Reiher]
        origins: [user, tool]
        message: Name no unannounced project.

A value is a text or a list of texts; anchors, tags and documents within documents are not read. Nothing here compiles
rules together or knows a policy.
"""

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from conclave.safety.api import Origin, Severity
from conclave.safety.detect.signatures import MOST_RULES, Direction, Signature, SignatureError

SHIPPED: Final = Path(__file__).parent.parent / "rules" / "signatures.yaml"
MOST_BYTES: Final = 1 << 20
MOST_DEPTH: Final = 4  # the file, its rules, a rule, a list in it
NAME_CHARS: Final = 64
KEYS: Final = ("name", "severity", "pattern", "literals", "origins", "directions", "unless", "begins", "message")
LISTS: Final = frozenset({"literals", "origins", "directions", "unless", "begins"})
SEVERITIES: Final = tuple(one.name.lower() for one in Severity)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where."""

    line: int
    message: str


class PackError(ValueError):
    """A pack that cannot be used; `faults` are all that was found."""

    def __init__(self, path: Path, faults: Collection[Fault]) -> None:
        super().__init__("\n".join(f"{path}:{fault.line}: {fault.message}" for fault in faults))
        self.path = path
        self.faults = tuple(faults)


def shipped() -> tuple[Signature, ...]:
    """The rules that come with Conclave."""
    return read_pack(SHIPPED)


def read_pack(path: Path) -> tuple[Signature, ...]:
    """The rules of a file; raises PackError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise PackError(path, [Fault(1, f"cannot be read: {error.strerror}")]) from error
    if len(raw) > MOST_BYTES:
        raise PackError(path, [Fault(1, f"is larger than {MOST_BYTES} bytes; make two packs of it")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PackError(path, [Fault(raw.count(b"\n", 0, error.start) + 1, "is not UTF-8")]) from error
    reader = _Reader()
    rules = tuple(reader.rules(text))
    if reader.faults:
        raise PackError(path, sorted(reader.faults, key=lambda fault: fault.line))
    return rules


class _Reader:
    """Takes YAML's nodes apart, because they know their lines."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._names: dict[str, int] = {}

    def rules(self, text: str) -> Iterator[Signature]:
        import yaml  # noqa: PLC0415  only where there is a pack

        try:
            node = _composed(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._blame(mark, f"is not YAML: {error.problem or error.context}")
            return
        except yaml.reader.ReaderError as error:
            self.faults.append(Fault(text.count("\n", 0, error.position) + 1, "holds a control character"))
            return
        listed = dict(self._pairs(node, ("rules",))).get("rules") if node is not None else None
        if not isinstance(listed, yaml.SequenceNode) or not listed.value:
            self._blame((listed or node).start_mark if node is not None else None, EMPTY)
            return
        if len(listed.value) > MOST_RULES:
            self._blame(listed.start_mark, f"has {len(listed.value)} rules; {MOST_RULES} at most")
            return
        for one in listed.value:
            rule = self._rule(one)
            if rule is not None:
                yield rule

    def _rule(self, node: Any) -> Signature | None:
        before = len(self.faults)
        lines: dict[str, Any] = {}
        said: dict[str, Any] = {}
        for key, value in self._pairs(node, KEYS):
            lines[key] = value.start_mark
            said[key] = self._texts(key, value) if key in LISTS else self._text(key, value)
        if len(self.faults) > before:
            return None
        name = said.get("name", "")
        if not _is_name(name):
            self._blame(lines.get("name", node.start_mark), f"name: {name[:NAME_CHARS]!r}: {NAMED}")
            return None
        if name in self._names:
            self._blame(lines["name"], f"name: {name!r} is given twice, first on line {self._names[name]}")
            return None
        self._names[name] = lines["name"].line + 1
        said["severity"] = self._one_of("severity", said.get("severity", "medium"), SEVERITIES, lines)
        for key, known in (("origins", tuple(map(str, Origin))), ("directions", get_args(Direction))):
            if key in said:
                said[key] = frozenset(self._one_of(key, one, known, lines) for one in said[key])
        if len(self.faults) > before:
            return None
        if "origins" in said:
            said["origins"] = frozenset(map(Origin, said["origins"]))
        try:
            return Signature(**{**said, "severity": Severity[said["severity"].upper()]}).check()
        except SignatureError as error:
            self._blame(lines.get(error.key, node.start_mark), f"{error.key}: {error.message}")
            return None

    def _pairs(self, node: Any, known: Collection[str]) -> Iterator[tuple[str, Any]]:
        import yaml  # noqa: PLC0415

        if not isinstance(node, yaml.MappingNode):
            self._blame(node.start_mark, f"must be a mapping with {', '.join(known)}")
            return
        seen: set[str] = set()
        for key_node, value in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                words = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                self._blame(key_node.start_mark, f"unknown key {key[:NAME_CHARS]!r}; {words}")
            elif key in seen:
                self._blame(key_node.start_mark, f"{key} is given twice")
            else:
                seen.add(key)
                yield key, value

    def _text(self, key: str, node: Any) -> str:
        import yaml  # noqa: PLC0415

        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        self._blame(node.start_mark, f"{key}: must be a text")
        return ""

    def _texts(self, key: str, node: Any) -> tuple[str, ...]:
        import yaml  # noqa: PLC0415

        if isinstance(node, yaml.SequenceNode) and node.value:
            return tuple(self._text(key, one) for one in node.value)
        self._blame(node.start_mark, f"{key}: must be a list, such as [a, b]")
        return ()

    def _one_of(self, key: str, said: str, known: Collection[str], lines: dict[str, Any]) -> str:
        if said not in known:
            self._blame(lines[key], f"{key}: {said[:NAME_CHARS]!r} is none of {', '.join(known)}")
        return said

    def _blame(self, mark: Any, message: str) -> None:
        self.faults.append(Fault(mark.line + 1 if mark is not None else 1, message))


def _composed(text: str) -> Any:
    """The root node; nothing deep or repeated gets so far: libyaml's composer calls itself for each level."""
    import yaml  # noqa: PLC0415

    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    depth = 0
    for event in yaml.parse(text, loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="anchors are not read; write the value out", problem_mark=_mark(event))
        if depth > MOST_DEPTH:
            raise yaml.MarkedYAMLError(problem="is nested too deeply", problem_mark=_mark(event))
    return yaml.compose(text, loader)


def _mark(event: Any) -> Any:
    """libyaml's marks are a class of their own, with the same `line`."""
    return event.start_mark


def _is_name(name: str) -> bool:
    plain = name.isascii() and name.replace("_", "").isalnum() and name == name.lower()
    return plain and name[:1].isalpha() and len(name) <= NAME_CHARS


NAMED: Final = f"a rule needs a name of up to {NAME_CHARS} of a-z, 0-9 and _, which begins with a letter"
EMPTY: Final = "has no rules; write `rules:` and below it a list of them"
