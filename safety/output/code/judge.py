"""Which rules a block of code breaks, and where: by its syntax tree, or, without a grammar, by patterns alone.

Only rules whose mark is in the text are looked at, and without one nothing is parsed: most code has none. Linear in the
text, but for parsing, which has a time of its own (safety/output/code/syntax.py).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from conclave.safety.api import Severity
from conclave.safety.output.code.rules import CodeRule, CodeRules, Tests, asked_of, pattern_of, read_rules, tests_of
from conclave.safety.output.code.shapes import SHAPES
from conclave.safety.output.code.syntax import GRAMMARS, Called, Limit, Source
from conclave.safety.output.code.values import Values

if TYPE_CHECKING:
    from re2 import Set
    from tree_sitter import Node

ANY: Final = "any"  # the file of rules for code in every language
PIECE: Final = 2_048  # characters of a script that are parsed at once
MOST_CALLS: Final = 512  # of one block, of what rules are about
MOST_SPOTS: Final = 64  # of one block
TRIPLE: Final = ('"""', "'''")
BLANKED: Final = re.compile(r"[^\n]")
FORMATS: Final = frozenset({"string_literal", "concatenated_string"})
DIRECTIVE: Final = r"%[-+ #0]*(\*|\d+)?(\.(?:\*|\d+))?(?:hh?|ll?|[zjtLI])?([A-Za-z%])"
AROUND: Final = 2_000  # characters on each side that count as the function, where there is no tree
BESIDE: Final = 200
COMMENT: Final = r"""//[^\n]*|/\*(?s:.*?)\*/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
HASHED: Final = r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
EDGES: Final = frozenset({r"\b", r"\B", r"\A", r"\z"})
EDGE: Final = re.compile(
    r"\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]|[$^]", re.DOTALL
)  # or what holds such signs as letters
HASHES: Final = frozenset({"ruby"})
IMPORTED: Final = r"(?m)^\s*from\s+([\w.]+)\s+import\s+\(?([^()\n#;]+)"
RENAMED: Final = r"(?m)^\s*import\s+([\w.]+)\s+as\s+(\w+)"
TAKEN: Final = (
    r"(?m)(?:const|let|var|import)\s+(?:\*\s+as\s+)?(\w+|\{[^{}\n]*\})"
    r"\s*(?:=\s*(?:await\s+)?require\(|from)\s*['\"](?:node:)?([\w@/.-]+)['\"]"
)


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that is broken, where (in characters), and how bad that is there."""

    rule: CodeRule
    start: int
    end: int
    severity: Severity


def judge(text: str, language: str, *, least: Severity = Severity.LOW) -> Sequence[Broken]:
    """What is insecure in a block; `language` as safety/output/code/languages.py names it. Raises TimeoutError."""
    found = list(book(ANY, least).by_pattern(text, ""))
    if language in GRAMMARS:
        found += book(GRAMMARS[language].rules, least).by_tree(text, language)
    elif language:
        found += book(language, least).by_pattern(text, language)
    return _distinct([one for one in found if one.severity >= least])[:MOST_SPOTS]


def _distinct(found: Iterable[Broken]) -> list[Broken]:
    """One for each place: the worst."""
    kept: list[Broken] = []
    for one in sorted(found, key=lambda one: (-one.severity, one.end - one.start, one.start)):
        if not any(other.start < one.end and one.start < other.end and _same(one, other) for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: (one.start, one.end))


def _same(one: Broken, other: Broken) -> bool:
    return one.rule.cwe == other.rule.cwe or (one.start, one.end) == (other.start, other.end)


@lru_cache(maxsize=64)
def book(name: str, least: Severity = Severity.LOW) -> "Book":
    """A file of rules, compiled, without those that are milder."""
    rules = read_rules(name)
    return Book(msgspec.structs.replace(rules, rules=[rule for rule in rules.rules if rule.level >= least]))


