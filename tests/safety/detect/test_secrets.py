"""Secrets are found where people leave them; what merely looks like one passes; no finding shows one."""

import base64
import random
import uuid

import pytest

from conclave.safety.api import WRITTEN, Finding, Origin, Segment, Severity, View
from conclave.safety.boundary.normalise import fold
from conclave.safety.boundary.views import views_of
from conclave.safety.detect.patterns import read_rules
from conclave.safety.detect.secrets import SecretsCheck

CHECK = SecretsCheck()
DRAW = random.Random(7)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def drawn(size: int) -> str:
    return "".join(DRAW.choices(LETTERS, k=size))


AWS = "".join(("AKIA", "6UFH3REOSFHYPN5N"))  # in pieces, as in the rules
GITHUB = "ghp" + "_" + drawn(36)


def inspect(text: str) -> list[Finding]:
    return list(CHECK.inspect(View(Segment(Origin.USER, text, text, "p"), WRITTEN, text, 0, len(text))))


def in_all_views(text: str) -> list[Finding]:
    segment = Segment(Origin.TOOL, text, fold(text, max_chars=10**7), "messages[1].content")
    return [finding for view in views_of(segment) for finding in CHECK.inspect(view)]


FOUND = {
    "in an assignment": (f"aws_access_key_id = {AWS}", AWS),
    "behind Chinese": (f"密钥{AWS}请保密", AWS),
    "at the end of a sentence": (f"The key is {AWS}.", AWS),
    "in escaped JSON": (f'{{"env": "A=1\\n{AWS}\\nB=2"}}', AWS),
    "behind a percent code": (f"https://x.org/?k%3D{AWS}", AWS),
    "between quotes": (f"'{GITHUB}'", GITHUB),
    "a password in an address": ("redis://:q7Xw-92lk@cache:6379/0", "q7Xw-92lk"),
    "a quoted password": ('db.password = "correct-h0rse!"', "correct-h0rse!"),
    "a password in JSON": ('{"user": "kim", "password": "correct-h0rse!"}', "correct-h0rse!"),
    "a token in YAML": ("auth_token: 9f8a7Cb1e2D3x4w5", "9f8a7Cb1e2D3x4w5"),
    "a header of curl": ("curl -H 'Authorization: Bearer k3jH82mXz0Qw9LpB7'", "k3jH82mXz0Qw9LpB7"),
}


@pytest.mark.parametrize(("text", "secret"), FOUND.values(), ids=FOUND)
def test_a_secret_is_found_with_its_place(text: str, secret: str) -> None:
    [found] = inspect(text)
    assert text[found.start : found.end] == secret
    assert secret[4:] not in found.evidence


PASSED = {
    "a UUID": str(uuid.UUID(int=DRAW.getrandbits(128))),
    "a commit": "fixed in 7e1ccea1b2c3d4e5f60718293a4b5c6d7e8f9012, see v1.2.3-rc.4",
    "a SHA-256": "sha256:" + DRAW.randbytes(32).hex(),
    "an integrity hash": "sha512-" + base64.b64encode(DRAW.randbytes(64)).decode(),
    "an image": "data:image/png;base64," + base64.b64encode(DRAW.randbytes(3000)).decode(),
    "versions": "numpy==2.4.6, node v22.1.0, sk-learn-contrib, task-ghp-1",
    "a published example": "".join(("AKIA", "IOSFODNN7EXAMPLE")),
    "a placeholder": "OPENAI_API_KEY=sk-" + "x" * 48,
    "a placeholder in words": 'api_key = "YOUR_API_KEY_12345"',
    "a variable of a shell": "password=${DB_PASSWORD} token=$TOKEN_2",
    "a template": 'password: "{{ vault_db_password_1 }}"',
    "a name of a setting": "token = settings.api_token2",
    "a call": "api_key = os.environ['API_KEY_2']",
    "an annotation": "def login(user: str, password: SecretStr) -> Token256: ...",
    "a label of a form": '{"password": "Passwort", "token": "Zugangscode"}',
    "advice": "Your password: must have 8 characters. Never share the secret: nobody needs it.",
    "a password of tutorials": "postgres://postgres:postgres@localhost/app and https://user:password@host/",
    "a public key": "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOC\n-----END PUBLIC KEY-----",
    "a certificate": "-----BEGIN CERTIFICATE-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END CERTIFICATE-----",
    "a publishable key": "pk_live_" + drawn(24),
    "a part of a word": f"x{AWS}y",
    "a date": "token: 2026-11-22T10:00:00",
    "an address": "token=https://auth.example.org/v2/token",
    "tokens of a language model": "max_tokens: 4096, token: 1234567",
    "prose": "The secret of good bread is time; the password to my heart is cheese.",
}


