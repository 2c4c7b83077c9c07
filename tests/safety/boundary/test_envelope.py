"""Signed envelopes: what is accepted, and that nothing else is."""

import base64
import random
import time

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from conclave.safety.boundary.envelope import (
    CONTEXT,
    Ed25519Signer,
    Ed25519Verifier,
    EnvelopeError,
    HmacKey,
    Verifier,
    open_header,
    seal,
)

BODY = b'{"model":"auto","messages":[{"role":"user","content":"hello"}]}'
NOW_S = 1_800_000_000.0
NONCE = "a1b2c3d4e5f6a7b8"
SHARED = HmacKey(b"s" * 32)
PRIVATE = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(b"p" * 32))
KEYS: dict[str, Verifier] = {"shared": SHARED, "own": Ed25519Verifier(PRIVATE.public)}
BOTH = pytest.mark.parametrize(("kid", "signer"), [("shared", SHARED), ("own", PRIVATE)], ids=["hmac", "ed25519"])


def opened(header: str | None, body: bytes = BODY, *, now_s: float = NOW_S, window_s: float = 60) -> str:
    """The kid, or the rule that was broken."""
    try:
        return open_header(header, body, keys=KEYS, now_s=now_s, window_s=window_s).kid
    except EnvelopeError as error:
        return error.rule


def sealed(kid: str = "shared", signer: HmacKey | Ed25519Signer = SHARED, body: bytes = BODY) -> str:
    return seal(body, kid=kid, signer=signer, now_s=NOW_S, nonce=NONCE)


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def signed(payload: bytes) -> str:
    """A header whose signature is good, whatever it signs."""
    return f"{encoded(payload)}.{encoded(SHARED.sign(CONTEXT + payload))}"


@BOTH
@pytest.mark.parametrize("body", [b"", BODY, b"\xff\x00" * 500_000], ids=["empty", "small", "megabyte"])
def test_what_a_key_signed_is_taken_for_its_own(kid: str, signer: HmacKey | Ed25519Signer, body: bytes) -> None:
    header = sealed(kid, signer, body)
    found = open_header(header, body, keys=KEYS, now_s=NOW_S, window_s=60)
    assert (found.kid, found.ts, found.nonce, found.v) == (kid, NOW_S, NONCE, 1)
    assert len(header) < 425


@BOTH
def test_no_flipped_bit_of_a_thousand_is_accepted(kid: str, signer: HmacKey | Ed25519Signer) -> None:
    """In the body, in the envelope and in its signature; the last characters of base64 have bits that say nothing."""
    dice = random.Random(20_261_122)
    header = sealed(kid, signer)
    dot = header.index(".")
    places = [(at, bit) for at in [*range(len(header))] for bit in range(8)]
    picked = dice.sample(places, 800) + [(at, bit) for at in (dot - 1, len(header) - 1) for bit in range(8)]
    for at, bit in picked:
        raw = bytearray(header.encode())
        raw[at] ^= 1 << bit
        assert opened(raw.decode("latin-1")) not in KEYS, (at, bit)
    for at, bit in dice.sample([(at, bit) for at in range(len(BODY)) for bit in range(8)], 200):
        body = bytearray(BODY)
        body[at] ^= 1 << bit
        assert opened(header, bytes(body)) == "body"


@pytest.mark.parametrize(
    ("skew_s", "said"),
    [(0, "shared"), (60, "shared"), (-60, "shared"), (61, "time"), (-61, "time"), (1e9, "time"), (-1.7e9, "time")],
)
def test_clocks_may_be_a_window_apart_and_no_more(skew_s: float, said: str) -> None:
    assert opened(sealed(), now_s=NOW_S + skew_s) == said


def test_without_an_envelope_there_is_nothing_to_believe() -> None:
    assert opened(None) == "missing"


def test_another_tenants_key_is_none() -> None:
    stranger = HmacKey(b"x" * 32)
    assert opened(seal(BODY, kid="theirs", signer=stranger, now_s=NOW_S, nonce=NONCE)) == "key"
    assert opened(seal(BODY, kid="shared", signer=stranger, now_s=NOW_S, nonce=NONCE)) == "signature"