class Book:
    """The rules of a language, ready to be looked for."""

    def __init__(self, rules: CodeRules) -> None:
        import re2  # noqa: PLC0415  only where code is looked at

        self.rules = rules
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        self._marks = re2.Set.SearchSet(options)
        for rule in rules.rules:
            self._marks.Add(_mark(rule))
        if rules.rules:
            self._marks.Compile()
        self._sources = "|".join(f"(?:{one})" for one in (rules.requests, rules.routes) if one)
        self._needed = [_needed(rule) for rule in rules.rules]
        self._tainted = frozenset(number for number, rule in enumerate(rules.rules) if "tainted" in asked_of(rule))
        self._called: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for number, rule in enumerate(rules.rules):
            for name in rule.call:
                self._called[last_of(name)].append((number, name))

    def live(self, text: str) -> frozenset[int]:
        """The rules that the text may break: their marks are in it, and whatever else they need somewhere."""
        if not self.rules.rules:
            return frozenset()
        return frozenset(number for number in self._marks.Match(text) or () if self._may_fit(number, text))

    def _may_fit(self, number: int, text: str) -> bool:
        rule = self.rules.rules[number]
        if not all(_has(one, text) for one in (rule.file, rule.within, rule.beside) if one):
            return False
        if not all(_has(one, text) for one in self._needed[number]):
            return False
        return number not in self._tainted or _has(self._sources, text)

    def by_tree(self, text: str, language: str) -> Iterator[Broken]:
        """By the syntax tree."""
        live = self.live(text)
        if live and language == "bash" and len(text) > PIECE:  # long scripts take the square of their length
            limit = Limit()
            for start, piece in _pieces(text):
                if limit.over():
                    raise TimeoutError
                for one in Reading(self, piece, language, live).broken():
                    yield replace(one, start=start + one.start, end=start + one.end)
        elif live:
            yield from Reading(self, text, language, live).broken()
            if language == "python" and (behind := _behind_text(text)):
                yield from Reading(self, behind, language, live).broken()

    def by_pattern(self, text: str, language: str) -> Iterator[Broken]:
        """By patterns alone, outside comments and texts."""
        live = self.live(text)
        if not live:
            return
        passed = _passages(text, language) if language else []
        for number in live:
            rule = self.rules.rules[number]
            if not rule.pattern or (rule.file and not _has(rule.file, text)):
                continue
            for match in _re(rule.pattern).finditer(text):
                start, end = match.span(1 if match.re.groups and match.start(1) >= 0 else 0)
                if _within(match.start(), passed):
                    continue
                around = text[max(0, start - AROUND) : end + AROUND]
                beside = text[max(0, start - BESIDE) : end + BESIDE]
                if severity := _severity(rule, around, beside):
                    yield Broken(rule, start, end, severity)

    def callable_rules(self, name: str) -> Sequence[tuple[int, str]]:
        """The rules about what is called so."""
        return self._called.get(last_of(name), ())