@pytest.mark.parametrize("text", PASSED.values(), ids=PASSED)
def test_what_only_looks_like_a_secret_passes(text: str) -> None:
    assert inspect(text) == []


def test_a_private_key_is_covered_to_its_end() -> None:
    body = "\n".join(base64.b64encode(DRAW.randbytes(48)).decode() for _ in range(20))
    block = "\n".join(("-----BEGIN RSA PRIVATE " + "KEY-----", body, "-----END RSA PRIVATE KEY-----"))
    text = f"before\n{block}\nafter this key come words"
    [found] = inspect(text)
    assert text[found.start : found.end] == block
    assert found.severity is Severity.HIGH


@pytest.mark.parametrize("line_end", ["\n", "\\n"], ids=["lines", "escaped lines"])
def test_a_private_key_that_breaks_off_is_covered_as_far_as_it_goes(line_end: str) -> None:
    lines = ["-----BEGIN " + "PRIVATE KEY-----", *(base64.b64encode(DRAW.randbytes(48)).decode() for _ in range(5))]
    block = line_end.join(lines)
    text = f"{block} and so on, as you see."
    [found] = inspect(text)
    assert text[found.start : found.end] == block


def test_an_encoded_key_is_found_where_its_code_stands() -> None:
    """Its own characters are nowhere in the text: the whole run goes."""
    code = base64.b64encode(f"the key is {GITHUB}".encode()).decode()
    text = f"Grüße: {code} - bye"
    [found] = in_all_views(text)
    assert (text[found.start : found.end], found.view) == (code, "base64")


def test_a_key_in_letters_of_full_width_is_found_in_its_place() -> None:
    wide = "".join(chr(ord(character) + 0xFEE0) for character in AWS)
    text = f"key {wide} here"
    [found] = in_all_views(text)
    assert text[found.start : found.end] == wide


def test_a_key_among_accents_is_found_once() -> None:
    """The folded view differs from the text; it must not widen the find to the whole of it."""
    text = f"Schlüssel „{AWS}“ – bitte nicht weitergeben, ﬁn"  # noqa: RUF001
    [found] = in_all_views(text)
    assert text[found.start : found.end] == AWS


def test_a_vendors_shape_comes_before_the_assignment_around_it() -> None:
    [found] = inspect(f"password={AWS}")
    assert (found.kind, found.confidence) == ("secret.aws_access_key", 1.0)


def test_a_weak_shape_is_less_sure_and_counts_only_as_written() -> None:
    said = "my password: x9Fk2mQz7"
    assert [one.confidence for one in inspect(said)] == [0.7]
    assert in_all_views(base64.b64encode(said.encode()).decode()) == []


def test_the_gateways_own_keys_are_secrets() -> None:
    [found] = inspect("Bearer " + "cv" + "_" + DRAW.randbytes(6).hex() + "_" + DRAW.randbytes(32).hex())
    assert found.kind == "secret.conclave_key"


def test_examples_are_nobodys_words_for_a_placeholder() -> None:
    """Else a rule would be tested with what the check leaves out for another reason."""
    file = read_rules("secrets")
    for rule in file.rules:
        value = "".join(rule.example).lower()
        assert not any(part in value for part in file.placeholders if rule.name != "private_key"), rule.name


def test_it_reads_texts_of_every_origin() -> None:
    assert CHECK.origins == frozenset(Origin)
    assert (CHECK.name, CHECK.decodes) == ("secrets", True)
