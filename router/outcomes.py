"""Outcome data: how well each expert did on each prompt, read from JSON Lines, plain or gzipped.

A row is `{"prompt", "scores": {expert: 0..1}}`, with `id`, `category`, `dataset`, `subset` and `cost` (USD: a number,
or one an expert) if they are known. An expert that a row does not name, or names with `null`, was not asked there:
nothing is assumed of it. Other keys are ignored. A file with a bad row is refused as a whole, and every bad row is
named: a table made of the others would be right only if what is missing is missing by chance.
"""

import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, cast

import msgspec

NAMED_ROWS: Final = 50  # of the bad ones; a file of another shape has a million
ROW_BYTES: Final = 8 << 20  # a prompt of 1 MB, escaped character by character, and its answers


@dataclass(frozen=True, slots=True)
class Graded:
    """One prompt and what each expert that was asked scored on it; `cost` is in USD a call."""

    prompt: str
    scores: Mapping[str, float]
    name: str = ""
    category: str | None = None
    dataset: str | None = None
    subset: str | None = None
    cost: Mapping[str, float] = field(default_factory=dict)


class BadRows(ValueError):
    """Rows that cannot be used: the first `NAMED_ROWS` of them, a line each, and how many there are."""

    def __init__(self, named: Sequence[str], total: int) -> None:
        self.named = tuple(named)
        self.total = total
        more = f"\n... and {total - len(named)} more" if total > len(named) else ""
        super().__init__("\n".join(named) + more)


def read_outcomes(files: Iterable[Path], *, bare: bool = False) -> list[Graded]:
    """The rows of all files, in order; raises BadRows, and OSError for a file that cannot be opened.

    `bare`: a row that names its category needs no prompt, as live calls whose text was not kept; it is empty then.
    """
    rows: list[Graded] = []
    wrong: list[str] = []
    total = 0
    first: dict[str, str] = {}
    for file in files:
        for number, line in _lines(file):
            here = f"{file}: row {number}"
            try:
                if isinstance(line, Exception):
                    raise line
                row = _graded(line, bare=bare)
                if row.name and row.name in first:
                    raise ValueError(f"the id {shown(row.name)} is taken by {first[row.name]}")
            except ValueError as error:
                total += 1
                if len(wrong) < NAMED_ROWS:
                    wrong.append(f"{here}: {error}")
                continue
            first[row.name] = here
            rows.append(row)
    if wrong:
        raise BadRows(wrong, total)
    if not rows:
        raise BadRows(["the files hold no row"], 1)
    return rows


def experts_of(rows: Iterable[Graded]) -> tuple[str, ...]:
    """The experts that any row names, by name."""
    return tuple(sorted({name for row in rows for name in row.scores}))


def shown(value: object) -> str:
    """A value for a person: short, and without what a terminal would obey."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004


def _lines(file: Path) -> Iterator[tuple[int, bytes | ValueError]]:
    """Each line that is not blank, with its number from 1; a line too long, or a file cut short, is a ValueError."""
    # closed by the `with` below, on either branch
    opened = cast(IO[bytes], gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")  # noqa: SIM115
    number = 0
    with closing(opened) as lines:
        try:
            while line := lines.readline(ROW_BYTES + 1):
                number += 1
                if len(line) > ROW_BYTES:
                    yield number, ValueError(f"longer than {ROW_BYTES >> 20} MiB: is this a JSON Lines file?")
                    return
                if line.strip():
                    yield number, line
        except (EOFError, gzip.BadGzipFile, OSError) as error:
            yield number + 1, ValueError(f"cannot be read on from here: {error}")


def _graded(line: bytes, *, bare: bool) -> Graded:
    """One line's row; raises ValueError that says what is wrong with it."""
    row = _object(line)
    prompt = row.get("prompt")
    if prompt is None and bare and row.get("category") is not None:
        prompt = ""
    elif not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("'prompt' must be a text that is not empty" + ("" if "prompt" in row else "; there is none"))
    return Graded(
        prompt=prompt,
        scores=_scores(row),
        name=_name(row.get("id")),
        category=_word(row, "category"),
        dataset=_word(row, "dataset"),
        subset=_word(row, "subset"),
        cost=_cost(row),
    )


def _object(line: bytes) -> dict[str, object]:
    try:
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError:
            row = json.loads(line)  # it alone reads NaN, which is then told by its expert's name, and lone surrogates
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (column {error.colno})") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  a wrong row, not a wrong call
    return row


def _scores(row: Mapping[str, object]) -> dict[str, float]:
    found = row.get("scores")
    if not isinstance(found, dict):
        raise ValueError("'scores' must be an object, an expert's name to a number from 0 to 1")  # noqa: TRY004
    scores = {}
    for name, score in cast(dict[str, object], found).items():
        if score is None:
            continue
        number = _number(score)
        if not 0 <= number <= 1:
            raise ValueError(f"the score of {shown(name)} is {shown(score)}: it must be from 0 to 1")
        scores[str(name)] = number
    if not scores:
        raise ValueError("'scores' names no expert that was asked")
    return scores


def _cost(row: Mapping[str, object]) -> dict[str, float]:
    found = row.get("cost")
    if found is None:
        return {}
    scores = row["scores"]
    each: dict[str, object] = (
        found if isinstance(found, dict) else dict.fromkeys(cast(dict[str, object], scores), found)
    )
    costs = {str(name): _number(cost) for name, cost in each.items()}
    for name, cost in costs.items():
        if not 0 <= cost < math.inf:
            raise ValueError(f"the cost of {shown(name)} is {shown(each[name])}: it must be USD, 0 or more")
    return costs


def _name(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"'id' is {shown(value)}: it must be a text or a whole number")  # noqa: TRY004  a wrong row
    return str(value)


def _word(row: Mapping[str, object], key: str) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} is {shown(value)}: it must be a name, or absent")
    return value


def _number(value: object) -> float:
    """NaN, which is within no bounds, for what is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
