"""`conclave safety propose`: rules that confirmed incidents suggest, for an admin to read. It puts nothing in force.

The rules go to stdout or a file, human words to stderr.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

ORIGINS = ("user", "tool", "file", "retrieved")


@click.command()
@click.option("--incidents", required=True, metavar="FILE", help="Texts of confirmed attacks, .jsonl or .jsonl.gz.")
@click.option(
    "--benign", required=True, metavar="FILE", help="Honest texts, .jsonl or .jsonl.gz: thousands, if you can."
)
@click.option("--field", default="text", show_default=True, help="The key that holds the text.")
@click.option("--origin", default="user", show_default=True, type=click.Choice(ORIGINS), help="Where they came from.")
@click.option(
    "--most-benign", default=0, show_default=True, type=click.IntRange(0), help="Honest texts that a rule may hit."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write; a file that is new.")
def propose(  # noqa: PLR0913  one for each option
    *, incidents: str, benign: str, field: str, origin: str, most_benign: int, out: Path | None
) -> None:
    """Find words that the incidents share and honest texts do not have, and write them as a pack of signatures.

    Half of the honest texts choose the rules, the other half counts what they would refuse wrongly. Exits 1 if no rule
    is worth proposing. The pack counts for nobody until a policy names it: read it first.
    """
    from conclave.safety.api import Origin  # noqa: PLC0415  the group is mounted by the main command
    from conclave.safety.ooda.propose import as_pack  # noqa: PLC0415
    from conclave.safety.ooda.propose import propose as proposed  # noqa: PLC0415

    bad, good = list(_texts(incidents, field)), list(_texts(benign, field))
    try:
        found = proposed(bad, good, origin=Origin(origin), most_benign=most_benign)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if not found:
        click.echo("no rule holds in three incidents or more and in few enough honest texts", err=True)
        sys.exit(1)
    for one in found:
        click.echo(
            f"{one.rule.name}: {one.incidents} of {one.of_incidents} incidents, "
            f"{one.benign} of {one.of_benign} honest texts that took no part in the choice",
            err=True,
        )
    if out is None:
        click.echo(as_pack(found), nl=False)
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(as_pack(found))
    except OSError as error:
        raise click.ClickException(f"{out}: {error.strerror}; name a file that is not there yet") from error


def _texts(file: str, field: str) -> Iterator[str]:
    """The texts of a file's rows; a row that cannot be read ends it, with its line: counts must be of all."""
    from conclave.safety.rows import lines_of, read_row, text_of  # noqa: PLC0415

    for number, line in lines_of(file):
        try:
            yield text_of(read_row(line), field)
        except ValueError as error:
            raise click.ClickException(f"{file}:{number}: {error}") from error
