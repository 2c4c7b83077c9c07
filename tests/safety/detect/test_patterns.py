"""Rules are data that tests walk; spans are places in the text as written; no text takes long or breaks a check."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conclave.safety.api import WRITTEN, Origin, Segment, View
from conclave.safety.detect.patterns import Patterns, Rule, Span, entropy, masked, read_rules, stands_alone
from conclave.safety.detect.pii import KINDS, PiiCheck
from conclave.safety.detect.secrets import SecretsCheck
from conclave.safety.runner import MOST_FINDINGS

SECRETS = SecretsCheck()
PII = PiiCheck(KINDS)
CHECKS = {"secrets": (SECRETS, "secret"), "pii": (PII, "pii")}
RULES = [(file, rule) for file in CHECKS for rule in read_rules(file).rules]
EACH_RULE = pytest.mark.parametrize(("file", "rule"), RULES, ids=[f"{file}.{rule.name}" for file, rule in RULES])


def view_of(text: str) -> View:
    return View(Segment(Origin.USER, text, text, "messages[0].content"), WRITTEN, text, 0, len(text))


def rule(**fields: object) -> Rule:
    plain: dict[str, object] = {
        "name": "one",
        "kind": "one",
        "pattern": "ab+",
        "severity": "low",
        "example": "ab",
        "counter": "a",
    }
    return Rule(**{**plain, **fields})  # type: ignore[arg-type]  fields of any test


def spans(text: str, **fields: object) -> list[str]:
    return [text[start:end] for _, start, end in Patterns([rule(**fields)], {}).hits(text)]


@EACH_RULE
@pytest.mark.parametrize("frame", ["{}", "Überall 密钥{}。", "first line\n{}\nlast line", '{{"said": "x\\n{}"}}'])
def test_each_rule_finds_its_example(file: str, rule: Rule, frame: str) -> None:
    """Alone, among other scripts, in a line of its own and in JSON."""
    check, prefix = CHECKS[file]
    assert f"{prefix}.{rule.kind}" in {one.kind for one in check.inspect(view_of(frame.format("".join(rule.example))))}


@EACH_RULE
def test_each_rule_passes_its_counter_example(file: str, rule: Rule) -> None:
    check, _ = CHECKS[file]
    assert check.inspect(view_of("".join(rule.counter))) == []


@EACH_RULE
def test_a_find_never_shows_itself(file: str, rule: Rule) -> None:
    """Evidence is a quarter of the value, four characters at most."""
    check, _ = CHECKS[file]
    text = "".join(rule.example)
    for one in check.inspect(view_of(text)):
        shown = one.evidence.removesuffix("…")
        assert len(shown) <= min(4, (one.end - one.start) // 4)
        assert one.confidence <= 1


@pytest.mark.parametrize("file", CHECKS)
def test_names_are_the_rules_own(file: str) -> None:
    names = [rule.name for rule in read_rules(file).rules]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("text", ["x ab abb y", "é ab 密 abb", "\ud800 ab \udfff abb", "😀ab 😀 abb"], ids=ascii)
def test_places_are_characters_whatever_stands_before_them(text: str) -> None:
    assert spans(text) == ["ab", "abb"]


def test_the_first_group_is_what_counts() -> None:
    assert spans("key=ab key=b", pattern="key=(ab*)") == ["ab"]


def test_a_word_that_is_wanted_near_may_stand_before_or_behind() -> None:
    near = r"(?i:\bsesame\b)"
    assert spans("Sesame: ab", near=near) == ["ab"]
    assert spans("ab is the sesame", near=near) == ["ab"]
    assert spans("sesame " + "x " * 60 + "ab", near=near) == []
    assert spans("sesames ab", near=near) == []


def test_a_match_that_is_none_does_not_hide_the_one_within() -> None:
    assert spans("xab12 ab12 cd", pattern="[a-z]{2}12(?: ab12)?") == ["ab12"]


def test_entropy_is_that_of_the_characters() -> None:
    assert entropy("aaaa") == 0
    assert entropy("abab") == 1
    assert entropy("0123456789abcdef") == 4
    assert spans("abbbbbbb", entropy=1.0) == []


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("ab", True),
        ("xab", False),
        ("abx", False),
        ("_ab", False),
        ("\\nab", True),
        ("%3Dab", True),
        ("é密ab密", True),
        ("(ab)", True),
    ],
)
def test_a_part_of_a_word_does_not_stand_alone(text: str, *, alone: bool) -> None:
    start = text.index("ab")
    assert stands_alone(text, start, start + 2) is alone


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pattern": "(a"}, "RE2 does not take"),
        ({"pattern": "(?<=a)b"}, "RE2 does not take"),
        ({"pattern": "密"}, "RE2 does not take"),
        ({"check": "nobody"}, "no check is called 'nobody'"),
    ],
)
def test_a_rule_that_cannot_be_used_is_named(fields: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=f"rule one: {words}"):
        Patterns([rule(**fields)], {"luhn": lambda _text, start, end: Span(start, end)})


def test_short_values_are_masked_whole() -> None:
    assert [masked(value) for value in ("abc", "abcdefgh", "abcdefghijklmnopqrst")] == ["…", "ab…", "abcd…"]


def test_what_is_too_much_is_covered_by_the_last_finding() -> None:
    """Redaction covers 64 findings of a text; the last one reaches over all that are left."""
    mails = [f"someone{number}@nordwind.org" for number in range(200)]
    text = ", ".join(mails)
    found = PII.inspect(view_of(text))
    assert len(found) == MOST_FINDINGS
    assert found[-1].kind == "pii.many"
    covered = "".join(text[one.start : one.end] for one in found)
    assert all(mail in covered for mail in mails)


def test_findings_come_in_the_order_of_the_text() -> None:
    found = PII.inspect(view_of("b@nordwind.org 4539 1488 0343 6467 a@nordwind.org"))
    assert [one.kind for one in found] == ["pii.email", "pii.card", "pii.email"]


HOSTILE = {
    "one letter": "a" * 1_000_000,
    "one digit": "4" * 1_000_000,
    "digits in groups": "4539 1488 0343 6466 " * 10_000,
    "digits apart": "4 " * 500_000,
    "at signs": "@" * 1_000_000,
    "dotted words": "a." * 500_000,
    "half an address": "a@" * 500_000,
    "many addresses": "a@b.co " * 20_000,
    "half a password's address": "https://a:" * 100_000,
    "first lines of keys": "-----BEGIN PRIVATE KEY-----\n" * 10_000,
    "first lines of PuTTY's": "PuTTY-User-Key-File-3: a\n" * 10_000,
    "starts of tokens": "ghp_" * 250_000,
    "starts of JWTs": "eyJhbGciOiJub25lIn0." * 50_000,
    "a JWT of brackets": "eyJ" + "W1tb" * 200_000 + ".eyJhYmNkZWZnaGlqa2w.abcdefghijklmnopqrstuvwxyz",
    "assignments": "password=" * 110_000,
    "starts of bank accounts": "DE75 " * 40_000,
    "hyphens": "-" * 1_000_000,
    "plus signs": "+1 " * 330_000,
    "colons": "ab:" * 330_000,
    "phones": "phone 0891234 " * 15_000,
    "surrogates": "\ud800" * 300_000,
    "random bytes": random.Random(1).randbytes(300_000).decode("latin-1"),
    "random letters": "".join(random.Random(2).choices("abcdefABCDEF0123456789+/-_=. @:", k=300_000)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_takes_long(text: str) -> None:
    """Linear: up to a megabyte stays far below what a quadratic search would take (minutes); findings stay few."""
    began_s = time.process_time()
    for check, _ in CHECKS.values():
        assert len(check.inspect(view_of(text))) <= MOST_FINDINGS
    assert time.process_time() - began_s < 10


EXAMPLES = [("".join(rule.example), f"{CHECKS[file][1]}.{rule.kind}") for file, rule in RULES]


@settings(max_examples=150, deadline=None)
@given(before=st.text(max_size=40), after=st.text(max_size=40), example=st.sampled_from(EXAMPLES))
def test_what_is_found_lies_in_the_text(before: str, after: str, example: tuple[str, str]) -> None:
    """Whatever stands around it: within the text, and the same characters that are found without them."""
    text = f"{before} \n{example[0]}\n {after}"
    for check, _ in CHECKS.values():
        alone = {example[0][one.start : one.end] for one in check.inspect(view_of(example[0]))}
        found = check.inspect(view_of(text))
        assert all(0 <= one.start < one.end <= len(text) for one in found)
        parts = [text[one.start : one.end] for one in found]
        assert all(any(value in part for part in parts) for value in alone if check is SECRETS)


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(), max_size=300))
def test_any_text_is_read_without_an_error(text: str) -> None:
    for check, _ in CHECKS.values():
        assert all(0 <= one.start < one.end <= len(text) for one in check.inspect(view_of(text)))
