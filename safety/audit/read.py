"""Rows for people and programs: the last ones, the ones to come, all of some segments. It verifies nothing."""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from conclave.safety.audit.chain import Segment, hash_in, row_bytes, segments

POLL_S: Final = 0.2  # between two looks of `tail -f`

_json: Final = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Stored:
    """A row as it stands in the journal; `line` is its line without the newline."""

    data: dict[str, Any]
    hash: str
    line: bytes

    @property
    def time(self) -> str:
        return str(self.data.get("time", ""))


def parse(line: bytes) -> Stored | None:
    """A whole line without its newline; None if it is no row."""
    body = row_bytes(line)
    if body is None:
        return None
    try:
        return Stored(_json.decode(body), hash_in(line), line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def rows_of(path: Path) -> Iterator[Stored]:
    """The whole rows of a segment; nothing if it was pruned meanwhile."""
    try:
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n") and (row := parse(line[:-1])) is not None:
                    yield row
    except FileNotFoundError:
        return


def merged(chains: Iterable[Iterator[Stored]]) -> Iterator[Stored]:
    """The rows of several chains by time; a chain's rows stay in their order."""
    return heapq.merge(*chains, key=lambda row: row.time)


def last_rows(folder: Path, count: int) -> list[Stored]:
    """The newest rows of all chains, oldest first. Reads only the newest segments that can hold them."""
    found: list[Stored] = []
    for parts in segments(folder).values():
        ours: list[Stored] = []
        for part in reversed(parts):
            if len(ours) >= count:
                break
            ours = [*_last_in(part, count - len(ours)), *ours]
        found += ours
    return sorted(found, key=lambda row: row.time)[-count:] if count else []


def _last_in(part: Segment, count: int) -> list[Stored]:
    try:
        with part.path.open("rb") as lines:
            newest = deque((line for line in lines if line.endswith(b"\n")), maxlen=count)
    except FileNotFoundError:
        return []
    return [row for line in newest if (row := parse(line[:-1])) is not None]


class Follow:
    """What is appended from now on, by any process: segments may come and go."""

    def __init__(self, folder: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self._folder = folder
        self._sleep = sleep
        self._offsets = {part.path: part.path.stat().st_size for parts in segments(folder).values() for part in parts}

    def __iter__(self) -> Iterator[Stored]:
        while True:
            yield from sorted(self.new(), key=lambda row: row.time)
            self._sleep(POLL_S)

    def new(self) -> Iterator[Stored]:
        """Rows that came since the last look."""
        for parts in segments(self._folder).values():
            for part in parts:
                yield from self._new_in(part)

    def _new_in(self, part: Segment) -> Iterator[Stored]:
        try:
            with part.path.open("rb") as lines:
                lines.seek(self._offsets.get(part.path, 0))
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._offsets[part.path] = self._offsets.get(part.path, 0) + len(line)
                    if (row := parse(line[:-1])) is not None:
                        yield row
        except FileNotFoundError:
            return
