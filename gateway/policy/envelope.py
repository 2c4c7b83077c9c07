"""The policy's `envelope`: whether a tenant's calls are signed, with which keys, and how far clocks may be apart.

A value, checked for shape; it never holds a secret, only where one is. `seals_of` reads the secrets when a version is
made. A key that cannot be read then signs for nobody: its calls are refused, and `check-config` and the log say why.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from conclave.gateway.policy.part import Part
from conclave.gateway.policy.source import Loc, Problem, dotted
from conclave.safety.boundary.envelope import (
    KID,
    PUBLIC_BYTES,
    SECRET_BYTES,
    Algorithm,
    Ed25519Verifier,
    HmacKey,
    Verifier,
)

if TYPE_CHECKING:
    from conclave.gateway.policy.document import PolicyDocument
    from conclave.gateway.policy.load import Where

VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
NO_KEYS: Final[Mapping[str, Verifier]] = {}

Mode: TypeAlias = Literal["off", "optional", "required"]


def public_bytes(value: str) -> bytes:
    """The 32 bytes of a public key in base64. Raises ValueError."""
    try:
        found = base64.b64decode(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != PUBLIC_BYTES:
        raise ValueError("must be the 32 bytes of an Ed25519 public key in base64; `conclave envelope new` prints them")
    return found


def _is_public_key(value: str) -> str:
    public_bytes(value)
    return value


class EnvelopeKey(Part):
    """One key that a tenant's clients sign with."""

    algorithm: Algorithm = Field(
        description="`hmac-sha256`: a shared secret; `ed25519`: only the client can sign, the public half is here."
    )
    key_env: Annotated[str, StringConstraints(pattern=VARIABLE)] | None = Field(
        default=None, description="`hmac-sha256`: the environment variable that holds the secret."
    )
    key_file: Path | None = Field(
        default=None, description="`hmac-sha256`: the file that holds the secret; comes before `key_env`."
    )
    public_key: Annotated[str, AfterValidator(_is_public_key)] | None = Field(
        default=None, description="`ed25519`: the public key, 32 bytes in base64."
    )

    @model_validator(mode="after")
    def _fits_its_algorithm(self) -> Self:
        if self.algorithm == "ed25519":
            if self.public_key is None:
                raise ValueError("a key of algorithm ed25519 needs public_key")
            if self.key_env is not None or self.key_file is not None:
                raise ValueError("an ed25519 key takes only public_key: the private half stays at the client")
        elif self.public_key is not None:
            raise ValueError("a key of algorithm hmac-sha256 has no public_key: it is secret, name key_env or key_file")
        elif self.key_env is None and self.key_file is None:
            raise ValueError("a key of algorithm hmac-sha256 needs key_env or key_file")
        return self


def _kids(keys: dict[str, EnvelopeKey]) -> dict[str, EnvelopeKey]:
    for kid in keys:
        if KID.fullmatch(kid) is None:
            raise ValueError(f"{kid[:64]!r} is no kid: up to 64 letters, digits, dots, dashes and underscores")
    return keys


class EnvelopeSettings(Part):
    """Whether calls are signed. The keys of a tenant sign for that tenant alone."""

    mode: Mode = Field(
        default="off",
        description="`off`: envelopes are not looked at; `optional`: one that comes must be sound; `required`: each "
        "call needs one.",
    )
    window_s: float = Field(
        default=60.0, ge=1, le=3600, description="How far the envelope's time may be from the gateway's clock."
    )
    keys: Annotated[dict[str, EnvelopeKey], Field(max_length=64), AfterValidator(_kids)] = Field(
        default_factory=dict, description="The keys by kid; several at once while one takes another's place."
    )

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.mode != "off" and not self.keys:
            raise ValueError(f"mode {self.mode} needs keys: without one every envelope is refused")
        return self


@dataclass(frozen=True, slots=True)
class Seals:
    """What a tenant's calls are held to."""

    mode: Mode = "off"
    window_s: float = 60.0
    keys: Mapping[str, Verifier] = field(default_factory=lambda: NO_KEYS)


UNSEALED: Final = Seals()


def seals_of(settings: EnvelopeSettings, environ: Mapping[str, str]) -> Seals:
    """The settings with their secrets read. Blocks on files. A key that is not there or too short is left out."""
    if settings.mode == "off":
        return UNSEALED
    keys: dict[str, Verifier] = {}
    for kid, key in settings.keys.items():
        with suppress(OSError, ValueError):  # `unusable_keys` says so
            keys[kid] = _verifier(key, environ)
    return Seals(settings.mode, settings.window_s, keys)


def _verifier(key: EnvelopeKey, environ: Mapping[str, str]) -> Verifier:
    if key.public_key is not None:
        return Ed25519Verifier(public_bytes(key.public_key))
    if key.key_file is not None:
        return HmacKey(key.key_file.read_bytes().strip())
    return HmacKey(environ.get(key.key_env or "", "").strip().encode())


def unusable_keys(document: "PolicyDocument", environ: Mapping[str, str], where: "Where") -> Iterator[Problem]:
    """Envelope keys that cannot be used as things are: a warning, for a key may come before the next start."""
    parts: list[tuple[Loc, EnvelopeSettings]] = [(("policy", "envelope"), document.envelope)]
    for tenant, overrides in document.tenants.items():
        if overrides.envelope is not None:
            parts.append((("policy", "tenants", tenant, "envelope"), overrides.envelope))
    for above, settings in parts:
        for kid, key in settings.keys.items() if settings.mode != "off" else ():
            loc: Loc = (*above, "keys", kid)
            try:
                _verifier(key, environ)
            except OSError:
                yield Problem(where(loc), dotted(loc), f"the key file {key.key_file} cannot be read")
            except ValueError:
                words = f"the secret is not set, or has less than {SECRET_BYTES} bytes: what it signs is refused"
                yield Problem(where(loc), dotted(loc), words)
