import io
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import structlog

from conclave.gateway.telemetry.logs import bind_request, configure


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging belongs to the process: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    stream = io.StringIO()
    configure(level="info", format="json", stream=stream)
    return lambda: [msgspec.json.decode(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_fields(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger().info("route.chosen", expert="code", confidence=0.83)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "route.chosen", "level": "info", "expert": "code", "confidence": 0.83}


def test_the_request_id_is_on_every_event_once_bound(lines: Callable[[], list[dict[str, Any]]]) -> None:
    bind_request("req_1")
    structlog.get_logger().info("a")
    logging.getLogger("somebody.else").warning("b")
    assert [line["request_id"] for line in lines()] == ["req_1", "req_1"]


def test_an_exceptions_message_is_not_logged_but_its_type_and_place_are(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    """`ValueError: cannot parse 'my secret question'` would be a user's text in the log."""
    try:
        raise ValueError("my secret question")
    except ValueError:
        structlog.get_logger().exception("call.broke")
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    ours, theirs = lines()
    assert "secret question" not in str([ours, theirs])
    for line in (ours, theirs):
        assert line["error"] == "ValueError"
        assert "test_logs.py:" in line["trace"][-1]


def test_other_libraries_come_out_in_the_same_form(lines: Callable[[], list[dict[str, Any]]]) -> None:
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == (
        "Invalid HTTP request received.",
        "warning",
        "uvicorn.error",
    )


def test_what_is_below_the_level_is_not_written(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger().debug("a")
    logging.getLogger("x").debug("b")
    logging.getLogger("uvicorn.error").info("Started server process")
    assert lines() == []


def test_a_value_that_is_no_json_is_written_as_text(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger().info("a", odd=object)
    assert lines()[0]["odd"] == "<class 'object'>"


def test_for_a_person_there_is_text() -> None:
    stream = io.StringIO()
    configure(format="console", stream=stream)
    structlog.get_logger().info("route.chosen", expert="code")
    assert "route.chosen" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_standard_output_is_the_logs_alone() -> None:
    """What C code and `print` write there goes to stderr while the gateway runs, and is where it was afterwards."""
    program = """
import os
from conclave.gateway.telemetry.logs import configure, own_stdout
import structlog
with own_stdout() as stream:
    configure(stream=stream)
    structlog.get_logger().info("begun", name="\u00e9")
    os.write(1, b"HighsMipSolverData::stray\\n")
    print("printed", flush=True)
print("after", flush=True)
structlog.get_logger().info("late")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    logged, after, late = done.stdout.splitlines()
    assert msgspec.json.decode(logged)["event"] == "begun"
    assert (after, msgspec.json.decode(late)["event"]) == ("after", "late")
    assert done.stderr.splitlines() == ["HighsMipSolverData::stray", "printed"]
