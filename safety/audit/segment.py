"""One file of a chain, open for appending by the process that owns the chain. It writes lines whole or not at all."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

Write = Callable[[int, bytes], int]


class SegmentWriter:
    """A new segment file, held by flock as long as its process lives (pruning keeps off what is held)."""

    def __init__(self, path: Path, *, write: Write = os.write) -> None:
        self.path = path
        self.size_bytes = 0
        self._write = write
        self._torn = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o640)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def append(self, line: bytes) -> None:
        """One plain write. Raises OSError, and then no part of the line stays in the file."""
        if self._torn:
            self._mend()
        try:
            written = self._write(self._descriptor, line)
        except OSError:
            self._torn = True
            self._mend()
            raise
        if written != len(line):
            self._torn = True
            self._mend()
            raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes were written", str(self.path))
        self.size_bytes += written

    def _mend(self) -> None:
        os.ftruncate(self._descriptor, self.size_bytes)
        self._torn = False

    def sync(self) -> None:
        """Until the rows are on the disk itself. Blocks: never call it on the event loop."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def is_held(path: Path) -> bool:
    """Whether a living process still writes to the segment."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