def test_one_algorithms_signature_is_none_of_the_others() -> None:
    """The public key is public: it must not work as an HMAC secret."""
    header = seal(BODY, kid="own", signer=HmacKey(PRIVATE.public), now_s=NOW_S, nonce=NONCE)
    assert opened(header) == "signature"
    assert opened(seal(BODY, kid="shared", signer=PRIVATE, now_s=NOW_S, nonce=NONCE)) == "signature"


def test_a_signature_for_something_else_is_none_for_an_envelope() -> None:
    payload = base64.urlsafe_b64decode(sealed().partition(".")[0] + "==")
    assert opened(f"{encoded(payload)}.{encoded(SHARED.sign(payload))}") == "signature"


FIELDS = {"kid": "shared", "nonce": NONCE, "sha256": "0" * 64, "ts": int(NOW_S), "v": 1}


@pytest.mark.parametrize(
    "payload",
    [
        msgspec.json.encode({**FIELDS, "v": 2}),
        msgspec.json.encode({**FIELDS, "more": 1}),
        msgspec.json.encode({key: FIELDS[key] for key in ("v", "ts", "sha256", "nonce", "kid")}),
        msgspec.json.encode({key: value for key, value in FIELDS.items() if key != "ts"}),
        msgspec.json.encode({**FIELDS, "ts": -1}),
        msgspec.json.encode({**FIELDS, "ts": 2**80}),
        msgspec.json.encode({**FIELDS, "ts": NOW_S + 0.5}),
        msgspec.json.encode({**FIELDS, "nonce": "short"}),
        msgspec.json.encode({**FIELDS, "nonce": NONCE + "\n"}),
        msgspec.json.encode({**FIELDS, "kid": "a b"}),
        msgspec.json.encode({**FIELDS, "sha256": "A" * 64}),
        msgspec.json.encode(FIELDS).replace(b",", b", "),
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b"",
    ],
    ids=lambda payload: f"{len(payload)}-bytes",
)
def test_there_is_one_spelling_and_all_others_are_malformed_though_they_are_signed(payload: bytes) -> None:
    assert opened(signed(payload)) == "malformed"


@pytest.mark.parametrize(
    "header",
    ["", ".", "..", "abc", "é.é", "\udcff.a", sealed() + "=", sealed().replace(".", ".."), " " + sealed(), "A" * 10**6,
     sealed() + ".AAAA"],
    ids=["empty", "dot", "dots", "one", "latin", "surrogate", "padded", "double", "blank", "huge", "third"],
)  # fmt: skip
def test_what_is_no_envelope_is_malformed(header: str) -> None:
    began_s = time.perf_counter()
    assert opened(header) == "malformed"
    assert time.perf_counter() - began_s < 0.5


def test_no_refusal_repeats_what_was_sent() -> None:
    secrets = ("shared", NONCE, sealed(), "theirs")
    for header in (None, "x.y", sealed()[:-2] + "AA", seal(BODY, kid="theirs", signer=SHARED, now_s=1, nonce=NONCE)):
        with pytest.raises(EnvelopeError) as refused:
            open_header(header, b"other", keys=KEYS, now_s=NOW_S, window_s=60)
        assert not any(secret in refused.value.message for secret in secrets)


@pytest.mark.parametrize(
    ("kid", "nonce"), [("", NONCE), ("a b", NONCE), ("k", "short"), ("k", "n" * 65), ("k", "é" * 20)]
)
def test_no_client_can_sign_what_no_gateway_takes(kid: str, nonce: str) -> None:
    with pytest.raises(ValueError, match="is"):
        seal(BODY, kid=kid, signer=SHARED, now_s=NOW_S, nonce=nonce)


def test_keys_that_are_too_short_are_none() -> None:
    with pytest.raises(ValueError, match="32 bytes at least"):
        HmacKey(b"s" * 31)
    with pytest.raises(ValueError, match="32 bytes"):
        Ed25519Verifier(b"s" * 31)
