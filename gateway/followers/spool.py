"""Reads chains from the disk for followers: where they go on, batch by batch. Whole rows only; it judges nothing."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from conclave.gateway.followers.api import Noted, Row
from conclave.safety.audit.chain import Segment, hash_in, row_bytes, segments

BATCH_ROWS: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024  # rows that keep text can be large
YIELD_ROWS: Final = 64  # rows decoded before the event loop's thread may have the interpreter
READ_BYTES: Final = 64 * 1024  # in one go: each read lets go of the interpreter, and has to win it back
TAIL_BYTES: Final = 64 * 1024

_json: Final = msgspec.json.Decoder(Noted)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a chain: the segment that begins with row `first`, so many bytes into it."""

    first: int
    offset: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows, and the place after them."""

    rows: tuple[Row, ...]
    end: Place


class Spool:
    """The journal as followers see it. The last batch is remembered: followers that keep step decode it once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._remembered: tuple[Path, int, Batch] | None = None

    def chains(self) -> Mapping[str, list[Segment]]:
        """Every chain's segments, the oldest chain first."""
        return segments(self._folder)

    def segments(self, chain: str, since: int) -> list[Segment]:
        """A chain's segments from the one on that holds row `since`."""
        parts = [Segment(path, chain, int(path.name.split(".")[1])) for path in self._folder.glob(f"{chain}.*.jsonl")]
        parts.sort(key=lambda part: part.first)
        holding = max((at for at, part in enumerate(parts) if part.first <= since), default=0)
        return parts[holding:]

    def read(self, part: Segment, offset: int) -> Batch:
        """The next rows of a segment; none if there are no whole ones, or it was pruned."""
        if self._remembered is not None and self._remembered[:2] == (part.path, offset):
            return self._remembered[2]
        batch = _read(part, offset)
        if batch.rows:
            self._remembered = (part.path, offset, batch)
        return batch

    def last_row(self, parts: list[Segment]) -> int:
        """The number of a chain's last whole row, without reading all of it."""
        for part in reversed(parts):
            if (last := _last_in(part)) is not None:
                return last
        return -1


def _read(part: Segment, offset: int) -> Batch:
    rows: list[Row] = []
    at = offset
    try:
        with part.path.open("rb", buffering=READ_BYTES) as file:
            file.seek(offset)
            while len(rows) < BATCH_ROWS and at - offset < BATCH_BYTES and (line := file.readline()).endswith(b"\n"):
                at += len(line)
                if (row := parse(part.chain, line[:-1])) is not None:
                    rows.append(row)
                    if len(rows) % YIELD_ROWS == 0:
                        time.sleep(0)
    except FileNotFoundError:
        pass
    return Batch(tuple(rows), Place(part.first, at))


def parse(chain: str, line: bytes) -> Row | None:
    """A line without its newline; None if it is no row (`verify` says more)."""
    body = row_bytes(line)
    if body is None:
        return None
    try:
        data = _json.decode(body)
        return Row(chain, int(data["seq"]), hash_in(line), data, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, ValueError):
        return None


def _last_in(part: Segment) -> int | None:
    try:
        with part.path.open("rb") as file:
            size = file.seek(0, 2)
            length = min(size, TAIL_BYTES)
            while True:
                file.seek(size - length)
                whole = file.read(length).split(b"\n")[:-1]  # what follows the last newline is torn
                if length == size or len(whole) > 1:
                    break
                length = min(size, length * 2)
    except FileNotFoundError:
        return None
    row = parse(part.chain, whole[-1]) if whole else None
    return row.seq if row is not None else None
