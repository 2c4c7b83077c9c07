"""Personal data is found by its checksum or by a word near it; numbers of other kinds pass."""

import random

import pytest

from conclave.safety.api import WRITTEN, Finding, Origin, Segment, View
from conclave.safety.detect.patterns import read_rules
from conclave.safety.detect.pii import KINDS, USUAL, PiiCheck, luhn

CHECK = PiiCheck(KINDS)


def inspect(text: str, check: PiiCheck = CHECK) -> list[Finding]:
    return list(check.inspect(View(Segment(Origin.USER, text, text, "p"), WRITTEN, text, 0, len(text))))


def found(text: str) -> list[tuple[str, str]]:
    return [(one.kind.removeprefix("pii."), text[one.start : one.end]) for one in inspect(text)]


FOUND = {
    "Visa": ("4539148803436467", "card"),
    "Visa with hyphens": ("4539-1488-0343-6467", "card"),
    "Mastercard": ("5425 2334 3010 9903", "card"),
    "Mastercard of the new range": ("2223 0000 4841 0010", "card"),
    "American Express": ("3714 496353 92103", "card"),
    "Discover": ("6011 0004 0000 0000", "card"),
    "IBAN of Germany": ("DE75512108001245126199", "iban"),
    "IBAN of the United Kingdom": ("GB33 BUKB 2020 1555 5555 55", "iban"),
    "IBAN of Norway": ("NO93 8601 1117 947", "iban"),
    "IBAN of Malta": ("MT31MALT01100000000000000000123", "iban"),
    "social security": ("536-22-8726", "ssn"),
    "e-mail": ("anna.berg+news@mail.nordwind.org", "email"),
    "e-mail with an umlaut": ("jörg@städte.de", "email"),
    "phone": ("+1 415-268-7731", "phone"),
    "phone of Germany": ("+49 89 23517740", "phone"),
    "phone without blanks": ("+442079460018", "phone"),
    "IPv4": ("81.169.145.72", "ip"),
    "IPv6": ("2a01:4f8:c17:b8f::2", "ip"),
}


@pytest.mark.parametrize("frame", ["{}", "Grüße, 密 {}. Ok?", "<{}>", '{{"x": "a\\n{}"}}'])
@pytest.mark.parametrize(("value", "kind"), FOUND.values(), ids=FOUND)
def test_a_value_is_found_with_its_place(value: str, kind: str, frame: str) -> None:
    assert found(frame.format(value)) == [(kind, value)]


WITH_WORDS = {
    "phone of the United States": ("call me: (415) 268-7731", "phone", "(415) 268-7731"),
    "phone of France": ("mon téléphone : 06 12 34 56 78", "phone", "06 12 34 56 78"),
    "phone of Germany": ("Handy 0171/2345678", "phone", "0171/2345678"),
    "social security without hyphens": ("SSN 536 22 8726", "ssn", "536 22 8726"),
    "passport": ("passport number 533380006", "passport", "533380006"),
    "Reisepass": ("Reisepass C01X00T47", "passport", "C01X00T47"),
    "driving licence": ("Führerscheinnummer B072RRE2I55", "driving_licence", "B072RRE2I55"),
}


@pytest.mark.parametrize(("text", "kind", "value"), WITH_WORDS.values(), ids=WITH_WORDS)
def test_a_number_without_a_checksum_counts_with_a_word_near_it(text: str, kind: str, value: str) -> None:
    assert (kind, value) in found(text)
    assert found(value) == []


