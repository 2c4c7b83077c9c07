"""The policy document as bytes: what its digest is made of, and what the table of versions keeps.

The bytes are canonical JSON: sorted keys, no spaces, all defaults written out. Of a tenant only what it says itself is
written, because that is what counts; experts are a list of pairs, because their order decides, too.
"""

import hashlib
from typing import Any

import msgspec
from pydantic import ValidationError

from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import cross_check
from conclave.gateway.policy.source import dotted


class UnreadableError(ValueError):
    """Stored bytes that are no policy to this Conclave; the message says why."""


def canonical(document: PolicyDocument) -> bytes:
    """The document, so that documents that mean the same are the same bytes."""
    plain = document.model_dump(mode="json")
    plain["tenants"] = {
        name: tenant.model_dump(mode="json", exclude_unset=True) for name, tenant in document.tenants.items()
    }
    plain["experts"] = list(plain["experts"].items())
    return msgspec.json.encode(plain, order="deterministic")


def digest_of(document: PolicyDocument) -> str:
    """SHA-256 (hex) of the document's canonical JSON."""
    return digest_of_bytes(canonical(document))


def digest_of_bytes(raw: bytes) -> str:
    """SHA-256 (hex)."""
    return hashlib.sha256(raw).hexdigest()


def plain_of(raw: bytes | str) -> dict[str, Any]:
    """The document as a file would write it. Raises UnreadableError."""
    try:
        plain = msgspec.json.decode(raw, type=dict[str, Any])
        plain["experts"] = dict(plain["experts"])
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise UnreadableError("is no policy document") from error
    return plain


def document_of(raw: bytes | str) -> PolicyDocument:
    """The document again: `canonical` of it gives the bytes. Raises UnreadableError."""
    plain = plain_of(raw)
    for problem in cross_check(plain, plain["experts"], dotted):
        raise UnreadableError(f"cannot be used: {problem.key}: {problem.message}")
    try:
        return PolicyDocument.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UnreadableError(
            f"holds what this Conclave does not know: {dotted(first['loc'])}: {first['msg']}"
        ) from error
