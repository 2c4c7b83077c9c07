"""heads.jsonl: the signed heads of all chains in a folder, and the tombstones of what was pruned.

One entry a line, whichever process wrote it:

    {"entry":{...},"sig":"<128 hex>"}\\n

`sig` is Ed25519 over the bytes of `entry` (canonical JSON, as in chain.py). Entries are numbered (`n`) and linked:
`prev` is the SHA-256 of the line before, without its newline. So the last signature covers the whole file, and what
is cut off its end is missed by the rows that name a signature (`signed` in chain.py). Writers take turns by flock; who
finds a half-written last line removes it.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec

from conclave.safety.audit.chain import NO_HASH, canonical
from conclave.safety.audit.keys import SigningKey

HEADS_FILE: Final = "heads.jsonl"
OPENING: Final = b'{"entry":{'
SIGNATURE: Final = re.compile(rb'"sig":"[0-9a-f]{128}"\}')
TAIL_BYTES: Final = 64 * 1024  # read back at once to find the last line


class Dropped(msgspec.Struct, frozen=True):
    """Rows that were pruned: `first` to `last` of a chain, the last with this hash, and when."""

    chain: str
    first: int
    last: int
    hash: str
    at: str


class Cut(msgspec.Struct, frozen=True):
    """Entries of heads.jsonl that were pruned: all up to `n`, whose line has this hash."""

    n: int
    hash: str


class Head(msgspec.Struct, frozen=True, tag_field="kind", tag="head"):
    """A chain's state: so many rows, the last with hash `head`; `closed` means that there will be no more."""

    chain: str
    rows: int
    head: str
    closed: bool
    at: str
    key: str
    n: int
    prev: str


class Tombstone(msgspec.Struct, frozen=True, tag_field="kind", tag="tombstone"):
    """What was ever pruned in this folder: the newest tombstone repeats the older ones."""

    dropped: tuple[Dropped, ...]
    cut: Cut | None
    at: str
    key: str
    n: int
    prev: str


class Line(msgspec.Struct, frozen=True):
    entry: msgspec.Raw
    sig: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What a process signs: its chain has so many rows, the last with hash `head`."""

    chain: str
    rows: int
    head: str
    closed: bool
    at: str


@dataclass(frozen=True, slots=True)
class Signature:
    """One line of heads.jsonl as read: its entry, the bytes that `sig` signs, the hash of the line."""

    entry: Head | Tombstone
    signed: bytes
    sig: str
    hash: str


_lines: Final = msgspec.json.Decoder(Line)
_entries: Final = msgspec.json.Decoder(Head | Tombstone)


def read_line(line: bytes) -> Signature | None:
    """A line (without its newline) as it was signed; None if it is not one, or not written exactly as we write it."""
    try:
        parsed = _lines.decode(line)
        signed = bytes(parsed.entry)
        entry = _entries.decode(signed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if line != _written(signed, parsed.sig):
        return None
    return Signature(entry, signed, parsed.sig, line_hash(line))


def is_torn(tail: bytes) -> bool:
    """Whether bytes without a newline are the beginning of one line, as a broken write leaves it, zeros after it."""
    begun = tail.rstrip(b"\0")
    whole = SIGNATURE.search(begun)
    return begun.startswith(OPENING[: len(begun)]) and (whole is None or whole.end() == len(begun))


def line_hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _written(signed: bytes, sig: str) -> bytes:
    return b'{"entry":%b,"sig":"%b"}' % (signed, sig.encode())


class Heads:
    """heads.jsonl under a lock. Use `locked(folder)`."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self.path = path

    def read(self) -> bytes:
        """The whole file."""
        size = os.fstat(self._descriptor).st_size
        pieces, at = [], 0
        while at < size and (piece := os.pread(self._descriptor, size - at, at)):
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces)

    def latest(self) -> dict[str, Head]:
        """The newest head of each chain that was not pruned whole; nothing here is verified."""
        found: dict[str, Head] = {}
        for line in self.read().splitlines():
            signature = read_line(line)
            match signature.entry if signature else None:
                case Head() as head:
                    found[head.chain] = head
                case Tombstone(dropped=dropped):
                    for item in dropped:
                        if item.chain in found and item.last + 1 >= found[item.chain].rows:
                            del found[item.chain]
        return found

    def sign(self, claim: Claim, key: SigningKey) -> tuple[int, str]:
        """Append a signed head; returns its number and the hash of its line. Raises OSError with nothing written."""
        n, prev = self._next()
        line = signed_line(Head(**asdict(claim), key=key.public, n=n, prev=prev), key)
        self._append(line + b"\n")
        return n, line_hash(line)

    def _next(self) -> tuple[int, str]:
        """Number and `prev` of the entry to come; a torn last line is removed first."""
        size = os.fstat(self._descriptor).st_size
        tail, start = b"", size
        while start > 0 and tail.count(b"\n") < 2:  # noqa: PLR2004  the last line's own newline and the one before it
            start = max(0, start - TAIL_BYTES)
            tail = os.pread(self._descriptor, size - start, start)
        whole = tail.rfind(b"\n") + 1
        if whole != len(tail):
            os.ftruncate(self._descriptor, start + whole)
            return self._next()
        if not tail:
            return 0, NO_HASH
        last = tail[:-1].rsplit(b"\n", 1)[-1]
        signature = read_line(last)
        return (signature.entry.n + 1 if signature else self.read().count(b"\n")), line_hash(last)

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        try:
            if os.pwrite(self._descriptor, line, size) != len(line):
                raise OSError("heads.jsonl: short write")
            os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise


def signed_line(entry: Head | Tombstone, key: SigningKey) -> bytes:
    """The entry as a line, without its newline."""
    signed = canonical(entry)
    return _written(signed, key.sign(signed).hex())


@contextmanager
def locked(folder: Path, *, exclusive: bool) -> Iterator[Heads]:
    """heads.jsonl, made if missing and `exclusive`. Pruning replaces the file: hence the second look at its name."""
    path = folder / HEADS_FILE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT if exclusive else os.O_RDONLY, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                yield Heads(descriptor, path)
                return
        finally:
            os.close(descriptor)
