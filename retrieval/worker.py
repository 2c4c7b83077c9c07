"""A bounded process for work on bytes that nobody trusts: parsing documents, decoding images.

The child may use so much memory and processor time, writes no file, starts no process, and has nothing of ours in its
environment. One that dies, hangs or answers nonsense is killed, and the next job gets a new one. It is a process with
limits and no sandbox: system calls are not filtered, and it may open connections.

    python -I -m conclave.retrieval.worker        what `Workers` starts; speaks on its stdin, which is a socket
"""

import contextlib
import importlib
import resource
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec

LENGTH_BYTES: Final = 8
MOST_REPLY_BYTES: Final = 512 * 2**20
MOST_JOBS: Final = 500  # of one process: what its libraries leak goes with it
IDLE_S: Final = 60.0  # after which a process is given up: about 40 MB
GOES_S: Final = 90.0  # after which it ends by itself
OPEN_FILES: Final = 32
BLOCK_BYTES: Final = 2**20
NO_ENV: Final[dict[str, str]] = {}  # ours holds keys
T = TypeVar("T")

Failure: TypeAlias = Literal["died", "late", "memory", "broke", "refused"]


class WorkerFailed(Exception):
    """A job without a result. `refused`: the job says so itself, with its own `kind` and message; the rest is failure:
    the process `died` (killed, out of processor time, crashed), was `late`, ran out of `memory`, or the job `broke`."""

    def __init__(self, failure: Failure, *, kind: str = "", message: str = "") -> None:
        super().__init__(message or failure)
        self.failure = failure
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one process may use: address space, and processor seconds for each job."""

    memory_bytes: int = 2**30
    cpu_s: int = 10


class Job(msgspec.Struct, array_like=True):
    """`call` is `module:function`, which gets `data` and the options by name."""

    call: str
    data: bytes
    options: dict[str, Any]


class Done(msgspec.Struct, array_like=True):
    """How a job went; `value` is what it returned, packed."""

    failure: Failure | None
    value: msgspec.Raw
    kind: str = ""
    message: str = ""


@dataclass(slots=True)
class Workers:
    """Processes that are started when a job needs one, and kept for the next. Any number of threads may `run` jobs.

    As many processes as threads run at once: who calls bounds that.
    """

    bounds: Bounds = field(default_factory=Bounds)
    _idle: "list[Child]" = field(default_factory=list)
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, call: str, data: bytes, options: dict[str, Any], *, returns: type[T], limit_s: float) -> T:
        """What `call` returns, as a `returns`. Blocks for `limit_s` at most. Raises WorkerFailed."""
        end_s = time.monotonic() + limit_s
        job = msgspec.msgpack.encode(Job(call, data, options))
        child = self._take()
        try:
            return self._asked(child, job, returns, end_s)
        except WorkerFailed as error:
            if error.failure != "died" or not child.jobs:
                raise
        return self._asked(Child.start(self.bounds), job, returns, end_s)  # it may have died before, of something else

    def _asked(self, child: "Child", job: bytes, returns: type[T], end_s: float) -> T:
        try:
            done = child.ask(job, end_s)
            value = msgspec.msgpack.decode(done.value, type=returns) if done.failure is None else None
        except TimeoutError:
            child.kill()
            raise WorkerFailed("late") from None
        except (OSError, EOFError, msgspec.DecodeError) as error:
            child.kill()
            raise WorkerFailed("died") from error
        except BaseException:
            child.kill()
            raise
        if done.failure in {"memory", "broke"}:
            child.kill()  # nobody knows what state it is in
        else:
            self._give_back(child)
        if done.failure is not None:
            raise WorkerFailed(done.failure, kind=done.kind, message=done.message)
        return value  # type: ignore[return-value]  # decoded as one, since nothing failed

    def close(self) -> None:
        """End all that are idle; the others end after their job."""
        with self._lock:
            self._closed, idle = True, self._idle
            self._idle = []
        for child in idle:
            child.kill()

    def _take(self) -> "Child":
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None:
                return Child.start(self.bounds)
            if child.is_fresh():
                return child
            child.kill()

    def _give_back(self, child: "Child") -> None:
        child.jobs += 1
        child.used_s = time.monotonic()
        with self._lock:
            if not self._closed and child.jobs < MOST_JOBS:
                self._idle.append(child)
                return
        child.kill()


@dataclass(slots=True)
class Child:
    """One process, and our end of its socket."""

    process: subprocess.Popen[bytes]
    line: socket.socket
    used_s: float
    jobs: int = 0

    @classmethod
    def start(cls, bounds: Bounds) -> "Child":
        """Start one; it is not waited for. Raises WorkerFailed."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-m", __spec__.name, str(bounds.memory_bytes), str(bounds.cpu_s)]
        try:
            process = subprocess.Popen(  # noqa: S603  this interpreter, and numbers
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=NO_ENV, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise WorkerFailed("died") from error
        finally:
            theirs.close()
        return cls(process, ours, time.monotonic())

    def is_fresh(self) -> bool:
        """Whether it can take another job."""
        return self.process.poll() is None and time.monotonic() - self.used_s < IDLE_S

    def ask(self, job: bytes, end_s: float) -> Done:
        """Send a job, and wait for what comes back. Raises TimeoutError, OSError, EOFError, DecodeError."""
        self.line.settimeout(max(0.001, end_s - time.monotonic()))
        self.line.sendall(len(job).to_bytes(LENGTH_BYTES) + job)
        size = int.from_bytes(self._read(LENGTH_BYTES, end_s))
        if size > MOST_REPLY_BYTES:
            raise EOFError
        return msgspec.msgpack.decode(self._read(size, end_s), type=Done)

    def _read(self, size: int, end_s: float) -> bytearray:
        found = bytearray()
        while len(found) < size:
            self.line.settimeout(max(0.001, end_s - time.monotonic()))
            block = self.line.recv(min(BLOCK_BYTES, size - len(found)))
            if not block:
                raise EOFError
            found += block
        return found

    def kill(self) -> None:
        """End it now. A second time it does nothing."""
        self.line.close()
        self.process.kill()
        self.process.wait()


def serve(memory_bytes: int, cpu_s: int) -> None:
    """The child: does the jobs that come, one after the other, until nobody is there who asks."""
    _bound(memory_bytes)
    with socket.socket(fileno=0) as line:
        line.settimeout(GOES_S)
        with contextlib.suppress(TimeoutError, ConnectionError, EOFError), line.makefile("rb") as jobs:
            while True:
                length = jobs.read(LENGTH_BYTES)
                if len(length) < LENGTH_BYTES:
                    return
                job = msgspec.msgpack.decode(jobs.read(int.from_bytes(length)), type=Job)
                done = msgspec.msgpack.encode(_done(job, cpu_s))
                line.sendall(len(done).to_bytes(LENGTH_BYTES) + done)


def _bound(memory_bytes: int) -> None:
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_NPROC: 0,  # not for root, whom Linux lets
    }
    for limit, most in limits.items():
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (_within(most, hard),) * 2)


def _within(most: int, hard: int) -> int:
    """The limit, or a stricter one that is in force already."""
    return most if hard == resource.RLIM_INFINITY else min(most, hard)


def _done(job: Job, cpu_s: int) -> Done:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (_within(int(used.ru_utime + used.ru_stime) + 1 + cpu_s, hard), hard))
    nothing = msgspec.Raw(msgspec.msgpack.encode(None))
    module, _, function = job.call.partition(":")
    try:
        value = getattr(importlib.import_module(module), function)(job.data, **job.options)
        return Done(None, msgspec.Raw(msgspec.msgpack.encode(value)))
    except (MemoryError, RecursionError):
        return Done("memory", nothing)
    except Exception as error:  # noqa: BLE001  the job's edge: what it is says nothing of what it read
        if isinstance(kind := getattr(error, "kind", None), str):
            return Done("refused", nothing, kind, str(error))
        return Done("broke", nothing, type(error).__name__)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
