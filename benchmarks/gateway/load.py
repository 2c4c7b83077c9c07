"""Closed-loop load by wrk: so many connections, each sending its next request when an answer is read to its end."""

import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.gateway.targets import Target

SCRIPT: Final = Path(__file__).with_name("load.lua")
PROMPT: Final = (
    "Ticket %09d. Our team is planning a walk in the Alps next month and we want to cook pasta at a hut that stands at "
    "3,000 metres. Last year the pasta took far longer than the packet said and it was still hard in the middle when "
    "we ate it. Please explain in simple terms why water boils at a lower temperature at high altitude, how many extra "
    "minutes we should plan for, and whether a pressure cooker is worth the weight to carry. Thanks!"
)
TIMEOUT_S: Final = 15  # over the load's own length


class LoadError(RuntimeError):
    """wrk is absent, or it brought no answer home."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: `kind` is plain or stream."""

    kind: str
    connections: int

    @property
    def name(self) -> str:
        return f"{self.kind}.c{self.connections}"


class Measured(msgspec.Struct, frozen=True):
    """What wrk saw. Latency is from the first byte written to the last byte read."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int


def require_wrk() -> str:
    """The path of wrk. Raises LoadError with what to install."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadError("wrk is not installed: it makes the load. On Debian and Ubuntu: apt-get install wrk")
    return found


def drive(target: Target, load: Load, *, seconds: int) -> Measured:
    """Load the target for so many seconds. Raises LoadError if not one request came back."""
    flags = ["-t1", f"-c{load.connections}", f"-d{seconds}s", f"--timeout={TIMEOUT_S}s", "-s", str(SCRIPT)]
    headers = [word for name, value in target.headers.items() for word in ("-H", f"{name}: {value}")]
    arguments = [load.kind, target.model, str(secrets.randbelow(10**8)), PROMPT]
    finished = subprocess.run(
        [require_wrk(), *flags, *headers, target.url, "--", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds + TIMEOUT_S,
        check=False,
    )
    _, marker, result = finished.stdout.partition("RESULT ")
    if not marker:
        raise LoadError(f"wrk failed against {target.name}: {finished.stdout}{finished.stderr}")
    measured = msgspec.json.decode(result, type=Measured)
    if measured.requests == 0:
        raise LoadError(f"{target.name} answered no request of {load.name} in {seconds} s")
    return measured
