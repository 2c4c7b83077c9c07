"""The signed envelope of a request: which key signed exactly these bytes, when, and under which number of use.

A header carries it: `base64url(canonical JSON)` `.` `base64url(signature)`, without padding. The JSON is
`{"kid", "nonce", "sha256", "ts", "v"}`, its keys sorted, without blanks; what is signed is a fixed prefix and the JSON.
Every spelling but this one is refused, so no second header says the same. Pure: it holds no clock and remembers no
nonce, and it says nothing of what a request means. The idea is the sound core of Countermind's "Text Crypter"
(arXiv 2510.11837); unlike there, nothing is encrypted.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HEADER: Final = "x-conclave-envelope"
VERSION: Final = 1
CONTEXT: Final = b"conclave-envelope-v1\n"  # a signature for anything else is none of ours
HEADER_CHARS: Final = 1024  # the longest kid and nonce make 425
NONCE: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")  # from 96 random bits on
KID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
SECRET_BYTES: Final = 32  # at least, of an HMAC key
PUBLIC_BYTES: Final = 32  # of an Ed25519 key
LATEST_S: Final = 2**53

Algorithm: TypeAlias = Literal["hmac-sha256", "ed25519"]
Rule: TypeAlias = Literal["missing", "malformed", "key", "signature", "time", "replay", "body"]


class EnvelopeError(ValueError):
    """An envelope that proves nothing. `rule` says which rule it broke; the message repeats nothing of it."""

    def __init__(self, rule: Rule, message: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed: key id, use number, digest of the body (hex), seconds since the epoch, version of this form."""

    kid: str
    nonce: str
    sha256: str
    ts: int
    v: int = VERSION


class Signer(Protocol):
    def sign(self, message: bytes, /) -> bytes:
        """The signature."""
        ...


class Verifier(Protocol):
    def is_signed(self, message: bytes, signature: bytes, /) -> bool:
        """Whether it is this key's; takes as long for one that is not."""
        ...


class HmacKey:
    """HMAC-SHA256 over a shared secret: who can verify can also sign."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SECRET_BYTES:
            raise ValueError(f"an HMAC key has {SECRET_BYTES} bytes at least, not {len(secret)}")
        self._secret = secret

    def sign(self, message: bytes, /) -> bytes:
        return hmac.digest(self._secret, message, "sha256")

    def is_signed(self, message: bytes, signature: bytes, /) -> bool:
        return hmac.compare_digest(self.sign(message), signature)


class Ed25519Verifier:
    """The public half: it can check and cannot sign."""

    def __init__(self, public: bytes) -> None:
        if len(public) != PUBLIC_BYTES:
            raise ValueError(f"an Ed25519 public key has {PUBLIC_BYTES} bytes, not {len(public)}")
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  24 ms that few gateways need
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        self._wrong = InvalidSignature
        self._key = Ed25519PublicKey.from_public_bytes(public)

    def is_signed(self, message: bytes, signature: bytes, /) -> bool:
        try:
            self._key.verify(signature, message)
        except self._wrong:
            return False
        return True


class Ed25519Signer:
    """The private half."""

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        self._key = key

    def sign(self, message: bytes, /) -> bytes:
        return self._key.sign(message)

    @property
    def public(self) -> bytes:
        """The 32 bytes that a verifier needs."""
        return self._key.public_key().public_bytes_raw()


def seal(body: bytes, *, kid: str, signer: Signer, now_s: float, nonce: str) -> str:
    """The header's value for a body. Raises ValueError for a kid or nonce that no verifier would take."""
    if KID.fullmatch(kid) is None:
        raise ValueError("a kid is up to 64 letters, digits, dots, dashes and underscores")
    if NONCE.fullmatch(nonce) is None:
        raise ValueError("a nonce is 16 to 64 letters, digits, dashes and underscores")
    payload = canonical(Envelope(kid=kid, nonce=nonce, sha256=hashlib.sha256(body).hexdigest(), ts=int(now_s)))
    return f"{_encoded(payload)}.{_encoded(signer.sign(CONTEXT + payload))}"


def open_header(
    header: str | None, body: bytes, *, keys: Mapping[str, Verifier], now_s: float, window_s: float
) -> Envelope:
    """The envelope in a header, if it is sound, timely and of this body; whether it was used before is not asked.

    Raises EnvelopeError. The signature is checked before anything that the envelope says is believed.
    """
    if header is None:
        raise EnvelopeError("missing", f"this tenant's calls are signed: the header {HEADER} is missing")
    payload, signature = _taken_apart(header)
    envelope = _read(payload)
    verifier = keys.get(envelope.kid)
    if verifier is None:
        raise EnvelopeError("key", "the envelope names no key of this tenant")
    if not verifier.is_signed(CONTEXT + payload, signature):
        raise EnvelopeError("signature", "the envelope's signature does not fit")
    if abs(now_s - envelope.ts) > window_s:
        raise EnvelopeError(
            "time", f"the envelope's ts is more than {window_s:g} s away from the gateway's clock; sign anew"
        )
    if not hmac.compare_digest(hashlib.sha256(body).hexdigest(), envelope.sha256):
        raise EnvelopeError("body", "the body is not the one that was signed")
    return envelope


def canonical(envelope: Envelope) -> bytes:
    """The one spelling of an envelope."""
    return msgspec.json.encode(msgspec.structs.asdict(envelope), order="deterministic")


def _taken_apart(header: str) -> tuple[bytes, bytes]:
    first, dot, second = header.partition(".")
    if len(header) > HEADER_CHARS or not dot:
        raise _malformed()
    return _decoded(first), _decoded(second)


def _read(payload: bytes) -> Envelope:
    try:
        envelope = msgspec.json.decode(payload, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _malformed() from None
    fits: tuple[tuple[Callable[[str], object], str], ...] = (
        (KID.fullmatch, envelope.kid),
        (NONCE.fullmatch, envelope.nonce),
        (DIGEST.fullmatch, envelope.sha256),
    )
    if envelope.v != VERSION or not 0 <= envelope.ts <= LATEST_S or not all(match(text) for match, text in fits):
        raise _malformed()
    if canonical(envelope) != payload:
        raise _malformed()
    return envelope


def _malformed() -> EnvelopeError:
    return EnvelopeError("malformed", f"{HEADER} must be base64url(canonical JSON).base64url(signature)")


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Strict: Python's own decoder passes over characters and spare bits, and each would be a second spelling."""
    try:
        value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise _malformed() from None
    if _encoded(value) != text:
        raise _malformed()
    return value
