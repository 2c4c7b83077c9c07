"""What insecure code looks like: rules in one YAML file a language, read and checked before any is used.

A rule says where it looks (`call`, `assign`, `query`, `pattern` or `shape`), what must hold there, and what to do
instead. `bad` must be found and `good` must not: a test holds every rule to it.

    call: names of what is called. `os.system` by its full name, whatever it was imported as; `.execute` on anything;
        `eval` by itself; `new Socket` where it is made.
    assign: a pattern of what is assigned to: a variable, an attribute, a key, a keyword argument.
    query: a tree-sitter query; `@at` is what is found, `@value` what `value` is asked of, `@name` what must
        match `name`.
    pattern: for languages without a grammar; its group, if it has one, is what is found.
    shape: the name of what no query can say (safety/output/code/shapes.py).

`args` asks of arguments, by place (`0`), name (`shell`), either (`1|Loader`), any from one on (`2+`) or any
that the format at a place prints with %s (`%1`); `value` of what
is assigned or captured. What can be asked: `constant`, `dynamic` (not constant), `built` (put together with something
dynamic), `tainted` (from a request), `present`, `absent`, `/pattern/` and `!/pattern/` of its text; a list asks for
all. `receiver`, `beside` (its statement and the head of its function), `within` (its function) and `file` are patterns
that must match, `unless` one that must not match in its function; where `mild` matches there, it counts as low.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from conclave.safety.api import Severity

RULES: Final = Path(__file__).parent.parent.parent / "rules" / "code"
FORMS: Final = ("call", "assign", "query", "pattern", "shape")
ASKED: Final = frozenset({"constant", "dynamic", "built", "tainted", "present", "absent"})
MOST_REMEDY: Final = 300  # characters
Tests = str | list[str]


class CodeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One insecure pattern. `message` says what can happen, `fix` what to write instead; `instead` is that, as text.

    `at` is what the finding covers: the whole expression, or the name of what is called, or an argument.
    """

    id: str
    cwe: int
    severity: Literal["low", "medium", "high"]
    message: str
    fix: str
    bad: str | list[str]
    good: str | list[str]
    call: list[str] = []
    assign: str = ""
    query: str = ""
    name: str = ""
    pattern: str = ""
    shape: str = ""
    args: dict[str | int, Tests] = {}
    value: Tests = []
    receiver: str = ""
    beside: str = ""
    within: str = ""
    file: str = ""
    unless: str = ""
    mild: str = ""
    mark: str = ""
    at: str = ""
    instead: str = ""

    @property
    def level(self) -> Severity:
        return Severity[self.severity.upper()]

    @property
    def remedy(self) -> str:
        return f"CWE-{self.cwe}: {self.message} {self.fix}"


class CodeRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rules of a language.

    `requests` is a pattern of expressions that are a request's data, `routes` one of the heads of functions whose
    parameters are. `clean` are functions whose result can do no harm, `passes` those whose result is constant where
    their arguments are. `known` is a pattern of names that are constant though nothing is assigned to them.
    """

    rules: list[CodeRule]
    requests: str = ""
    routes: str = ""
    clean: list[str] = []
    passes: list[str] = []
    known: str = ""


class CodeRuleError(ValueError):
    """A file of rules that cannot be used; says which rule and why."""


@lru_cache(maxsize=32)
def read_rules(language: str) -> CodeRules:
    """The rules of a language by the name of its file. Raises CodeRuleError."""
    path = RULES / f"{language}.yaml"
    try:
        return parsed(path.read_bytes(), name=path.name)
    except OSError as error:
        raise CodeRuleError(f"{path.name}: cannot be read: {error.strerror}") from error


def parsed(text: bytes, *, name: str) -> CodeRules:
    """The rules of a file's text. Raises CodeRuleError."""
    import yaml  # noqa: PLC0415  only where code is looked at

    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    try:
        found = msgspec.convert(yaml.load(text, loader), CodeRules)  # noqa: S506  a safe loader either way
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise CodeRuleError(f"{name}: {error}") from error
    seen: set[str] = set()
    for rule in found.rules:
        if problem := _problem(rule, seen):
            raise CodeRuleError(f"{name}: rule {rule.id!r}: {problem}")
        seen.add(rule.id)
    for pattern in (found.requests, found.routes, found.known):
        if pattern and (problem := _no_pattern(pattern)):
            raise CodeRuleError(f"{name}: {problem}")
    return found


def _problem(rule: CodeRule, seen: set[str]) -> str:  # noqa: PLR0911  one line a mistake
    said: Mapping[str, Any] = {form: getattr(rule, form) for form in FORMS}
    forms = [form for form, value in said.items() if value]
    if rule.id in seen:
        return "the id is given twice"
    if not (rule.id.isascii() and rule.id.replace("_", "").isalnum() and rule.id == rule.id.lower()):
        return "an id is made of a-z, 0-9 and _"
    if len(forms) != 1:
        return f"says {' and '.join(forms) or 'none'} of {', '.join(FORMS)}; it needs one of them"
    if rule.args and not rule.call:
        return "args belong to call"
    if not rule.bad or not rule.good:
        return "needs an example that is bad and one that is good"
    if len(rule.remedy) > MOST_REMEDY:
        return f"message and fix have {len(rule.remedy)} characters; {MOST_REMEDY} at most"
    for test in asked_of(rule):
        if test not in ASKED and test.strip("!")[:1] != "/":
            return f"cannot ask {test!r}; known: {', '.join(sorted(ASKED))}, /pattern/ and !/pattern/"
        if test not in ASKED and (problem := _no_pattern(pattern_of(test))):
            return problem
    patterns = (rule.assign, rule.name, rule.pattern, rule.receiver, rule.beside, rule.within, rule.file, rule.unless)
    return next((bad for one in (*patterns, rule.mild, rule.mark) if one and (bad := _no_pattern(one))), "")


def tests_of(tests: Tests) -> list[str]:
    """What is asked, one by one."""
    return [tests] if isinstance(tests, str) else tests


def asked_of(rule: CodeRule) -> list[str]:
    """All that a rule asks of values, wherever."""
    return [test for tests in (*rule.args.values(), rule.value) for test in tests_of(tests)]


def pattern_of(test: str) -> str:
    """The pattern in `/pattern/` or `!/pattern/`."""
    return test.removeprefix("!")[1:].removesuffix("/")


def _no_pattern(pattern: str) -> str:
    import re2  # noqa: PLC0415  only where code is looked at

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        return f"{pattern!r} is no RE2 pattern: {error}"
    return ""
