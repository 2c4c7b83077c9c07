"""The journal: this process's audit chain, one plain write a row. It knows the chain's state, never what a row means.

A row that cannot be written (full disk) is kept in memory, its call fails with Unavailable, and `ready` refuses new
calls until the kept rows stand in the chain. The format is safety/audit/chain.py; signing is done by a thread of the
followers' runner, never on the event loop.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from conclave.gateway.errors import Unavailable
from conclave.safety.audit import heads
from conclave.safety.audit.chain import FORMAT, NO_HASH, line_of, new_chain, segment_name, stamp
from conclave.safety.audit.keys import SigningKey
from conclave.safety.audit.segment import SegmentWriter, Write

SIGN_EVERY_S: Final = 60.0
SIGN_EVERY_ROWS: Final = 1_000  # so that few rows are without a signature when a process is killed
LOOK_EVERY_S: Final = 1.0  # between two looks at the disk
KEPT_ROWS: Final = 1_000  # rows that wait in memory for a disk that is full; beyond it they are only counted
DAY: Final = 10  # characters of the date in a row's time

log = structlog.get_logger()


def free_bytes(folder: Path) -> int:
    """What an unprivileged process may still write there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOptions:
    """What a journal is told from outside. `write` and `free` are the disk, for tests that fill it."""

    version: str = "unknown"
    floor_bytes: int = 64 * 1024 * 1024  # below it no new call is taken
    segment_bytes: int = 256 * 1024 * 1024
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    now_s: Callable[[], float] = time.monotonic
    write: Write = os.write
    free: Callable[[Path], int] = free_bytes


@dataclass(frozen=True, slots=True)
class State:
    """Where the chain stands: how many rows, and the hash of the last."""

    rows: int
    head: str


