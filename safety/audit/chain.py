"""The audit chain: how a row is written, linked and read back. It decides the format and judges nothing.

A chain is what one process wrote, in segments `<chain>.<seq of its first row, 12 digits>.jsonl`, a row a line:

    {"hash":"<64 hex>","row":{...}}\\n

`row` is canonical JSON: UTF-8, keys sorted by code point at every level, no white space, floats as the shortest digits
that read back as the same double. `hash` is SHA-256 over exactly the bytes of `row` as they stand in the line, so a
verifier in any language hashes bytes and never has to write JSON. Three of its keys link it:

    chain   the chain's id: the UTC second it began and 32 random bits, `20261122t072340z-9f2c4e1a`
    seq     the row's number, from 0, without a gap over all segments
    prev    the hash of row seq-1; 64 zeros for row 0

Row 0 has kind `genesis`; a chain that was closed in order ends with kind `closed`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

FORMAT: Final = 1
NO_HASH: Final = "0" * 64
OPENING: Final = b'{"hash":"'
MIDDLE: Final = b'","row":'
HASH_AT: Final = len(OPENING)
MIDDLE_AT: Final = HASH_AT + 64
ROW_AT: Final = MIDDLE_AT + len(MIDDLE)
SEGMENT: Final = re.compile(r"(?P<chain>[0-9]{8}t[0-9]{6}z-[0-9a-f]{8})\.(?P<first>[0-9]{12})\.jsonl")

_encoder: Final = msgspec.json.Encoder(order="sorted")


class Link(msgspec.Struct, frozen=True):
    """The keys of a row that the chain itself needs."""

    chain: str
    seq: int
    prev: str
    kind: str
    time: str


class Signed(msgspec.Struct, frozen=True):
    """A signature that a row bears witness to: entry `n` of heads.jsonl, by the hash of its line."""

    n: int
    hash: str


class Evidence(Link, frozen=True):
    """A row's keys that speak of the signatures of this chain and of others: for `verify`."""

    signed: Signed | None = None
    predecessors: tuple["Predecessor", ...] = ()


class Predecessor(msgspec.Struct, frozen=True):
    """An earlier chain as a genesis row names it: so many rows, the last with this hash."""

    chain: str
    rows: int
    head: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a chain; `first` is the number of its first row."""

    path: Path
    chain: str
    first: int


def canonical(value: object) -> bytes:
    """Canonical JSON; a lone surrogate, which UTF-8 cannot hold, is written as `?`."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(_without_surrogates(value))


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value


def line_of(row: Mapping[str, Any], *, chain: str, seq: int, prev: str) -> tuple[bytes, str]:
    """The line of a row, newline included, and its hash."""
    body = canonical({**row, "chain": chain, "seq": seq, "prev": prev})
    digest = hashlib.sha256(body).hexdigest()
    return b'{"hash":"%b","row":%b}\n' % (digest.encode(), body), digest


def row_bytes(line: bytes) -> bytes | None:
    """The bytes of `row` in a line without its newline; None if the line is not built like one."""
    if line[:HASH_AT] != OPENING or line[MIDDLE_AT:ROW_AT] != MIDDLE or line[-1:] != b"}":
        return None
    return line[ROW_AT:-1]


def hash_in(line: bytes) -> str:
    """The hash that a line claims."""
    return line[HASH_AT:MIDDLE_AT].decode("ascii", "replace")


def is_torn(tail: bytes) -> bool:
    """Whether bytes without a newline are what a broken write leaves: the beginning of one line, zeros after it."""
    begun = tail.rstrip(b"\0")
    if not begun.startswith(OPENING[: len(begun)]) or not MIDDLE.startswith(begun[MIDDLE_AT:ROW_AT]):
        return False
    claimed = begun[HASH_AT:MIDDLE_AT]
    if claimed.strip(b"0123456789abcdef"):
        return False
    end = begun.find(b"}}", ROW_AT)
    while end != -1:  # a whole row followed by anything was not torn but tampered with
        if hashlib.sha256(begun[ROW_AT : end + 1]).hexdigest().encode() == claimed:
            return end + 2 == len(begun)
        end = begun.find(b"}}", end + 1)
    return True


def new_chain(now: datetime, random: bytes) -> str:
    """A chain's id; `random` are 4 bytes."""
    return f"{now.astimezone(UTC):%Y%m%dt%H%M%Sz}-{random.hex()}"


def segment_name(chain: str, first: int) -> str:
    return f"{chain}.{first:012d}.jsonl"


def segments(folder: Path) -> dict[str, list[Segment]]:
    """Every chain's segments in order, the chains by id, which is by age."""
    found: dict[str, list[Segment]] = {}
    for path in sorted(folder.iterdir()):
        if match := SEGMENT.fullmatch(path.name):
            found.setdefault(match["chain"], []).append(Segment(path, match["chain"], int(match["first"])))
    return found


def stamp(moment: datetime) -> str:
    """A moment as rows have it: ISO 8601 in UTC, microseconds, `Z`. Sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
