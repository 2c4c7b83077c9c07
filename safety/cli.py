"""`conclave safety scan|report`: what the detectors say of a file's texts, and whether they are as good as promised.

The command line that mounts this group puts a loader of the tokenizer into the context (`ctx.meta[IDS]`): the
detectors read tokens, and whose they are is not for this room to know. Human words go to stderr.
"""

import gzip
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

import click

if TYPE_CHECKING:
    from conclave.safety.detect.learned import Heads

IDS: Final = "safety: load the tokenizer"
DATA: Final = "CONCLAVE_DATA"
ORIGINS: Final = ("user", "tool", "retrieved", "file")
LoadIds = Callable[[], Callable[[str], Sequence[int]]]


@click.group()
def safety() -> None:
    """The learned detectors: scan a file with them, and hold them to their metrics."""


@safety.command()
@click.option("--origin", required=True, type=click.Choice(ORIGINS), help="Where the texts came from.")
@click.option("--jsonl", "file", required=True, metavar="FILE", help="A .jsonl or .jsonl.gz file, or - for stdin.")
@click.option("--field", default="text", show_default=True, help="The key that holds the text.")
@click.pass_context
def scan(context: click.Context, origin: str, file: str, field: str) -> None:
    """Score each row of FILE with the learned detectors: one JSON line a row, on stdout.

    `action` is `block` where a detector that reads this origin reaches its threshold. A row that is no JSON object, has
    no text, or has an id that cannot be written again, is reported on stderr with its line number; the others are
    scanned, and the exit status is 1 at the end.
    """
    import msgspec  # noqa: PLC0415  the group is mounted by the main command: its imports are everyone's
    from tqdm import tqdm  # noqa: PLC0415

    from conclave.safety.scan import ORIGINS as KINDS  # noqa: PLC0415
    from conclave.safety.scan import as_row, id_of, read_row, text_of  # noqa: PLC0415
    from conclave.safety.scan import scan as scanned  # noqa: PLC0415

    heads = _heads(context)
    out = sys.stdout.buffer
    bad = 0
    with _lines_of(file) as lines:
        for number, line in enumerate(tqdm(lines, unit=" rows", disable=None, file=sys.stderr), start=1):
            if not line.strip():
                continue
            try:
                row = read_row(line)
                name = id_of(row, number)
                found = scanned(heads, text_of(row, field), KINDS[origin])
            except ValueError as error:
                bad += 1
                click.echo(f"{file}: line {number}: {error}", err=True)
                continue
            out.write(msgspec.json.encode(as_row(name, found)) + b"\n")
    if bad:
        click.echo(f"{bad} bad row{'s' if bad > 1 else ''} skipped", err=True)
        sys.exit(1)


@safety.command()
@click.option(
    "--data",
    envvar=DATA,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"Folder of injection_train and poisoned_context; or {DATA}.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@click.pass_context
def report(context: click.Context, data: Path, *, as_json: bool) -> None:
    """Measure the shipped detectors and compare with the committed floors (safety/rules/gate.json); exits 1 below one.

    Sets that are in the training data are marked so: their figures say that nothing broke, not how good it is.
    """
    import msgspec  # noqa: PLC0415

    from conclave.safety.evaluate.report import FLOORS, lay_out, measure  # noqa: PLC0415
    from conclave.safety.scan import below  # noqa: PLC0415

    try:
        found = measure(_heads(context), data)
    except FileNotFoundError as error:
        raise click.ClickException(f"{error.filename} is not there; --data names its folder") from error
    floors = msgspec.json.decode(FLOORS.read_bytes(), type=dict[str, float])
    failures = below(found, floors)
    click.echo(msgspec.json.encode(found).decode() if as_json else lay_out(found, floors))
    for failure in failures:
        click.echo(failure, err=True)
    sys.exit(1 if failures else 0)


def _heads(context: click.Context) -> "Heads":
    from conclave.safety.detect.learned import Heads  # noqa: PLC0415

    load: LoadIds | None = context.meta.get(IDS)
    if load is None:
        raise click.UsageError("no tokenizer was handed in: use the command `conclave safety`")
    try:
        return Heads.load(load())
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(f"the detectors cannot be used: {error}") from error


@contextmanager
def _lines_of(file: str) -> Iterator[IO[bytes]]:
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