class Journal:
    """One chain, from its genesis row to its closing row. Use `Journal.open`."""

    def __init__(self, folder: Path, key: SigningKey, options: JournalOptions) -> None:
        self.folder = folder
        self.chain = new_chain(options.now(), os.urandom(4))
        self._key = key
        self._options = options
        self._lock = threading.Lock()  # the chain's state: event loop, signing thread
        self._signing = threading.Lock()
        self._state = State(0, NO_HASH)
        self._day = ""
        self._segment = SegmentWriter(folder / segment_name(self.chain, 0), write=options.write)
        self._full: deque[SegmentWriter] = deque()  # left behind, not yet synced
        self._kept: deque[Mapping[str, Any]] = deque()
        self._lost = 0
        self._signed_rows = 0
        self._signed_s = options.now_s()
        self._to_witness: dict[str, Any] | None = None  # the last signature, for the next row to name
        self._looked_s = float("-inf")
        self._roomy = True
        self._closed = False

    @classmethod
    def open(cls, folder: Path, key: SigningKey, options: JournalOptions | None = None) -> "Journal":
        """Begin a chain: its genesis row names what is known of all earlier ones. Raises OSError or Unavailable."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        with heads.locked(folder, exclusive=True) as file:  # verify, under the same lock, sees both or neither
            earlier = file.latest().values()
            journal = cls(folder, key, options or JournalOptions())
            try:
                journal.append(journal._genesis(earlier))
                journal._sign(file, closed=False)
            except (Unavailable, OSError):
                journal._segment.close()
                raise
        log.info("journal.opened", chain=journal.chain, earlier_chains=len(earlier))
        return journal

    def _genesis(self, earlier: Iterable[heads.Head]) -> dict[str, Any]:
        return {
            "kind": "genesis",
            "time": stamp(self._options.now()),
            "format": FORMAT,
            "public_key": self._key.public,
            "version": self._options.version,
            "predecessors": [
                {"chain": head.chain, "rows": head.rows, "head": head.head, "closed": head.closed} for head in earlier
            ],
        }

    @property
    def state(self) -> State:
        return self._state

    def append(self, row: Mapping[str, Any]) -> int:
        """Write the row (`kind` and `time` are its own) and return its number. Raises Unavailable if it had to wait."""
        with self._lock:
            if self._closed:
                raise Unavailable("the journal is closed")
            if self._kept:
                self._flush()
            if self._kept:
                self._keep(row)
                raise Unavailable("the audit record cannot be written", retry_after_s=LOOK_EVERY_S)
            try:
                return self._write(row)
            except OSError as error:
                log.error("journal.write_failed", chain=self.chain, error=error.strerror)
                self._looked_s = self._options.now_s()
                self._keep(row)
                raise Unavailable("the audit record cannot be written", retry_after_s=LOOK_EVERY_S) from error

    def _write(self, row: Mapping[str, Any]) -> int:
        state, witness = self._state, self._to_witness
        if witness is not None:
            row = {**row, "signed": witness}
        line, digest = line_of(row, chain=self.chain, seq=state.rows, prev=state.head)
        day = row["time"][:DAY]
        if day > self._day or self._segment.size_bytes >= self._options.segment_bytes:
            self._roll()
            self._day = max(day, self._day)
        self._segment.append(line)
        self._state = State(state.rows + 1, digest)
        self._to_witness = None
        return state.rows

    def _roll(self) -> None:
        """Begin the next segment: a new day, so that days can be pruned, or this one is full."""
        if self._segment.size_bytes:
            path = self.folder / segment_name(self.chain, self._state.rows)
            following = SegmentWriter(path, write=self._options.write)
            self._full.append(self._segment)
            self._segment = following

    def _keep(self, row: Mapping[str, Any]) -> None:
        if len(self._kept) < KEPT_ROWS:
            self._kept.append({**row, "late": True})
        else:
            self._lost += 1

    def _flush(self) -> None:
        """Try to write what waits, once a second at most."""
        if self._options.now_s() < self._looked_s + LOOK_EVERY_S:
            return
        self._looked_s = self._options.now_s()
        try:
            while self._kept:
                self._write(self._kept[0])
                self._kept.popleft()
                if not self._kept and self._lost:
                    self._kept.append({"kind": "lost", "time": stamp(self._options.now()), "count": self._lost})
                    self._lost = 0
        except OSError as error:
            log.error("journal.still_failing", chain=self.chain, rows_waiting=len(self._kept), error=error.strerror)

    def ready(self) -> None:
        """Raise Unavailable while rows wait for the disk, or it has less room than the floor."""
        now_s = self._options.now_s()
        if now_s >= self._looked_s + LOOK_EVERY_S:
            with self._lock:
                self._flush()
                self._looked_s = now_s
            self._roomy = self._has_room()
        if self._kept or self._closed:
            raise Unavailable("the audit record cannot be written", retry_after_s=LOOK_EVERY_S)
        if not self._roomy:
            raise Unavailable("the disk of the audit record is full or gone", retry_after_s=LOOK_EVERY_S)

    def _has_room(self) -> bool:
        """Whether the disk takes more rows, and into a file that still has a name."""
        try:
            return self._segment.path.exists() and self._options.free(self.folder) >= self._options.floor_bytes
        except OSError:
            return False

    @property
    def sign_due(self) -> bool:
        """Whether there are new rows and it is time to sign them."""
        new = self._state.rows - self._signed_rows
        return new >= SIGN_EVERY_ROWS or (new > 0 and self._options.now_s() >= self._signed_s + SIGN_EVERY_S)

    def sign_head(self) -> None:
        """Sync the rows to the disk and sign the last. Blocks: not for the event loop. Raises OSError."""
        with heads.locked(self.folder, exclusive=True) as file:
            if not self._closed:
                self._sign(file, closed=False)

    def _sign(self, file: heads.Heads, *, closed: bool) -> None:
        with self._signing:
            with self._lock:
                state, segment, full = self._state, self._segment, len(self._full)
            for _ in range(full):
                self._full[0].sync()
                self._full.popleft().close()
            segment.sync()
            at = stamp(self._options.now())
            claim = heads.Claim(chain=self.chain, rows=state.rows, head=state.head, closed=closed, at=at)
            n, digest = file.sign(claim, self._key)
            with self._lock:
                self._signed_rows, self._signed_s = state.rows, self._options.now_s()
                self._to_witness = {"n": n, "hash": digest}

    def close(self) -> None:
        """Write the closing row and sign it: nothing can be cut off this chain unseen any more. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._looked_s = float("-inf")
            self._flush()
            self._closed = True
            whole = not self._kept
            try:
                if whole:
                    self._write({"kind": "closed", "time": stamp(self._options.now())})
            except OSError as error:
                whole = False
                log.error("journal.write_failed", chain=self.chain, error=error.strerror)
        try:
            with heads.locked(self.folder, exclusive=True) as file:
                self._sign(file, closed=whole)
        except OSError as error:
            log.error("journal.sign_failed", chain=self.chain, error=error.strerror)
        with self._lock:
            for segment in (*self._full, self._segment):
                segment.close()
        log.info("journal.closed", chain=self.chain, rows=self._state.rows, rows_lost=len(self._kept) + self._lost)
