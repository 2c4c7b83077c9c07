"""Every rule finds its bad example and passes its good one, and a file with a mistake says which."""

from collections.abc import Iterator

import pytest

from conclave.safety.output.code.judge import judge
from conclave.safety.output.code.rules import RULES, CodeRule, CodeRuleError, parsed, read_rules

READ_AS = {"any": ("python",), "c": ("c", "cpp"), "javascript": ("javascript", "tsx")}
FILES = sorted(path.stem for path in RULES.glob("*.yaml"))
RULE = """
rules:
  - {id: a, cwe: 78, severity: high, message: m, fix: f, call: [system], args: {0: dynamic}, bad: b, good: g}
"""


def examples(kind: str) -> Iterator[object]:
    for name in FILES:
        for rule in read_rules(name).rules:
            said = getattr(rule, kind)
            for number, text in enumerate([said] if isinstance(said, str) else said):
                yield pytest.param(name, rule, text, id=f"{rule.id}-{number}")


def broken(text: str, language: str) -> set[str]:
    return {one.rule.id for one in judge(text, language)}


@pytest.mark.parametrize(("name", "rule", "text"), list(examples("bad")))
def test_the_bad_example_is_found(name: str, rule: CodeRule, text: str) -> None:
    assert any(rule.id in broken(text, language) for language in READ_AS.get(name, (name,)))


@pytest.mark.parametrize(("name", "rule", "text"), list(examples("good")))
def test_the_good_twin_passes(name: str, rule: CodeRule, text: str) -> None:
    assert rule.id not in broken(text, READ_AS.get(name, (name,))[-1])


def test_no_id_is_used_in_two_files() -> None:
    ids = [rule.id for name in FILES for rule in read_rules(name).rules]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("severity: high", "severity: awful"), "Invalid enum value 'awful'"),
        (("message: m", "mesage: m"), "unknown field `mesage`"),
        (("call: [system]", "call: []"), "says none of call, assign"),
        (("0: dynamic", "0: odd"), "cannot ask 'odd'"),
        (("0: dynamic", "0: /(/"), "is no RE2 pattern"),
        (("id: a", "id: A-b"), "an id is made of"),
        (("bad: b", "bad: ''"), "needs an example"),
    ],
    ids=["severity", "field", "form", "question", "pattern", "id", "example"],
)
def test_a_mistake_is_named(changed: tuple[str, str], said: str) -> None:
    with pytest.raises(CodeRuleError, match=r"own\.yaml") as caught:
        parsed(RULE.replace(*changed).encode(), name="own.yaml")
    assert said in str(caught.value)


def test_a_file_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(CodeRuleError, match=r"own\.yaml"):
        parsed(b"rules: [", name="own.yaml")
