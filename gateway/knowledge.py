"""The library of documents that calls are looked up in: opened when there is one, searched on threads of its own.

A folder that `conclave knowledge add` makes while the gateway serves is found within seconds. A search that fails is
said in the log and in the record, and the call goes on without it. It decides nothing: what is searched, and for whom,
is handed in.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from conclave.gateway.evidence import NOT_SEARCHED, Searched
from conclave.retrieval.api import Encode, Query, Rights, Search

if TYPE_CHECKING:
    from conclave.retrieval.library import Library as Opened

FILE: Final = "knowledge.db"
LOOK_S: Final = 2.0  # how often is looked whether there is a library
AGAIN_S: Final = 30.0  # after a search that the library's own state made fail; another file is tried at once
THREADS: Final = 2
MOST_WAITING: Final = 64  # searches; more go without

log = structlog.get_logger()


class Library(Protocol):
    """What calls are looked up in."""

    async def search(self, query: Query | None, *, timeout_s: float) -> Searched: ...


class NoKnowledge:
    """No library: nothing is found."""

    async def search(self, query: Query | None, *, timeout_s: float) -> Searched:  # noqa: ARG002  a Library
        return Searched(query) if query is not None else NOT_SEARCHED


NO_KNOWLEDGE: Final = NoKnowledge()


class Knowledge:
    """The library in a folder, if there is one. A `Library`."""

    def __init__(self, folder: Path, encode: Encode, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._encode = encode
        self._now_s = now_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="knowledge")
        self._lock = threading.Lock()
        self._library: Opened | None = None
        self._search: Search | None = None
        self._due_s = 0.0
        self._file: int | None = None  # the inode of the one that is there
        self._opened_file: int | None = None
        self._unusable: tuple[int | None, float] = None, 0.0  # which one failed, and until when it is left alone
        self._waiting = 0

    @property
    def there(self) -> bool:
        """Whether there is something to search; looks at the disk every few seconds."""
        if self._now_s() >= self._due_s:
            self._due_s = self._now_s() + LOOK_S
            try:
                self._file = (self._folder / FILE).stat().st_ino
            except OSError:
                self._file = None
        return self._file is not None

    def begin(self) -> None:
        """Open the library, if there is one, before the first call needs it: to load what searches takes a second."""
        if self.there:
            self._threads.submit(self._warm)

    async def search(self, query: Query | None, *, timeout_s: float) -> Searched:
        """What is found for a query in that time; nothing for None."""
        if query is None or not self.there:
            return Searched(query) if query is not None else NOT_SEARCHED
        if self._file == self._unusable[0] and self._now_s() < self._unusable[1]:
            return Searched(query, failure="unusable")
        if self._waiting >= MOST_WAITING:
            return Searched(query, failure="busy")
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._searched, query)
        except TimeoutError:
            log.warning("knowledge.late", limit_s=timeout_s)
            return Searched(query, failure="late")
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            if self._library is not None:
                self._library.close()
            self._library = self._search = None

    def _searched(self, query: Query) -> Searched:
        from conclave.retrieval.index import SnapshotError  # noqa: PLC0415  loaded where there is a library
        from conclave.retrieval.library import LibraryError  # noqa: PLC0415  as this

        try:
            search, began_s = self._opened(), time.perf_counter()
            results = search.search(query)
            return Searched(query, results, took_ms=round(1e3 * (time.perf_counter() - began_s), 3))
        except Exception as error:  # noqa: BLE001  the thread's edge: bytes that changed on disk fail in any way
            known = isinstance(error, LibraryError | SnapshotError | sqlite3.Error | OSError)  # no document's words
            log.warning("knowledge.unusable", error=type(error).__name__, reason=str(error)[:200] if known else None)
            self._unusable = self._file, self._now_s() + AGAIN_S
            self._opened_file = None  # it is opened anew, whatever is there then
            return Searched(query, failure="unusable")

    def _warm(self) -> None:
        self._searched(Query("warm", Rights(frozenset(), frozenset()), 1))

    def _opened(self) -> Search:
        from conclave.retrieval.index import Snapshots  # noqa: PLC0415  loaded where there is a library
        from conclave.retrieval.library import Library  # noqa: PLC0415  as this
        from conclave.retrieval.search import Hybrid, check_encoder  # noqa: PLC0415  as this

        with self._lock:
            if self._search is None or self._opened_file != self._file:  # it may have been made anew
                library = Library.open(self._folder)
                check_encoder(library, self._encode)
                self._opened_file = self._file
                self._library, self._search = library, Hybrid(library, self._encode, Snapshots(self._folder))
            return self._search
