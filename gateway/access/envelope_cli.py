"""`conclave envelope new|sign`: makes keys that sign requests, and signs one. For clients; it reads no policy.

A secret is read from a file or a variable, never from the command line, where other users of the machine would see it.
"""

import base64
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import click

from conclave.safety.boundary.envelope import HEADER, Algorithm, Ed25519Signer, HmacKey, Signer, seal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NONCE_BYTES: Final = 18  # 24 characters
MOST_BYTES: Final = 268_435_456  # as the largest body that a policy may allow
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)


@click.group()
def envelope() -> None:
    """Sign requests, and make the keys for it; docs/envelope.md says what that proves."""


@envelope.command()
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default="ed25519", show_default=True)
@click.option("--key-file", required=True, type=click.Path(path_type=Path), help="Where the secret goes; must be new.")
def new(*, algorithm: Algorithm, key_file: Path) -> None:
    """Make a key: the secret into a file of mode 0600; of ed25519 the public key on stdout, for the policy."""
    secret, public = _new_ed25519() if algorithm == "ed25519" else (secrets.token_hex(32).encode() + b"\n", None)
    try:
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.ClickException(
            f"{key_file} is there already, and no key is written over: name a new file"
        ) from None
    except OSError as error:
        raise click.ClickException(f"{key_file}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    if public is not None:
        click.echo(public)
        click.echo(
            f"The private key is in {key_file}; this is its public_key, for envelope.keys in the policy.", err=True
        )


@envelope.command()
@click.option("--kid", required=True, help="The key's name in the policy.")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default="ed25519", show_default=True)
@click.option("--key-file", type=click.Path(path_type=Path), help="The file that holds the secret.")
@click.option("--key-env", help="The variable that holds the secret, if no file does.")
def sign(*, kid: str, algorithm: Algorithm, key_file: Path | None, key_env: str | None) -> None:
    """Read a request's body from stdin and print the header for exactly these bytes; good once, for a minute."""
    signer = _signer(algorithm, _secret(key_file, key_env))
    body = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise click.ClickException("no gateway takes a body as large as this")
    try:
        value = seal(body, kid=kid, signer=signer, now_s=time.time(), nonce=secrets.token_urlsafe(NONCE_BYTES))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{HEADER}: {value}")


def _secret(key_file: Path | None, key_env: str | None) -> bytes:
    if key_file is not None:
        try:
            return key_file.read_bytes()
        except OSError as error:
            raise click.ClickException(f"{key_file}: {error.strerror}") from error
    if key_env is None:
        raise click.UsageError("say where the secret is: --key-file or --key-env")
    if not (found := os.environ.get(key_env)):
        raise click.ClickException(f"the variable {key_env} is not set, or empty")
    return found.encode()


def _signer(algorithm: Algorithm, secret: bytes) -> Signer:
    try:
        if algorithm == "hmac-sha256":
            return HmacKey(secret.strip())
        return Ed25519Signer(_private(secret))
    except ValueError as error:
        raise click.ClickException(f"this is no key of algorithm {algorithm}: {error}") from error


def _private(pem: bytes) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  not for `--help`
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError("it is encrypted; sign with one that is not") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is another kind of key")  # noqa: TRY004  the value of a file
    return key


def _new_ed25519() -> tuple[bytes, str]:
    """The private half as PEM, the public one as the policy takes it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  not for `--help`
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, base64.b64encode(Ed25519Signer(key).public).decode()