class Reading:
    """One block read with one book."""

    def __init__(self, book: Book, text: str, language: str, live: frozenset[int]) -> None:
        self._book = book
        self._live = live
        self._source = Source(text, language)
        self._values = Values(self._source, book.rules)
        self._questions: Mapping[str, Callable[[Node], bool]] = {
            "constant": self._values.constant,
            "dynamic": lambda node: not self._values.constant(node),
            "built": self._values.built,
            "tainted": self._values.tainted,
            "present": lambda _: True,
            "absent": lambda _: False,
        }

    def broken(self) -> Iterator[Broken]:
        """What is broken, in no order."""
        rules = self._book.rules.rules
        called = any(rules[number].call for number in self._live)
        if called:
            yield from self._calls()
        for number in self._live:
            rule = rules[number]
            if rule.file and not _has(rule.file, self._source.text):
                continue
            for node, value in self._places(rule):
                if (value is None or self._holds(rule.value, value)) and (severity := self._severity(rule, node)):
                    yield self._told(rule, node, severity)

    def _places(self, rule: CodeRule) -> "Iterator[tuple[Node, Node | None]]":
        if rule.assign:
            pattern = _re(rule.assign)
            for one in self._source.assigned:
                if pattern.search(one.written) is not None:
                    yield one.node, one.value
        elif rule.query:
            for found in self._source.matches(rule.query):
                if not rule.name or _has(rule.name, self._source.read(found["name"])):
                    yield found["at"], found.get("value")
        elif rule.shape:
            for node in SHAPES[rule.shape](self._source):
                yield node, None

    def _calls(self) -> Iterator[Broken]:
        for call in islice(self._source.calls(self._wanted), MOST_CALLS):
            name = self._full(call.name)
            for number, wanted in self._book.callable_rules(name):
                rule = self._book.rules.rules[number]
                fits = number in self._live and _is_called(name, wanted) and self._fits(rule, call, name)
                if fits and (severity := self._severity(rule, call.node)):
                    yield self._told(rule, self._covered(rule, call), severity)

    @cached_property
    def _wanted(self) -> frozenset[str]:
        """The last parts of the names that the rules are about, and what they were imported as."""
        rules = self._book.rules.rules
        lasts = {last_of(name) for number in self._live for name in rules[number].call}
        return frozenset(lasts | {alias for alias, full in self._aliases.items() if last_of(full) in lasts})

    def _fits(self, rule: CodeRule, call: Called, name: str) -> bool:
        if rule.file and not _has(rule.file, self._source.text):
            return False
        if rule.receiver and not _has(rule.receiver, name.rpartition(".")[0]):
            return False
        return all(self._asked(str(key), tests, call) for key, tests in rule.args.items())

    def _asked(self, key: str, tests: Tests, call: Called) -> bool:
        if key.endswith("+"):
            return any(self._holds(tests, node) for node in call.args[int(key[:-1]) :])
        for one in key.split("|"):
            if one.startswith("%") and any(self._holds(tests, node) for node in self._printed(call, int(one[1:]))):
                return True
            if one.isdigit() and int(one) < len(call.args):
                return self._holds(tests, call.args[int(one)])
            if one in call.named:
                return self._holds(tests, call.named[one])
        return all(test == "absent" or test.startswith("!") for test in tests_of(tests))

    def _printed(self, call: Called, at: int) -> "Sequence[Node]":
        """The arguments that a format, the one at that place, prints as texts without an end."""
        rest = call.args[at + 1 :]
        if at >= len(call.args) or call.args[at].type not in FORMATS:
            return rest
        printed: list[Node] = []
        place = 0
        for width, precision, kind in _re(DIRECTIVE).findall(self._source.read(call.args[at])):
            place += (width == "*") + (precision == ".*")
            if kind in "sS" and not precision and place < len(rest):
                printed.append(rest[place])
            place += kind != "%"
        return printed

    def _holds(self, tests: Tests, node: "Node") -> bool:
        return all(self._is(test, node) for test in tests_of(tests))

    def _is(self, test: str, node: "Node") -> bool:
        if asked := self._questions.get(test):
            return asked(node)
        return _has(pattern_of(test), self._values.text(node)) is not test.startswith("!")

    def _severity(self, rule: CodeRule, node: "Node") -> Severity | None:
        beside = around = ""
        if rule.beside:
            beside = f"{self._source.head(node) or self._source.before(node)}\n{self._source.statement(node)}"
        if rule.within or rule.unless or rule.mild:
            around = self._source.around(node)
        return _severity(rule, around, beside)

    def _covered(self, rule: CodeRule, call: Called) -> "Node":
        if not rule.at:
            return call.node
        if rule.at == "name":
            return call.callee
        if rule.at in call.named:
            return call.named[rule.at].parent or call.node
        return call.args[int(rule.at)] if rule.at.isdigit() and int(rule.at) < len(call.args) else call.node

    def _told(self, rule: CodeRule, node: "Node", severity: Severity) -> Broken:
        place = self._source.place
        return Broken(rule, place(node.start_byte), place(node.end_byte), severity)

    def _full(self, name: str) -> str:
        first, dot, rest = name.partition(".")
        known = self._aliases.get(first)
        return f"{known}{dot}{rest}" if known is not None else name

    @cached_property
    def _aliases(self) -> Mapping[str, str]:
        """What names were imported as."""
        text, found = self._source.text, dict[str, str]()
        if self._source.grammar.rules == "python":
            for module, names in _re(IMPORTED).findall(text):
                for one in names.split(","):
                    name, _, alias = one.strip().partition(" as ")
                    found[alias.strip() or name] = f"{module}.{name}"
            found |= {alias: module for module, alias in _re(RENAMED).findall(text)}
        elif self._source.grammar.rules == "javascript":
            for names, module in _re(TAKEN).findall(text):
                for one in names.strip("{}").split(","):
                    name, _, alias = one.strip().replace(" as ", ":").partition(":")
                    found[alias.strip() or name] = f"{module}.{name}" if names.startswith("{") else module
        return found


