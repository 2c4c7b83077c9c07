"""What a value in code is: constant, put together with something that is not, or a request's data.

Only its own function and the block's top level are read: a variable counts as constant where all that is assigned to it
there is, and it is no parameter. A name in capitals that nothing is assigned to counts as constant, too. Bounded: deep
or wide expressions count as not constant.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from conclave.safety.output.code.rules import CodeRules
from conclave.safety.output.code.syntax import COMMENTS, Source, bare, tidy

if TYPE_CHECKING:
    from tree_sitter import Node

DEEPEST: Final = 12  # expressions within each other, assignments included
WIDEST: Final = 64  # parts of one expression
LONGEST: Final = 2_048  # characters of an expression that is searched
MOST_NODES: Final = 400  # that one question may look at
LITERALS: Final = frozenset(
    [
        "integer",
        "float",
        "true",
        "false",
        "none",
        "number",
        "null",
        "undefined",
        "regex",
        "number_literal",
        "char_literal",
        "string_literal",
        "raw_string",
        "decimal_integer_literal",
        "hex_integer_literal",
        "octal_integer_literal",
        "binary_integer_literal",
        "null_literal",
        "character_literal",
        "decimal_floating_point_literal",
        "hex_floating_point_literal",
        "ansi_c_string",
        "string_content",
        "string_fragment",
        "escape_sequence",
        "string_start",
        "string_end",
        "system_lib_string",
        "boolean_literal",
        "ellipsis",
        "raw_string_literal",
        "property_identifier",
        "sizeof_expression",
        "class_literal",
        "type_identifier",
        "primitive_type",
        "comment",
        "line_comment",
        "block_comment",
        "multiline_string_fragment",
        "word",
        "extglob_pattern",
        "test_operator",
        "integral_type",
        "floating_point_type",
        "boolean_type",
        "dimensions",
        "generic_type",
    ]
)
PARTS: Final = frozenset(
    [
        "binary_operator",
        "binary_expression",
        "parenthesized_expression",
        "list",
        "tuple",
        "set",
        "dictionary",
        "pair",
        "array",
        "object",
        "template_string",
        "template_substitution",
        "interpolation",
        "string",
        "concatenation",
        "concatenated_string",
        "unary_operator",
        "unary_expression",
        "not_operator",
        "boolean_operator",
        "cast_expression",
        "array_initializer",
        "initializer_list",
        "update_expression",
        "expression_list",
        "argument_list",
        "await",
        "await_expression",
        "non_null_expression",
        "as_expression",
        "satisfies_expression",
        "array_creation_expression",
        "dimensions_expr",
        "format_expression",
        "pointer_expression",
        "list_splat",
        "spread_element",
        "type_conversion",
        "format_specifier",
        "comparison_operator",
        "not_expression",
    ]
)
CHOICES: Final = frozenset({"conditional_expression", "ternary_expression"})
NAMES: Final = frozenset({"identifier", "shorthand_property_identifier", "variable_name", "special_variable_name"})
MEMBERS: Final = frozenset(
    {"attribute", "member_expression", "field_expression", "field_access", "qualified_identifier"}
)
ITEMS: Final = frozenset({"subscript", "subscript_expression", "array_access"})
CALLS: Final = frozenset(
    {"call", "call_expression", "method_invocation", "new_expression", "object_creation_expression"}
)
EXPANDED: Final = frozenset({"simple_expansion", "expansion"})
JOINED: Final = frozenset(
    {"binary_operator", "binary_expression", "template_string", "concatenation", "concatenated_string", "string"}
)
PUTTING: Final = frozenset(
    {
        "format",
        "join",
        "concat",
        "append",
        "toString",
        "str",
        "sprintf",
        "strip",
        "trim",
        "replace",
        "encode",
        "formatted",
    }
)
CAPITALS: Final = re.compile(r"(?:\w+\.)*_?[A-Z][A-Z0-9_]+")
WORD: Final = re.compile(r"\w+")


class Values:
    """Answers questions about the values of one source."""

    def __init__(self, source: Source, rules: CodeRules) -> None:
        self._source = source
        self._clean = frozenset(rules.clean)
        self._passes = frozenset(rules.passes)
        self._known = _pattern(rules.known)
        self._requests = _pattern(rules.requests)
        self._routes = _pattern(rules.routes)
        self._left = 0

    def constant(self, node: "Node") -> bool:
        """Whether it can be only what stands there."""
        self._left = MOST_NODES
        return self._constant(node, DEEPEST)

    def built(self, node: "Node") -> bool:
        """Whether it is put together, with something that is not constant in it."""
        self._left = MOST_NODES
        return self._built(node, DEEPEST)

    def tainted(self, node: "Node") -> bool:
        """Whether a request's data are in it."""
        if self._requests is None:
            return False
        self._left = MOST_NODES
        return self._tainted(node, DEEPEST)

    def text(self, node: "Node") -> str:
        """Its text; of a variable with one value, that value's."""
        values = self._values_of(node) if node.type in NAMES or node.type in EXPANDED else ()
        return self._source.read(values[0] if len(values) == 1 else node)

    def _constant(self, node: "Node", deep: int) -> bool:  # noqa: PLR0911  one line a kind of node
        self._left -= 1
        if deep <= 0 or self._left <= 0:
            return False
        kind = node.type
        if kind in LITERALS:
            return True
        if kind in PARTS:
            return self._all(node.named_children, deep)
        if kind in CHOICES:
            condition = node.child_by_field_name("condition")
            parts = node.named_children
            skipped = parts[1] if condition is None and len(parts) > 1 else condition
            return self._all([part for part in parts if part != skipped], deep)
        if kind in CALLS:
            return self._constant_call(node, deep)
        if kind in ITEMS:
            owner = node.named_children[0] if node.named_children else None
            return owner is not None and self._constant(owner, deep - 1)
        if kind in NAMES or kind in MEMBERS or kind in EXPANDED:
            return self._constant_name(node, deep)
        return False

    def _all(self, nodes: "Sequence[Node]", deep: int) -> bool:
        return len(nodes) <= WIDEST and all(
            self._constant(node, deep - 1) for node in nodes if node.type not in COMMENTS
        )

    def _constant_name(self, node: "Node", deep: int) -> bool:
        name = tidy(self._source.read(node)).strip('${}"')
        if self._known is not None and self._known.fullmatch(name) is not None:
            return True
        if self._is_parameter(node, name):
            return False
        values = self._values_of(node)
        if not values:
            return CAPITALS.fullmatch(name) is not None
        return all(self._constant(value, deep - 1) for value in values)

    def _constant_call(self, node: "Node", deep: int) -> bool:
        owner, name, args = self._call(node)
        last = name.rpartition(".")[2]
        if name in self._clean or last in self._clean:
            return True
        if name in self._passes and (owner is None or "." in name):
            return self._all(args, deep)
        return owner is not None and self._constant(owner, deep - 1) and self._all(args, deep)

    def _call(self, node: "Node") -> "tuple[Node | None, str, Sequence[Node]]":
        """On what it is called, what, and with which arguments."""
        callee = node.child_by_field_name("function") or node.child_by_field_name("constructor")
        callee = callee or node.child_by_field_name("type") or node.child_by_field_name("name")
        owner = node.child_by_field_name("object")
        if callee is not None and owner is None and callee.type in MEMBERS:
            owner = callee.child_by_field_name("object") or callee.child_by_field_name("argument")
        name = tidy(self._source.read(callee)[-128:]) if callee is not None else ""
        if node.type == "method_invocation" and owner is not None:
            name = f"{tidy(self._source.read(owner)[-64:])}.{name}"
        args = node.child_by_field_name("arguments")
        return owner, name, args.named_children if args is not None else ()

    def _built(self, node: "Node", deep: int) -> bool:  # noqa: PLR0911  one line a kind of node
        self._left -= 1
        if deep <= 0 or self._left <= 0:
            return False
        kind = node.type
        if kind in JOINED:
            return self._joins(node) and not self._constant(node, deep)
        if kind in ("parenthesized_expression", "argument_list", "await", "await_expression", "cast_expression"):
            return any(self._built(part, deep - 1) for part in node.named_children)
        if kind in CHOICES:
            return any(self._built(part, deep - 1) for part in node.named_children)
        if kind in CALLS:
            _, name, _ = self._call(node)
            return name.rpartition(".")[2] in PUTTING and not self._constant(node, deep)
        if kind in NAMES or kind in MEMBERS or kind in EXPANDED:
            values = self._values_of(node)
            return any(self._built(value, deep - 1) for value in values) or self._grows(node, deep)
        return False

    def _joins(self, node: "Node") -> bool:
        """Whether it is a text that is put together, and no sum."""
        if node.type in ("template_string", "string"):
            return any(child.type in SPLICED for child in node.named_children)
        if node.type not in ("binary_operator", "binary_expression"):
            return True
        operator = node.child_by_field_name("operator")
        text = self._source.read(node)
        return operator is not None and operator.type in ("+", "%") and any(quote in text for quote in "'\"`")

    def _grows(self, node: "Node", deep: int) -> bool:
        """Whether a text is added to it, `+=`, that is not constant."""
        return any(not self._constant(value, deep - 1) for value in self._added.get(bare(self._source.read(node)), ()))

    def _tainted(self, node: "Node", deep: int) -> bool:
        self._left -= 1
        if deep <= 0 or self._left <= 0 or self._requests is None:
            return False
        if node.type in CALLS and self._call(node)[1] in self._clean:
            return False
        text = self._source.read(node)
        if len(text) <= LONGEST and self._requests.search(text) is not None and not self._constant(node, deep):
            return True
        for name in self._names_in(node):
            read = tidy(self._source.read(name))
            if (
                self._is_parameter(name, read)
                and self._routes is not None
                and self._routes.search(self._source.head(name))
            ):
                return True
            if any(self._tainted(value, deep - 1) for value in self._values_of(name)):
                return True
        return False

    def _names_in(self, node: "Node") -> "Iterator[Node]":
        todo, seen = [node], 0
        while todo and seen < WIDEST:
            one = todo.pop()
            seen += 1
            if one.type in NAMES:
                yield one
            todo += one.named_children

    def _is_parameter(self, node: "Node", name: str) -> bool:
        head = self._source.head(node).partition("(")[2]
        return name in WORD.findall(head) if head else False

    def _values_of(self, node: "Node") -> "Sequence[Node]":
        name = bare(self._source.read(node)).strip('${}"')
        known = self._by_name.get(name)
        if not known:
            return ()
        here = self._source.function(node)
        return [value for value, where in known if where is None or where == here]

    @cached_property
    def _by_name(self) -> "dict[str, list[tuple[Node, Node | None]]]":
        found: dict[str, list[tuple[Node, Node | None]]] = defaultdict(list)
        for one in self._source.assigned:
            if not one.key:
                found[one.target].append((one.value, self._source.function(one.node)))
        return found

    @cached_property
    def _added(self) -> "dict[str, list[Node]]":
        found: dict[str, list[Node]] = defaultdict(list)
        for one in self._source.assigned:
            operator = one.node.child_by_field_name("operator")
            if not one.key and operator is not None and operator.type == "+=":
                found[one.target].append(one.value)
        return found


SPLICED: Final = EXPANDED | {"interpolation", "template_substitution", "command_substitution"}


def _pattern(pattern: str) -> "re.Pattern[str] | None":
    import re2  # noqa: PLC0415  only where code is looked at

    return re2.compile(pattern) if pattern else None
