"""Receipts of what was forgotten: lines in the library's folder, each with the hash of the one before it.

Where the command line hands in a key, each is signed, too, so that it can be shown to people who have nothing but the
public key. What a receipt says is not for this file to know; it holds no document's words.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

RECEIPTS: Final = "receipts.jsonl"
FIRST: Final = "0" * 64
HASH: Final = "sha256"
SIGNED: Final = "signed"
PURPOSE: Final = b"conclave knowledge receipt\n"  # stands before the hash: the key signs other things as well
SHOWN_CHARS: Final = 320

IsSigned: TypeAlias = Callable[[bytes, str, str], bool]  # the message, its signature and whose it is, both in hex


class Signer(Protocol):
    """An Ed25519 key pair; `public` is 64 hex digits."""

    @property
    def public(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...


def write_receipt(folder: Path, receipt: Mapping[str, Any], signer: Signer | None = None) -> Mapping[str, Any]:
    """Put a receipt under those before it; the receipt with its hash and, if somebody signs, the signature."""
    file = folder / RECEIPTS
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    previous = json.loads(lines[-1])[HASH] if lines else FIRST
    chained = {**receipt, "previous": previous}
    chained[HASH] = _digest(chained)
    if signer is not None:
        chained[SIGNED] = {"key": signer.public, "sig": signer.sign(PURPOSE + chained[HASH].encode()).hex()}
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(chained) + "\n")
    return chained


def broken_receipts(folder: Path) -> list[str]:
    """Receipts that were changed, taken out or put in another order."""
    file = folder / RECEIPTS
    previous, wrong = FIRST, list[str]()
    for number, line in enumerate(file.read_text("utf-8").splitlines() if file.exists() else (), start=1):
        try:
            receipt = json.loads(line)
            if receipt["previous"] != previous or _digest(receipt) != receipt[HASH]:
                wrong.append(f"receipt {number} was changed, or the one before it")
            previous = str(receipt[HASH])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            wrong.append(f"receipt {number} cannot be read")
    return wrong


def read_receipts(text: str) -> list[Mapping[str, Any]]:
    """One receipt as `forget` prints it, or several, one a line. Raises ValueError."""
    try:
        found = [json.loads(text)]
    except (ValueError, RecursionError):
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            found = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise ValueError("not a receipt: JSON as `conclave knowledge forget` prints it, or one a line") from error
    if not found or not all(isinstance(one, dict) and isinstance(one.get(HASH), str) for one in found):
        raise ValueError(f"not a receipt: an object with {HASH}, as `conclave knowledge forget` prints it")
    return found


def fault_of(receipt: Mapping[str, Any], is_signed: IsSigned) -> str | None:
    """Why a receipt proves nothing, in a word or two; None if it holds."""
    try:
        digest = _digest(receipt)
    except RecursionError:
        return "it cannot be read"
    if digest != receipt[HASH]:
        return "it was changed: its hash is another"
    signed = receipt.get(SIGNED)
    if signed is None:
        return "it is not signed"
    by, signature = (signed.get(name) for name in ("key", "sig")) if isinstance(signed, dict) else (None, None)
    if not isinstance(by, str) or not isinstance(signature, str):
        return "what stands there is no signature"
    if not is_signed(PURPOSE + receipt[HASH].encode("utf-8", "replace"), signature, by):
        return "it bears no signature of a key that is trusted"
    return None


def is_for(receipt: Mapping[str, Any], subject: str) -> bool:
    """Whether it says that this subject, as receipts name it, was forgotten."""
    wanted = receipt.get("wanted")
    return isinstance(wanted, dict) and wanted.get("subject") == subject


def about(receipt: Mapping[str, Any]) -> str:
    """What a receipt says, on a line that steers no terminal, whoever wrote it."""
    left, signed = receipt.get("left"), receipt.get(SIGNED)
    words = [
        f"{receipt.get('time')}: {receipt.get('documents')} documents and {receipt.get('passages')} passages",
        f"left of them: {_sum(left)}",
        f"key {signed.get('key') if isinstance(signed, dict) else None}",
    ]
    return "".join(char if char.isprintable() else "?" for char in ", ".join(words))[:SHOWN_CHARS]


def _sum(left: object) -> object:
    if isinstance(left, dict) and all(isinstance(count, int) for count in left.values()):
        return sum(left.values())
    return left


def _digest(receipt: Mapping[str, Any]) -> str:
    said = {name: value for name, value in receipt.items() if name not in {HASH, SIGNED}}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