PASSED = {
    "a card without Luhn": "4539 1488 0343 6468",
    "a test card": "4242 4242 4242 4242 or 4111111111111111",
    "a card of no issuer": "9539148803436461",
    "a number of one digit": "4444 4444 4444 4444",
    "digits within a longer number": "14539148803436467 45391488034364671",
    "a fraction": "0.4539148803436467",
    "a table of numbers": "4539 1488 0343 6467 1024 2048 4096 8192",
    "a UUID": "45391488-0343-4467-8123-453914880343",
    "a hash": "a4539148803436467f",
    "an IBAN of another sum": "DE76512108001245126199",
    "an IBAN of no country": "ZZ75512108001245126199",
    "an IBAN too short": "DE7551210800124512619",
    "an order": "order 2024-11-4539148, parcel JD014600003812345678",
    "an ISBN": "ISBN 978-3-16-148410-0 and 3-598-21508-8",
    "a part number": "part 900-22-8726 and 000-12-3456, 666-12-3456, 536-00-8726, 536-22-0000",
    "published social security numbers": "078-05-1120 and 123-45-6789",
    "a remote": "git clone git@github.com:conclave/gateway.git",
    "a file": "open logo@2x.png and react@18.2.0, foo@bar",
    "a decorator": "@pytest.fixture and x@y",
    "a sum": "2+4989235177 and a change of +12345678 %",
    "a story's phone": "call 415-555-0123",
    "a call of a function": "call f(1763800000) or phone_id=1763800000",
    "a version": "libc 2.31.0.1.5, v10.2.3.4, 10.0.0.1, 127.0.0.1, 192.168.0.7, 203.0.113.9",
    "a time": "12:30:45 fe80::1 ::1 2001:db8::1 de:ad:be:ef:00:01",
    "passports in general": "Bring your passport and 2 photos before 2026-11-22.",
    "dates": "2026-11-22, 22.11.2026, 11/22/2026, 1763800000, 1763800000123",
    "coordinates": "48.137154, 11.576124",
}


@pytest.mark.parametrize("text", PASSED.values(), ids=PASSED)
def test_what_only_looks_like_personal_data_passes(text: str) -> None:
    assert found(text) == []


def test_the_code_on_the_back_is_no_part_of_the_card() -> None:
    assert found("4539 1488 0343 6467 124") == [("card", "4539 1488 0343 6467")]


def test_what_follows_a_bank_account_is_no_part_of_it() -> None:
    assert found("DE75 5121 0800 1245 1261 99 BIC SOGEDEFF") == [("iban", "DE75 5121 0800 1245 1261 99")]
    assert found("REF12 DE75 5121 0800 1245 1261 99") == [("iban", "DE75 5121 0800 1245 1261 99")]


def test_a_bank_account_is_no_card() -> None:
    """Its groups of four can pass for one."""
    assert found("DE76 4539 1488 0343 6467 99") == []


def test_few_random_numbers_are_cards() -> None:
    """An issuer's first digits, a known length and Luhn: about 3 of 100 numbers of 16 digits."""
    draw = random.Random(5)
    numbers = ["".join(draw.choices("0123456789", k=16)) for _ in range(2_000)]
    taken = sum(bool(found(number)) for number in numbers)
    assert taken < 0.05 * len(numbers)


def test_published_numbers_would_be_cards() -> None:
    """Each is left out because it is published, not because it is wrong."""
    cards = [number for number in read_rules("pii").published if len(number) > 9]
    assert cards
    assert all(map(luhn, cards))


def test_kinds_that_do_not_count_are_not_found() -> None:
    text = "anna@nordwind.org 4539148803436467 81.169.145.72"
    assert [one.kind for one in inspect(text, PiiCheck(["card"]))] == ["pii.card"]
    assert [one.kind for one in inspect(text, PiiCheck())] == ["pii.email", "pii.card"]
    assert "ip" in KINDS - USUAL


def test_each_kind_has_a_rule() -> None:
    assert {rule.kind for rule in read_rules("pii").rules} == KINDS


@pytest.mark.parametrize("kinds", [["cards"], [], ["card", "name"]], ids=str)
def test_an_unknown_kind_is_refused_with_the_known_ones(kinds: list[str]) -> None:
    with pytest.raises(ValueError, match="known are card, driving_licence, email"):
        PiiCheck(kinds)


def test_it_reads_texts_of_every_origin_as_written() -> None:
    assert CHECK.origins == frozenset(Origin)
    assert (CHECK.name, CHECK.decodes) == ("pii", False)
