"""The lines of a file that a command was given: plain or gzipped, or of stdin. Raises what click shows to a person."""

import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import click


@contextmanager
def lines_of(file: str) -> Iterator[IO[bytes]]:
    """The file that is named, or stdin for `-`."""
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with _open(file) as lines:
            yield lines
    except BrokenPipeError:
        raise  # the reader of our output left: click knows what to do
    except (OSError, EOFError) as error:
        raise click.ClickException(f"{file}: {error}") from error


def _open(file: str) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb")) if file.endswith(".gz") else Path(file).open("rb")
