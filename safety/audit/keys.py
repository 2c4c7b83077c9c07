"""The key pair that signs the heads of the audit chains. It is made at first need and never leaves its folder."""

import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

KEY_FILE: Final = Path("keys/audit_ed25519")  # under the state folder
END_OF_KEY: Final = "-----END PUBLIC KEY-----"


class SigningKey:
    """An Ed25519 key pair; `public` is the public half as 64 hex digits, its name in heads and genesis rows."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = _hex(key.public_key())

    @classmethod
    def open(cls, path: Path) -> "SigningKey":
        """The key in the file, made (mode 0600) if there is none. Raises ValueError if it holds no Ed25519 key."""
        key = load_pem_private_key(keep_secret(path, _new_key), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{path} holds no Ed25519 key")  # noqa: TRY004  the value of a file
        return cls(key)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def public_pem(self) -> str:
        """The public half for pinning elsewhere (`conclave audit key`, `verify --public-key`)."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def keep_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    """The bytes in a file that only its owner may read; made once, whole, whoever comes first."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # as O_EXCL, but never seen half-written
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()


def read_public(pem: str) -> frozenset[str]:
    """The public keys in a text of one or more PEM blocks, in hex. Raises ValueError if there is none."""
    keys: set[str] = set()
    for block in pem.split(END_OF_KEY)[:-1]:
        key = load_pem_public_key((block.strip() + "\n" + END_OF_KEY + "\n").encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("a public key in the file is not Ed25519")  # noqa: TRY004  the value of a file
        keys.add(_hex(key))
    if not keys:
        raise ValueError("no public key in the file (PEM, as `conclave audit key` prints it)")
    return frozenset(keys)


def is_signed(message: bytes, signature_hex: str, *, by: str, trusted: Iterable[str]) -> bool:
    """Whether the message bears the signature of the key `by`, and that key is trusted."""
    if by not in trusted:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(by)).verify(bytes.fromhex(signature_hex), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _hex(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
