"""Rows of a JSON-lines file, for the commands that judge texts: what a row must hold, what becomes of a bad one."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from conclave.safety.lines import lines_of


def judge_rows(file: str, judge: Callable[[object, Mapping[str, Any]], object]) -> int:
    """Write what `judge` says of each row (its id, the row) as a JSON line on stdout; how many rows were bad.

    A bad row (`judge` may raise ValueError, too) is named on stderr with its line, and the others are judged.
    """
    import msgspec  # noqa: PLC0415  the commands' imports are everyone's
    from tqdm import tqdm  # noqa: PLC0415

    out, bad = sys.stdout.buffer, 0
    with lines_of(file) as lines:
        for number, line in enumerate(tqdm(lines, unit=" rows", disable=None, file=sys.stderr), start=1):
            if not line.strip():
                continue
            try:
                row = read_row(line)
                said = judge(id_of(row, number), row)
            except ValueError as error:
                bad += 1
                click.echo(f"{file}: line {number}: {error}", err=True)
                continue
            out.write(msgspec.json.encode(said) + b"\n")
    if bad:
        click.echo(f"{bad} bad row{'s' if bad > 1 else ''} skipped", err=True)
    return bad


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
