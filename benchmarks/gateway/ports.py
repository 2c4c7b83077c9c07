"""Ports of 127.0.0.1: one that is free, and waiting until one is listened on."""

import socket
import time
from typing import Final

POLL_S: Final = 0.02


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, *, within_s: float = 30.0) -> None:
    """Return when something listens on the port. Raises TimeoutError."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(POLL_S)
    raise TimeoutError(f"nothing listens on port {port} after {within_s:.0f} s")
