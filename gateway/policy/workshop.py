"""Where the parts of requests are worked on: a few threads, each with a bounded process, and what they made lately.

Images and documents are foreign bytes in large libraries, so no byte of them is decoded or parsed in the gateway's own
process. Results are remembered, so that a conversation that is sent again with its images costs only the last one.
"""

import asyncio
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from conclave.gateway.errors import Overloaded
from conclave.retrieval.blocks import Parsed
from conclave.retrieval.parse import readable
from conclave.retrieval.worker import WorkerFailed, Workers
from conclave.safety.api import Document
from conclave.safety.boundary.files import PartError
from conclave.safety.boundary.images import Reencoded
from conclave.safety.boundary.sniff import Kind

THREADS: Final = 2  # processes at most, of up to 1 GiB each
MOST_WAITING: Final = 64  # requests; with more, the last of them would wait for longer than anybody does
REMEMBERED_BYTES: Final = 64 * 2**20
RETRY_AFTER_S: Final = 1.0
REENCODE: Final = "conclave.safety.boundary.images:reencoded"
UNPACK: Final = "conclave.safety.boundary.files:check_archive"
PARSE: Final = "conclave.retrieval.parse:parse"
T = TypeVar("T")
R = TypeVar("R", Reencoded, str)


class Results:
    """What was made of which bytes, the most recent ones, within `most_bytes`. Any thread may ask."""

    def __init__(self, most_bytes: int = REMEMBERED_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._made: OrderedDict[bytes, tuple[object, int]] = OrderedDict()
        self._key = os.urandom(32)
        self._lock = threading.Lock()

    def remembered(self, about: str, data: bytes, make: Callable[[], R]) -> R:
        """What was made of this before, else what `make` makes of it now. `about` says by whom, and how."""
        name = hashlib.blake2b(about.encode("utf-8", "surrogatepass") + b"\0" + data, key=self._key, digest_size=16)
        with self._lock:
            found = self._made.get(name.digest())
            if found is not None:
                self._made.move_to_end(name.digest())
                return cast(R, found[0])
        made = make()
        self._put(name.digest(), made, _size(made))
        return made

    def _put(self, name: bytes, made: object, size: int) -> None:
        with self._lock:
            if name in self._made or size > self._most_bytes:
                return
            self._made[name] = made, size
            self._bytes += size
            while self._bytes > self._most_bytes:
                _, (_, gone) = self._made.popitem(last=False)
                self._bytes -= gone


def _size(made: Reencoded | str) -> int:
    return len(made) if isinstance(made, str) else len(made.data) + len(made.words)


@dataclass(slots=True)
class Workshop:
    """Open for as long as the gateway runs; nothing is started before the first part comes."""

    workers: Workers = field(default_factory=Workers)
    results: Results = field(default_factory=Results)
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="parts")
    )
    _waiting: int = 0

    async def run(self, work: Callable[[], T]) -> T:
        """`work()` in one of the threads. Raises Overloaded if too many wait for one."""
        if self._waiting >= MOST_WAITING:
            raise Overloaded("too many images and files are waiting to be read", retry_after_s=RETRY_AFTER_S)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the processes; what is being read is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.workers.close()


@dataclass(frozen=True, slots=True)
class Bench:
    """The workshop as one request uses it: for a `tenant`, until `end_s` on the monotonic clock."""

    shop: Workshop
    tenant: str
    end_s: float

    def reencoded(self, data: bytes, kind: Kind, *, most_pixels: int) -> Reencoded:
        """The picture made anew. Raises PartError, WorkerFailed."""

        def make() -> Reencoded:
            return self.job(REENCODE, data, returns=Reencoded, kind=kind.value, most_pixels=most_pixels)

        return self.shop.results.remembered(f"{self.tenant}\0image\0{kind}\0{most_pixels}", data, make)

    def job(self, call: str, data: bytes, *, returns: type[T], **options: object) -> T:
        left_s = self.end_s - time.monotonic()
        if left_s <= 0:
            raise WorkerFailed("late")
        try:
            return self.shop.workers.run(call, data, options, returns=returns, limit_s=left_s)
        except WorkerFailed as error:
            if error.failure == "refused":
                raise PartError(error.message, kind=error.kind) from error
            raise


@dataclass(frozen=True, slots=True)
class BoundedReader:
    """A Reader (safety/api.py) over retrieval's parsers, within caps."""

    bench: Bench
    most_chars: int
    most_pages: int
    most_unpacked_bytes: int

    def read(self, document: Document) -> str | None:
        """All text of a document; None without a reader for it. Raises PartError, WorkerFailed."""
        if not readable(document.media_type):
            return None
        caps = f"{self.most_chars}/{self.most_pages}/{self.most_unpacked_bytes}"
        about = f"{self.bench.tenant}\0file\0{document.media_type}\0{caps}"
        return self.bench.shop.results.remembered(about, document.data, lambda: self._read(document))

    def _read(self, document: Document) -> str:
        job = self.bench.job
        if document.media_type == Kind.DOCX:
            job(UNPACK, document.data, returns=int, most_bytes=self.most_unpacked_bytes)
        parsed = job(
            PARSE,
            document.data,
            returns=Parsed,
            media_type=document.media_type,
            most_chars=self.most_chars,
            most_pages=self.most_pages,
            most_bytes=self.most_unpacked_bytes,
        )
        return "\n\n".join(block.text for block in parsed.blocks)
