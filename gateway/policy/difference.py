"""What differs between two policy documents, by the path of the setting; and a document as the YAML of a file."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import yaml

from conclave.gateway.policy.source import Loc, dotted

Sign: TypeAlias = Literal["~", "+", "-"]  # changed, added, removed
NOTHING: Final[tuple[object, ...]] = (None, [])  # defaults that say nothing of an expert that came or went
PLAIN: Final = re.compile(r"[A-Za-z_][\w./-]*(?: [A-Za-z_][\w./-]*)*", re.ASCII)
WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})  # to some YAML readers


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that is not the same."""

    sign: Sign
    path: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        if self.sign == "~":
            return f"~ {self.path}: {_shown(self.before)} -> {_shown(self.after)}"
        return f"{self.sign} {self.path}: {_shown(self.after if self.sign == '+' else self.before)}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Of two documents as files would write them (`plain_of`), sorted by path."""
    old, new = dict(_leaves(before, ())), dict(_leaves(after, ()))
    found = []
    for loc in sorted({*old, *new}, key=dotted):
        path = dotted(loc)
        if loc in old and loc in new:
            if old[loc] != new[loc]:
                found.append(Difference("~", path, old[loc], new[loc]))
        elif loc in new:
            if not _says_nothing(loc, new[loc]):
                found.append(Difference("+", path, after=new[loc]))
        elif not _says_nothing(loc, old[loc]):
            found.append(Difference("-", path, before=old[loc]))
    orders = list(before["experts"]), list(after["experts"])
    if orders[0] != orders[1] and set(orders[0]) == set(orders[1]):
        found.append(Difference("~", "the order of experts", *orders))
    return found


def as_yaml(plain: Mapping[str, Any]) -> str:
    """The policy half of a file that means this document."""
    return yaml.dump({"policy": plain}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _leaves(value: Any, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    """Every value that is no mapping, with its path; a list of plain values is one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*loc, key))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*loc, index))
    else:
        yield loc, value


def _says_nothing(loc: Loc, value: Any) -> bool:
    return loc[0] == "experts" and value in NOTHING


def _shown(value: Any) -> str:
    """On one line, and without a character that could steer a terminal."""
    return json.dumps(value, ensure_ascii=True)


class _Dumper(yaml.SafeDumper):
    """Quotes what another reader of YAML could take for something else than a string."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  PyYAML's signature: everything is written out
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = PLAIN.fullmatch(text) and text.lower() not in WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _string)
