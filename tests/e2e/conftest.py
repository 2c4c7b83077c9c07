"""The processes that the tests of one file share."""

import signal
import sys
from collections.abc import Iterator

import pytest
from processes import UPSTREAM, Gateway, Process, config, free_port, launch


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    port = free_port()
    process = Process([sys.executable, str(UPSTREAM), str(port)], port, tmp_path_factory.mktemp("upstream")).start()
    yield process
    process.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def gateway(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway before the upstream, shared by the tests of one file."""
    process = launch(tmp_path_factory.mktemp("gateway"), config(upstream.port))
    yield process
    process.stop()
