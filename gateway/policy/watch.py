"""Whether a file changed, however it was changed: written in place, replaced by another, or reached by other links.

It looks at what the path leads to, a few times a second, instead of asking the system to be told: that also sees what a
network file system, a bind mount or a ConfigMap's swapped links do, and costs one `stat`. A change counts once
two looks in a row see the same, so that a file that is being written is not read.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final, TypeAlias

LOOK_S: Final = 0.25  # between two looks

Seen: TypeAlias = tuple[int, ...] | str


class WatchedFile:
    """One file; `taken` is what it was when it was read. It blocks, as briefly as `stat` does."""

    def __init__(self, path: Path, taken: Seen) -> None:
        self.path = path
        self._taken = taken
        self._last = look_at(path)

    def changed(self) -> bool:
        """Whether it is another than was taken last, and has been so since the look before this one."""
        before, self._last = self._last, look_at(self.path)
        return self._last != self._taken and self._last == before

    def take(self) -> Seen:
        """What the last look saw, which is known from now on: read it after this, so that a later change is seen."""
        self._taken = self._last
        return self._taken


def look_at(path: Path) -> Seen:
    """What tells one state of a file from another; a word where there is no file that could be read."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.strerror or type(error).__name__
    if stat.S_ISDIR(found.st_mode):
        return os.strerror(errno.EISDIR)
    if not stat.S_ISREG(found.st_mode):
        return "Not a file"  # opening a pipe would wait for its writer
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
