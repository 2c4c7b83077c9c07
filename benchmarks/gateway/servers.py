"""Starting a target, and what the kernel says of it: CPU time and memory of its whole process tree.

Ends only what it started.
"""

import http.client
import os
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

import psutil

from benchmarks.gateway.targets import ROOT, Target

READY_WITHIN_S: Final = 120.0  # LiteLLM takes 10 s of CPU on an idle core
READY_POLL_S: Final = 0.01
END_WITHIN_S: Final = 10.0
MB: Final = 1e6


class TargetError(RuntimeError):
    """A target did not start, answer or end as it should. The text ends with the last lines of its log."""


@dataclass(slots=True)
class Server:
    """A target that runs. `ready_s` is the time from its start to its first 200 on the readiness URL."""

    target: Target
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    ready_s: float = 0.0

    def cpu_s(self) -> float:
        """User and system time of the tree so far, in ticks of 10 ms; children that ended count with their parent."""
        return sum(sum(process.cpu_times()[:4]) for process in self._tree())

    def rss_mb(self) -> float:
        """Resident memory of the tree now."""
        return sum(process.memory_info().rss for process in self._tree()) / MB

    def peak_rss_mb(self) -> float:
        """The sum of each process's own high-water mark."""
        return sum(_high_water_bytes(process.pid) for process in self._tree()) / MB

    def _tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def last_words(self) -> str:
        """The end of what the server wrote to its standard output and error."""
        self.log.seek(0)
        return self.log.read()[-2000:].decode(errors="replace")


def _high_water_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def running(target: Target) -> Generator[Server, None, None]:
    """Start the target, wait until it is ready, end it on the way out."""
    with tempfile.TemporaryFile() as log:
        begun_s = time.perf_counter()
        process = subprocess.Popen(
            target.command, cwd=ROOT, env={**os.environ, **target.env}, stdout=log, stderr=subprocess.STDOUT
        )
        server = Server(target, process, log)
        try:
            _wait_until_ready(server, begun_s)
            yield server
        finally:
            _end(process)


def _wait_until_ready(server: Server, begun_s: float) -> None:
    while time.perf_counter() - begun_s < READY_WITHIN_S:
        if server.process.poll() is not None:
            raise TargetError(f"{server.target.name} ended before it was ready:\n{server.last_words()}")
        if _status(server.target.ready_url) == http.HTTPStatus.OK:
            server.ready_s = time.perf_counter() - begun_s
            return
        time.sleep(READY_POLL_S)
    raise TargetError(f"{server.target.name} was not ready after {READY_WITHIN_S:.0f} s:\n{server.last_words()}")


def _status(url: str) -> int | None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=1)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL for what is left of the tree after the grace time."""
    if process.poll() is not None:
        return
    tree = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    process.terminate()
    try:
        process.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in tree[1:]:
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            continue
