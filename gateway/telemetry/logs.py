"""Structured logs on stdout: one JSON object a line, or coloured text for a person. Never what a user wrote.

An event has a name and fields. Of an exception only its type and where it was raised are written: messages may quote
what was being worked on. uvicorn, alembic and whatever else uses `logging` comes out in the same form.
"""

import logging
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

NOISY: Final = ("faiss", "uvicorn.error", "alembic", "asyncio")  # below a warning: of no use to an operator
MAX_FRAMES: Final = 20
STDOUT: Final = 1  # the process's own, whatever `sys.stdout` is
STDERR: Final = 2


def configure(*, level: str = "info", format: str = "json", stream: TextIO | None = None) -> None:
    """Set up logging for this process. `level`: debug, info, warning, error; `format`: json or console."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        trace_only,
    ]
    render: Processor = structlog.dev.ConsoleRenderer() if format == "console" else render_json
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stdout),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


@contextmanager
def own_stdout() -> Iterator[TextIO]:
    """Standard output for the log alone, while the block runs: what else is written to it goes to stderr.

    A library may print past all its options (HiGHS's C code does, now and then), and the log is one JSON object a line.
    """
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    stream = os.fdopen(kept, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    try:
        yield stream
    finally:
        stream.flush()
        os.dup2(kept, STDOUT)  # `kept` stays open: a thread that ends late may have something to say


def bind_request(request_id: str) -> None:
    """Put the request id on every event of the task that this is called in."""
    structlog.contextvars.bind_contextvars(request_id=request_id)


def trace_only(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace an exception by its type and its frames, innermost last."""
    found = event.pop("exc_info", None)
    error = sys.exc_info()[1] if found is True else found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["trace"] = _frames(error.__traceback__)
    return event


def render_json(_logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


def _frames(trace: TracebackType | None) -> list[str]:
    frames: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(
            f"{Path(code.co_filename).parent.name}/{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}"
        )
        trace = trace.tb_next
    return frames[-MAX_FRAMES:]
