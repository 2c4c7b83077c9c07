"""Rows of a JSON-lines file, for all commands of this room: how it is read, what a row must hold, and what becomes of a
bad one. What cannot be read at all is raised as click shows it to a person.
"""

import gzip
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, cast

import click


def judge_rows(file: str, judge: Callable[[object, Mapping[str, Any]], object]) -> int:
    """Write what `judge` says of each row (its id, the row) as a JSON line on stdout; how many rows were bad.

    A bad row (`judge` may raise ValueError, too) is named on stderr with its line, and the others are judged.
    """
    import msgspec  # noqa: PLC0415  the commands' imports are everyone's

    out = sys.stdout.buffer

    def take(number: int, row: Mapping[str, Any]) -> None:
        said = judge(id_of(row, number), row)
        out.write(msgspec.json.encode(said) + b"\n")

    bad = each_row(file, take)
    if bad:
        click.echo(f"{bad} bad row{'s' if bad > 1 else ''} skipped", err=True)
    return bad


def each_row(file: str, take: Callable[[int, Mapping[str, Any]], None]) -> int:
    """Hand each row to `take` with its line's number; how many were bad.

    A bad row (`take` may raise ValueError, too) is named on stderr with its line, and the others are handed on.
    """
    bad = 0
    for number, line in lines_of(file):
        try:
            take(number, read_row(line))
        except ValueError as error:
            bad += 1
            click.echo(f"{file}: line {number}: {error}", err=True)
    return bad


def lines_of(file: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, plain or gzipped, or of stdin for `-`, that are not empty, with their numbers from 1."""
    from tqdm import tqdm  # noqa: PLC0415  the commands' imports are everyone's

    try:
        with _open(file) as lines:
            for number, line in enumerate(tqdm(lines, unit=" rows", disable=None, file=sys.stderr), start=1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError) as error:
        raise click.ClickException(f"{file}: {getattr(error, 'strerror', None) or error}") from error


def _open(file: str) -> "IO[bytes] | nullcontext[IO[bytes]]":
    if file == "-":
        return nullcontext(sys.stdin.buffer)
    return cast(IO[bytes], gzip.open(file, "rb")) if file.endswith(".gz") else Path(file).open("rb")


def read_row(line: bytes) -> dict[str, Any]:
    """One line's object; raises ValueError."""
    import msgspec  # noqa: PLC0415  the command's imports are everyone's

    try:
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError:
            row = json.loads(line)  # unlike msgspec, it takes lone surrogates, which real logs hold
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not JSON: it is not written in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (column {error.colno})") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  a wrong row, not a wrong call
    return row


def text_of(row: Mapping[str, Any], field: str) -> str:
    """The row's text; raises ValueError."""
    if field not in row:
        raise ValueError(f"no {field!r}; --field names the key that holds the text")
    text = row[field]
    if not isinstance(text, str):
        raise ValueError(f"{field!r} is no string")  # noqa: TRY004  a wrong row, not a wrong call
    return text


def id_of(row: Mapping[str, Any], number: int) -> object:
    """The row's id, else its line's number; raises ValueError."""
    import msgspec  # noqa: PLC0415

    try:
        return msgspec.Raw(msgspec.json.encode(row.get("id", number)))
    except (UnicodeEncodeError, RecursionError):
        raise ValueError("'id' cannot be written as JSON in UTF-8") from None
