"""A YAML text as plain values, with the line of every key; for people who need to know where they mistyped.

Only strings, numbers, `true`/`false`, null, lists and mappings come out: `on` and `off` stay words (YAML 1.2), tags and
merge keys are refused, double keys too, and anchors cannot unfold into more than `MAX_VALUES`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import yaml

MAX_BYTES: Final = 1_048_576
MAX_VALUES: Final = 20_000  # an expert is about ten
MAX_DEPTH: Final = 20  # the deepest setting lies at 6
PLAIN_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null"))

Loc: TypeAlias = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `where` is `file:line`, a variable or a secret file; `key` is its dotted path."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class ConfigError(ValueError):
    """The configuration cannot be used; `problems` are all that was found."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Source:
    """What a file says (`data`) and where it says it."""

    label: str
    data: Mapping[str, Any]
    lines: Mapping[Loc, int]
    problems: tuple[Problem, ...] = ()

    def where(self, loc: Loc) -> str:
        """`file:line` of the key, or of the nearest key above it."""
        line, path = 1, Loc()
        for part in loc:
            if (*path, part) in self.lines:
                path = (*path, part)
                line = self.lines[path]
        return f"{self.label}:{line}"


def dotted(loc: Loc) -> str:
    """`policy.experts.fast.deployments[1].model`."""
    text = ""
    for part in loc:
        if part != "[key]":  # pydantic's word for "the key itself is wrong"
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_source(path: Path) -> Source:
    """The file's values; raises ConfigError only if there is nothing to go on with (unreadable, no YAML)."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _hopeless(str(path), f"cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise _hopeless(str(path), f"is larger than {MAX_BYTES} bytes")
    try:
        return parse_source(raw.decode("utf-8-sig"), label=str(path))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _hopeless(f"{path}:{line}", "is not UTF-8") from error


def parse_source(text: str, *, label: str) -> Source:
    """As `read_source`, of a text."""
    try:
        _check_depth(text, label)
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _hopeless(f"{label}:{line}", "holds a control character") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{label}:{min(mark.line, text.count(chr(10))) + 1}" if mark else label  # libyaml: past the last line
        raise _hopeless(where, f"is not YAML: {error.problem or error.context}") from error
    except RecursionError as error:
        raise _hopeless(label, f"is nested deeper than {MAX_DEPTH} levels") from error
    reader = _Reader(loader, label)
    data = reader.value(node, ()) if node is not None else None
    if data is not None and not isinstance(data, dict):
        raise _hopeless(f"{label}:1", "must be a mapping with the keys server and policy")
    return Source(label, data or {}, reader.lines, tuple(reader.problems))


def _check_depth(text: str, label: str) -> None:
    """Before nodes are made of it: libyaml's composer calls itself for each level, without a limit, and crashes."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH + 1:
            where = f"{label}:{event.start_mark.line + 1}" if event.start_mark else label
            raise _hopeless(where, f"is nested deeper than {MAX_DEPTH} levels")


def _hopeless(where: str, message: str) -> ConfigError:
    return ConfigError((Problem(where, "", message),))


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.2's plain scalars: PyYAML's own 1.1 reads `on` as true, `12:30` as 750 and `no` as false."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


@dataclass(slots=True)
class _Reader:
    """Builds values from nodes, notes the lines, collects the problems."""

    loader: _Loader
    label: str
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    values: int = 0

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self.values += 1
        where = f"{self.label}:{node.start_mark.line + 1}"
        if self.values > MAX_VALUES:
            raise _hopeless(where, f"holds more than {MAX_VALUES} values")
        if len(loc) > MAX_DEPTH:
            raise _hopeless(where, f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines.setdefault((*loc, index), item.start_mark.line + 1)
            return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        if node.tag not in PLAIN_TAGS:
            self.problems.append(Problem(where, dotted(loc), f"the tag {node.tag!r} is not allowed here"))
            return None
        try:
            return self.loader.construct_object(node)
        except (ValueError, yaml.YAMLError):
            self.problems.append(Problem(where, dotted(loc), "cannot be read as what its tag says"))
            return None

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                self._complain(
                    line,
                    loc,
                    f"the key {key!r} must be a string; put it in quotes"
                    if isinstance(key, str)
                    else "a key must be a string",
                )
            elif key == "<<":
                self._complain(line, loc, "merge keys (<<) are not read; write the keys out")
            elif key in built:
                self._complain(line, (*loc, key), f"is given twice, first on line {self.lines[(*loc, key)]}")
            else:
                self.lines[(*loc, key)] = line
                built[key] = self.value(value_node, (*loc, key))
        return built

    def _complain(self, line: int, loc: Loc, message: str) -> None:
        self.problems.append(Problem(f"{self.label}:{line}", dotted(loc), message))
