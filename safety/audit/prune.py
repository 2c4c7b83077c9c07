"""Retention: drops segments whose rows are all older than a moment, and leaves a signed tombstone of what they were.

It drops whole files from the start of a chain, never one that a living process writes to, and nothing that does not
verify: a changed record is evidence, and stays.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

from conclave.safety.audit import heads
from conclave.safety.audit.chain import segments, stamp
from conclave.safety.audit.findings import Part, Report
from conclave.safety.audit.heads import Cut, Dropped, Head, Heads, Signature, Tombstone, read_line, signed_line
from conclave.safety.audit.keys import SigningKey
from conclave.safety.audit.segment import is_held
from conclave.safety.audit.verify import verify


@dataclass(frozen=True, slots=True)
class Pruned:
    """What came of it: the verification before, and the rows dropped (none if it found faults)."""

    before: Report
    dropped: tuple[Dropped, ...]

    @property
    def rows(self) -> int:
        return sum(item.last - item.first + 1 for item in self.dropped)


def prune(folder: Path, key: SigningKey, trusted: frozenset[str], *, before: datetime, now: datetime) -> Pruned:
    """Drop what is older than `before`. The tombstone is on the disk before the first file goes. Raises OSError."""
    report = verify(folder, trusted | {key.public})
    if not report.intact:
        return Pruned(report, ())
    doomed = _doomed(report, stamp(before))
    with heads.locked(folder, exclusive=True) as file:
        dropped = _spans(
            [part for part in doomed if part.path.exists()], stamp(now)
        )  # another run may have been quicker
        if dropped:
            _bury(folder, file, key, dropped=dropped, before=stamp(before), at=stamp(now))
        _remove(folder, report, dropped)
    return Pruned(report, dropped)


def _doomed(report: Report, before: str) -> list[Part]:
    """From the start of each chain, the segments whose newest row is older, and that nobody writes to."""
    doomed: list[Part] = []
    for _, parts in groupby(report.parts, key=lambda part: part.chain):
        for part in parts:
            if part.newest >= before or is_held(part.path):
                break
            doomed.append(part)
    return doomed


def _spans(doomed: list[Part], at: str) -> tuple[Dropped, ...]:
    spans = []
    for chain, parts in groupby(doomed, key=lambda part: part.chain):
        ours = list(parts)
        spans.append(Dropped(chain=chain, first=ours[0].first, last=ours[-1].last, hash=ours[-1].hash, at=at))
    return tuple(spans)


def _bury(  # noqa: PLR0913  what goes, and both moments
    folder: Path, file: Heads, key: SigningKey, *, dropped: tuple[Dropped, ...], before: str, at: str
) -> None:
    """Replace heads.jsonl: without the entries that are old and superseded, with a tombstone at its end."""
    lines = file.read().splitlines()
    read = [signature for signature in map(read_line, lines) if signature]
    earlier, cut = _earlier(read)
    everything = earlier + dropped
    gone = _superseded(read, everything, before)
    if gone:
        cut = Cut(read[gone - 1].entry.n, read[gone - 1].hash)
    last = read[-1]
    tombstone = Tombstone(dropped=everything, cut=cut, at=at, key=key.public, n=last.entry.n + 1, prev=last.hash)
    draft = folder / f".{heads.HEADS_FILE}.{os.getpid()}"
    with draft.open("wb") as new:
        new.write(b"".join(line + b"\n" for line in (*lines[gone : len(read)], signed_line(tombstone, key))))
        new.flush()
        os.fsync(new.fileno())
    draft.rename(file.path)
    _sync_folder(folder)


def _earlier(read: list[Signature]) -> tuple[tuple[Dropped, ...], Cut | None]:
    """What the newest tombstone says was dropped before."""
    for signature in reversed(read):
        if isinstance(signature.entry, Tombstone):
            return signature.entry.dropped, signature.entry.cut
    return (), None


def _superseded(read: list[Signature], dropped: tuple[Dropped, ...], before: str) -> int:
    """How many entries at the start are old and say nothing that a later one, or the tombstone, does not say too."""
    last = {signature.entry.chain: signature.entry.n for signature in read if isinstance(signature.entry, Head)}
    pruned_to = {item.chain: item.last for item in dropped}
    for at, signature in enumerate(read):
        entry = signature.entry
        if entry.at >= before:
            return at
        if isinstance(entry, Head) and entry.n == last[entry.chain] and pruned_to.get(entry.chain, -1) < entry.rows - 1:
            return at
    return len(read)


def _remove(folder: Path, report: Report, dropped: tuple[Dropped, ...]) -> None:
    """Unlink what a tombstone covers: this one, or an earlier one whose run was interrupted."""
    pruned_to = {item.chain: item.last for item in report.dropped + dropped}
    for parts in segments(folder).values():
        for part in parts:
            if part.first <= pruned_to.get(part.chain, -1):
                part.path.unlink(missing_ok=True)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
