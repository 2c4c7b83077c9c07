"""Insecure code that no single expression shows: by name, for the rules that say `shape`."""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from conclave.safety.output.code.syntax import Source, tidy

if TYPE_CHECKING:
    from tree_sitter import Node

FREES: Final = frozenset({"free", "kfree", "g_free"})
MOST_CALLS: Final = 128
MOST_AFTER: Final = 64  # statements behind one that are looked at
CHECKS: Final = frozenset({"access", "stat", "lstat"})
OPENS: Final = frozenset({"open", "fopen", "chmod", "chown", "unlink", "remove", "rename", "creat"})
LEAVES: Final = frozenset({"return_statement", "break_statement", "continue_statement", "goto_statement"})


def used_after_free(source: Source) -> "Iterator[Node]":
    """A name that is freed, or deleted, and read again in the same block before anything is assigned to it."""
    for freed, name in _freed(source):
        statement = _statement(freed)
        for _ in range(MOST_AFTER):
            statement = statement.next_named_sibling if statement is not None else None
            if statement is None or statement.type in LEAVES:
                break
            text = source.read(statement)
            found = re.search(rf"(?<![\w.>]){re.escape(name)}\b", text)
            if found is None:
                continue
            if not re.search(rf"(?<![\w.>]){re.escape(name)}\s*=[^=]", text):
                yield statement
            break


def checked_then_opened(source: Source) -> "Iterator[Node]":
    """A path that is checked with access() or stat() and then opened by its name in the same function."""
    checked: list[tuple[Node | None, str]] = []
    for call in islice(source.calls(CHECKS | OPENS), MOST_CALLS):
        if call.name in CHECKS and call.args:
            checked.append((source.function(call.node), source.read(call.args[0])))
        elif call.args and (source.function(call.node), source.read(call.args[0])) in checked:
            yield call.node


def _freed(source: Source) -> "Iterator[tuple[Node, str]]":
    for call in islice(source.calls(FREES), MOST_CALLS):
        if call.name in FREES and len(call.args) == 1 and call.args[0].type == "identifier":
            yield call.node, tidy(source.read(call.args[0]))
    if "delete" in source.text and source.grammar.package.endswith("cpp"):
        for found in source.matches("(delete_expression (identifier) @name) @c"):
            yield found["c"], source.read(found["name"])


def _statement(node: "Node") -> "Node | None":
    """The statement that a call is, if it is one by itself."""
    parent = node.parent
    return parent if parent is not None and parent.type == "expression_statement" else None


SHAPES: Final[Mapping[str, Callable[[Source], "Iterator[Node]"]]] = MappingProxyType(
    {"used_after_free": used_after_free, "checked_then_opened": checked_then_opened}
)