def last_of(name: str) -> str:
    """The last part of a name: `exec` of `child_process.exec`, `File` of `new java.io.File`."""
    return name.rpartition(".")[2].removeprefix("new ")


def _is_called(name: str, wanted: str) -> bool:
    if wanted.startswith("."):
        return name.endswith(wanted)
    return name == wanted or ("." in wanted and name.endswith(f".{wanted}"))


def _severity(rule: CodeRule, around: str, beside: str) -> Severity | None:
    if rule.beside and not _has(rule.beside, beside):
        return None
    if rule.within and not _has(rule.within, around):
        return None
    if rule.unless and _has(rule.unless, around):
        return None
    return Severity.LOW if rule.mild and _has(rule.mild, around) else rule.level


def _mark(rule: CodeRule) -> str:
    """A pattern of what is in every text that breaks the rule."""
    if rule.mark:
        return rule.mark
    if rule.call:
        lasts = {last_of(name) for name in rule.call}
        return rf"\b(?:{'|'.join(sorted(lasts))})\b"
    return rule.pattern or rule.assign.replace("$", r"\b").replace("^", r"\b") or r"\w"


def _needed(rule: CodeRule) -> tuple[str, ...]:
    """Patterns of what its arguments must say: they are part of the text, so it has them somewhere."""
    return tuple(
        EDGE.sub(lambda found: found[0] if len(found[0]) > 1 and found[0] not in EDGES else "", pattern_of(test))
        for tests in rule.args.values()
        for test in tests_of(tests)
        if test.startswith("/")
    )


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """A long script in pieces that end with a line, if there is one, and where each begins."""
    start = 0
    while start < len(text):
        end = min(start + PIECE, len(text))
        if end < len(text):
            line = text.rfind("\n", start, end) + 1
            end = line if line > start else end
        yield start, text[start:end]
        start = end


def _behind_text(text: str) -> str:
    """A piece of Python that begins within a long text: with blanks up to that text's end."""
    for quotes in TRIPLE:
        if text.count(quotes) % 2:
            end = text.index(quotes) + len(quotes)
            return BLANKED.sub(" ", text[:end]) + text[end:]
    return ""


def _passages(text: str, language: str) -> list[tuple[int, int]]:
    """Where comments and texts stand, begin and end."""
    pattern = HASHED if language in HASHES else COMMENT
    return [match.span() for match in _re(pattern).finditer(text)]


def _within(at: int, passages: Sequence[tuple[int, int]]) -> bool:
    """Whether a place is inside a passage, behind its first character."""
    low, high = 0, len(passages)
    while low < high:
        middle = (low + high) // 2
        if passages[middle][1] <= at:
            low = middle + 1
        else:
            high = middle
    return low < len(passages) and passages[low][0] < at


def _has(pattern: str, text: str) -> bool:
    return bool(_asked_for(pattern).Match(text))


@lru_cache(maxsize=2_048)
def _asked_for(pattern: str) -> "Set":
    """A set of one: it says whether and not where, at a fifth of the cost of a search from Python."""
    import re2  # noqa: PLC0415  only where code is looked at

    options = re2.Options()
    options.log_errors = False
    found = re2.Set.SearchSet(options)
    found.Add(pattern)
    found.Compile()
    return found


@lru_cache(maxsize=2_048)
def _re(pattern: str) -> Any:
    import re2  # noqa: PLC0415  only where code is looked at

    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)
