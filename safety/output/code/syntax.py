"""One block of code as a syntax tree: its calls, its assignments, and the function that a place is in.

Trees are made by tree-sitter, which reads broken and unfinished code as far as it goes. Texts are known on which it
takes time that grows with their square; so parsing has a time, and what is not read by then raises TimeoutError.
"""

import re
import time
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Query

PARSE_S: Final = 0.25  # of one block, in the thread's own time; 64 KiB of honest code take a tenth of it
CHUNK: Final = 1_024  # bytes after which the clock is looked at
MOST_MATCHES: Final = 4_096  # calls, assignments and others of one block
MOST_FUNCTION: Final = 16_384  # bytes of the function around a place that are looked at
LAST: Final = re.compile(rb"[\w$]++(?=(?:<[^()]{0,64}>)?\Z)")  # the last part of a name, before its type arguments
OPENING: Final = (b"(", b"[", b"{")
BRACKET: Final = re.compile(rb"[()\[\]{}]")
DEEPEST: Final = 200  # brackets within each other; queries take for ever on thousands
MOST_TARGET: Final = 256  # characters of what is assigned to
BEFORE: Final = 400  # bytes before a place in broken code that may be the head of its function
MOST_CLIMB: Final = 64  # functions before a place that it may be in

JS_CALLS: Final = (
    "(call_expression function: (_) @f arguments: (_) @a) @c (new_expression constructor: (_) @n arguments: (_) @a) @c"
)
JS_ASSIGNS: Final = """(variable_declarator name: (_) @l value: (_) @r) @v
(assignment_expression left: (_) @l right: (_) @r) @v
(augmented_assignment_expression left: (_) @l right: (_) @r) @v (for_in_statement left: (_) @l right: (_) @r) @v
(pair key: (_) @l value: (_) @r) @k"""
C_CALLS: Final = "(call_expression function: (_) @f arguments: (_) @a) @c"
C_ASSIGNS: Final = (
    "(init_declarator declarator: (_) @l value: (_) @r) @v (assignment_expression left: (_) @l right: (_) @r) @v"
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """Where a language's grammar is, and what its nodes are called. `rules` is the file of its rules."""

    package: str
    rules: str
    calls: str
    assigns: str
    functions: frozenset[str]
    maker: str = "language"


JS_FUNCTIONS: Final = frozenset(
    [
        *("function_declaration", "function_expression", "arrow_function", "method_definition"),
        "generator_function_declaration",
    ]
)
C_FUNCTIONS: Final = frozenset({"function_definition"})
GRAMMARS: Final = {
    "python": Grammar(
        "tree_sitter_python",
        "python",
        "(call function: (_) @f arguments: (_) @a) @c",
        """(assignment left: (_) @l right: (_) @r) @v (augmented_assignment left: (_) @l right: (_) @r) @v
        (for_statement left: (_) @l right: (_) @r) @v (named_expression name: (_) @l value: (_) @r) @v
        (for_in_clause left: (_) @l right: (_) @r) @v
        (keyword_argument name: (_) @l value: (_) @r) @k (pair key: (_) @l value: (_) @r) @k
        (default_parameter name: (_) @l value: (_) @r) @k (typed_default_parameter name: (_) @l value: (_) @r) @k""",
        frozenset({"function_definition", "lambda"}),
    ),
    "javascript": Grammar("tree_sitter_javascript", "javascript", JS_CALLS, JS_ASSIGNS, JS_FUNCTIONS),
    "typescript": Grammar(
        "tree_sitter_typescript", "javascript", JS_CALLS, JS_ASSIGNS, JS_FUNCTIONS, maker="language_typescript"
    ),
    "tsx": Grammar("tree_sitter_typescript", "javascript", JS_CALLS, JS_ASSIGNS, JS_FUNCTIONS, maker="language_tsx"),
    "bash": Grammar(
        "tree_sitter_bash",
        "bash",
        "(command name: (_) @f) @c",
        "(variable_assignment name: (_) @l value: (_) @r) @v (for_statement variable: (_) @l value: (_) @r) @v",
        frozenset({"function_definition"}),
    ),
    "c": Grammar("tree_sitter_c", "c", C_CALLS, C_ASSIGNS, C_FUNCTIONS),
    "cpp": Grammar(
        "tree_sitter_cpp",
        "c",
        C_CALLS + " (new_expression type: (_) @n arguments: (_) @a) @c",
        C_ASSIGNS + " (for_range_loop declarator: (_) @l right: (_) @r) @v",
        C_FUNCTIONS | {"lambda_expression"},
    ),
    "java": Grammar(
        "tree_sitter_java",
        "java",
        "(method_invocation name: (_) @f arguments: (_) @a) @c"
        " (object_creation_expression type: (_) @n arguments: (_) @a) @c",
        """(variable_declarator name: (_) @l value: (_) @r) @v (assignment_expression left: (_) @l right: (_) @r) @v
        (enhanced_for_statement name: (_) @l value: (_) @r) @v""",
        frozenset({"method_declaration", "constructor_declaration", "lambda_expression"}),
    ),
}


@dataclass(frozen=True, slots=True)
class Called:
    """A call: the whole of it, the node of its name, its arguments by place and by name."""

    node: "Node"
    callee: "Node"
    name: str
    args: "Sequence[Node]"
    named: "dict[str, Node]"


@dataclass(frozen=True, slots=True)
class Assigned:
    """What is assigned to what. `key`: it is a key, a keyword argument or a default, no variable.

    `target` is the variable's name, `written` the place in it, too: `config.SECRET_KEY` of `config["SECRET_KEY"]`.
    """

    node: "Node"
    target: str
    written: str
    value: "Node"
    key: bool


class Limit:
    """So much of the thread's own time from now on. The wall's clock is never behind it, and costs less to ask."""

    __slots__ = ("_from_s", "_most_s", "_own_s", "_until_s", "_wall_s")

    def __init__(
        self,
        most_s: float = PARSE_S,
        *,
        wall_s: Callable[[], float] = time.perf_counter,
        own_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._most_s, self._wall_s, self._own_s = most_s, wall_s, own_s
        self._from_s, self._until_s = wall_s(), own_s() + most_s

    def over(self) -> bool:
        """Whether it is used up."""
        return self._wall_s() - self._from_s > self._most_s and self._own_s() > self._until_s


class Source:
    """A block of code, parsed. `language` is a name of GRAMMARS. Raises TimeoutError."""

    def __init__(self, text: str, language: str, *, limit: Limit | None = None) -> None:
        self.text = text
        self.bytes = text.encode("utf-8", "surrogatepass") if not text.isascii() else text.encode()
        self.grammar = GRAMMARS[language]
        self._language = language
        self._root = self._parsed(limit or Limit())

    def _parsed(self, limit: Limit) -> "Node":
        from tree_sitter import Parser  # noqa: PLC0415  only where code is looked at

        data = self.bytes
        end, read, late = _shallow(data), 0, False

        def piece(at: int, _: object) -> bytes:
            """What is served once is served again: a text that shrinks while it is read ends the process."""
            nonlocal end, read, late
            if not late and limit.over():
                end, late = read, True
            read = max(read, min(at + CHUNK, end))
            return data[at : min(at + CHUNK, end)]

        tree = Parser(grammar(self._language)).parse(piece)
        if late or tree is None:
            raise TimeoutError
        self._tree = tree  # nodes are part of it
        return tree.root_node

    @property
    def root(self) -> "Node":
        return self._root

    @cached_property
    def _is_ascii(self) -> bool:
        return len(self.bytes) == len(self.text)

    def read(self, node: "Node") -> str:
        """The node's text."""
        return self.bytes[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def place(self, at: int) -> int:
        """A character's place from a byte's."""
        return at if self._is_ascii else len(self.bytes[:at].decode("utf-8", "surrogatepass"))

    def calls(self, wanted: Container[str]) -> "Iterator[Called]":
        """The calls of what is named so, as its last part, in their order."""
        for found in self.matches(self.grammar.calls):
            callee = found["n"] if "n" in found else found["f"]
            last = LAST.search(self.bytes, max(callee.start_byte, callee.end_byte - 96), callee.end_byte)
            if last is None or last[0].decode("utf-8", "replace") in wanted:
                yield self._call(found)

    @cached_property
    def assigned(self) -> "Sequence[Assigned]":
        """All assignments, in their order."""
        return [
            Assigned(found.get("v") or found["k"], bare(left), written(left), found["r"], "k" in found)
            for found in self.matches(self.grammar.assigns)
            for left in (self.read(found["l"])[:MOST_TARGET],)
        ]

    def matches(self, query: str) -> "Iterator[dict[str, Node]]":
        """What a query finds: the first node of each capture."""
        from tree_sitter import QueryCursor  # noqa: PLC0415

        asked = compiled(self._language, query)
        found = QueryCursor(asked).matches(self._root) if asked is not None else []
        for _, captures in found[:MOST_MATCHES]:
            yield {name: nodes[0] for name, nodes in captures.items()}

    @cached_property
    def _functions(self) -> "Sequence[Node]":
        kinds = " ".join(f"({kind})" for kind in sorted(self.grammar.functions))
        return [found["f"] for found in self.matches(f"[{kinds}] @f")]

    def function(self, node: "Node") -> "Node | None":
        """The innermost function that a node is in; found from above, because deep trees are slow to climb."""
        at = bisect_right(self._starts, node.start_byte)
        for function in reversed(self._functions[max(0, at - MOST_CLIMB) : at]):
            if function.end_byte >= node.end_byte and function != node:
                return function
        return None

    @cached_property
    def _starts(self) -> "Sequence[int]":
        return [function.start_byte for function in self._functions]

    def around(self, node: "Node") -> str:
        """The text of the function that a node is in, or of the block's code near it."""
        function = self.function(node)
        first, last = (function.start_byte, function.end_byte) if function is not None else (0, len(self.bytes))
        if last - first > MOST_FUNCTION:
            first = max(first, node.start_byte - MOST_FUNCTION // 2)
            last = min(last, node.end_byte + MOST_FUNCTION // 2)
        return self.bytes[first:last].decode("utf-8", "replace")

    def head(self, node: "Node") -> str:
        """The head of the function that a node is in: decorators, name and parameters."""
        function = self.function(node)
        if function is None:
            return ""
        body = function.child_by_field_name("body")
        outer = function.parent
        decorated = outer is not None and outer.type == "decorated_definition"
        start = outer.start_byte if decorated and outer is not None else function.start_byte
        return self.bytes[start : body.start_byte if body is not None else function.end_byte].decode("utf-8", "replace")

    def before(self, node: "Node") -> str:
        """What stands before a node in broken code, where its function may not have been seen as one."""
        first = max(0, node.start_byte - BEFORE) if self._root.has_error else node.start_byte
        return self.bytes[first : node.start_byte].decode("utf-8", "replace")

    def statement(self, node: "Node") -> str:
        """The lines that a node is on, without what is far."""
        first = self.bytes.rfind(b"\n", max(0, node.start_byte - BEFORE), node.start_byte) + 1
        last = self.bytes.find(b"\n", node.end_byte, node.end_byte + BEFORE)
        last = last if last >= 0 else len(self.bytes)
        return self.bytes[max(first, node.start_byte - BEFORE) : min(last, node.start_byte + BEFORE)].decode(
            "utf-8", "replace"
        )

    def _call(self, found: "dict[str, Node]") -> Called:
        node, made = found["c"], found.get("n")
        callee = made if made is not None else found["f"]
        name = tidy(self.read(callee)) if callee.end_byte - callee.start_byte <= MOST_TARGET else _tail(self, callee)
        if made is not None:
            name = f"new {name.partition('<')[0]}"
        elif node.type == "method_invocation":
            owner = node.child_by_field_name("object")
            if owner is not None:
                short = owner.end_byte - owner.start_byte <= MOST_TARGET
                name = f"{tidy(self.read(owner)) if short else '?'}.{name}"
        args: list[Node] = []
        named: dict[str, Node] = {}
        if "a" in found:
            children = found["a"].named_children if found["a"].type != "template_string" else [found["a"]]
        else:
            children = node.children_by_field_name("argument")
        for child in children:
            if child.type == "keyword_argument":
                key, value = child.child_by_field_name("name"), child.child_by_field_name("value")
                if key is not None and value is not None:
                    named[self.read(key)] = value
            elif child.type not in COMMENTS:
                args.append(child)
        return Called(node, callee, name, args, named)


COMMENTS: Final = frozenset({"comment", "line_comment", "block_comment"})
STRIPPED: Final = str.maketrans("", "", " \t\r\n\\")


def _shallow(data: bytes) -> int:
    """How much of a text may be parsed: up to where brackets stand within each other as in no honest code."""
    if sum(data.count(bracket) for bracket in OPENING) <= DEEPEST:
        return len(data)
    deep = 0
    for match in BRACKET.finditer(data):
        deep = deep + 1 if match[0] in OPENING else max(0, deep - 1)
        if deep > DEEPEST:
            return match.start()
    return len(data)


def tidy(name: str) -> str:
    """A dotted name as one writes it: `a->b`, `a?.b`, `a::b` and `this.a.b` with dots, without spaces."""
    name = name.translate(STRIPPED).replace("?.", ".").replace("->", ".").replace("::", ".")
    return name.removeprefix("this.").removeprefix(".") if name != "this" else name


def bare(name: str) -> str:
    """The name of what is assigned to: without stars, brackets and quotes around it."""
    return tidy(name.partition("[")[0] if not name.startswith("[") else name).strip("*&'\"()")


def written(name: str) -> str:
    """The place that is assigned to, with dots."""
    return tidy(name).replace('["', ".").replace("['", ".").strip("*&'\"()[]")


def _tail(source: Source, callee: "Node") -> str:
    """The last part of a name that is a long chain of calls."""
    for field in ("attribute", "property", "field", "name"):
        last = callee.child_by_field_name(field)
        if last is not None:
            return f"?.{source.read(last)[:64]}"
    return "?"


@lru_cache(maxsize=16)
def grammar(language: str) -> "Language":
    """The language's grammar, loaded once."""
    from tree_sitter import Language  # noqa: PLC0415

    known = GRAMMARS[language]
    return Language(getattr(import_module(known.package), known.maker)())


@lru_cache(maxsize=512)
def compiled(language: str, query: str) -> "Query | None":
    """A query, compiled once; None where it asks for what this of the languages that share a file does not have."""
    from tree_sitter import Query, QueryError  # noqa: PLC0415

    try:
        return Query(grammar(language), query)
    except QueryError:
        return None
