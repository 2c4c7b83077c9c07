"""`conclave safety scan|report`: what the detectors say of a file's texts, and whether they are as good as promised.

The command line that mounts this group puts a loader of the tokenizer into the context (`ctx.meta[IDS]`): the
detectors read tokens, and whose they are is not for this room to know. Human words go to stderr.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from conclave.safety.context_cli import context
from conclave.safety.ooda.cli import propose
from conclave.safety.output.cli import scan_output
from conclave.safety.output.packages.cli import lists
from conclave.safety.signatures_cli import signatures
from conclave.safety.toolcalls.cli import authorise, pin

if TYPE_CHECKING:
    from conclave.safety.detect.learned import Heads

IDS: Final = "safety: load the tokenizer"
DATA: Final = "CONCLAVE_DATA"
ANSWERS: Final = "answers "  # how the floors of the rules for answers begin
ORIGINS: Final = ("user", "tool", "retrieved", "file")
LoadIds = Callable[[], Callable[[str], Sequence[int]]]


@click.group()
def safety() -> None:
    """Try the checks on files: texts, answers, tool calls, passages; hold the learned detectors to their metrics."""


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
    from conclave.safety.rows import judge_rows, text_of  # noqa: PLC0415  the main command's imports are everyone's
    from conclave.safety.scan import ORIGINS as KINDS  # noqa: PLC0415
    from conclave.safety.scan import as_row  # noqa: PLC0415
    from conclave.safety.scan import scan as scanned  # noqa: PLC0415

    heads = _heads(context)
    bad = judge_rows(file, lambda name, row: as_row(name, scanned(heads, text_of(row, field), KINDS[origin])))
    sys.exit(1 if bad else 0)


@safety.command()
@click.option(
    "--data",
    envvar=DATA,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"Folder of injection_train and poisoned_context; or {DATA}.",
)
@click.option(
    "--answers",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Instead: a folder of cases for the rules for answers, such as tests/safety/output/cases.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@click.pass_context
def report(context: click.Context, data: Path | None, answers: Path | None, *, as_json: bool) -> None:
    """Measure the shipped detectors, or the rules for answers, and compare with the committed floors.

    The floors stand in safety/rules/gate.json; the exit status is 1 below one.

    Sets that are in the training data are marked so: their figures say that nothing broke, not how good it is.
    """
    import msgspec  # noqa: PLC0415

    from conclave.safety.evaluate.report import FLOORS, lay_out, measure  # noqa: PLC0415
    from conclave.safety.scan import below  # noqa: PLC0415

    floors = msgspec.json.decode(FLOORS.read_bytes(), type=dict[str, float])
    floors = {name: floor for name, floor in floors.items() if name.startswith(ANSWERS) is (answers is not None)}
    try:
        if answers is not None:
            found = _answers(answers)
        elif data is not None:
            found = measure(_heads(context), data)
        else:
            raise click.UsageError(f"say --data, or {DATA}, for the detectors, or --answers for the rules for answers")
    except FileNotFoundError as error:
        raise click.ClickException(f"{error.filename} is not there; --data names its folder") from error
    failures = below(found, floors)
    click.echo(msgspec.json.encode(found).decode() if as_json else lay_out(found, floors))
    for failure in failures:
        click.echo(failure, err=True)
    sys.exit(1 if failures else 0)


def _answers(folder: Path) -> Mapping[str, float]:
    from conclave.safety.evaluate.answers import measure  # noqa: PLC0415
    from conclave.safety.output.checks import make  # noqa: PLC0415

    try:
        return measure([make("links"), make("shell")], folder)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _heads(context: click.Context) -> "Heads":
    from conclave.safety.detect.learned import Heads  # noqa: PLC0415

    load: LoadIds | None = context.meta.get(IDS)
    if load is None:
        raise click.UsageError("no tokenizer was handed in: use the command `conclave safety`")
    try:
        return Heads.load(load())
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(f"the detectors cannot be used: {error}") from error


safety.add_command(signatures)
safety.add_command(propose)
safety.add_command(scan_output)
safety.add_command(lists)
safety.add_command(context)
safety.add_command(authorise)
safety.add_command(pin)
