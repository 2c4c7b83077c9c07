"""`conclave safety lists build`: makes the lists of package names that the check `packages` reads."""

from pathlib import Path
from typing import Final

import click

DATA: Final = "CONCLAVE_DATA"


@click.group()
def lists() -> None:
    """The lists of package names: which are malicious, which are much used."""


@lists.command()
@click.option(
    "--data",
    envvar=DATA,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"Folder of malicious_packages.jsonl.gz and package_names.jsonl.gz; or {DATA}.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Another folder than the shipped one.")
def build(data: Path, out: Path | None) -> None:
    """Build the lists anew, the same bytes from the same rows, and say how many names each has."""
    from conclave.safety.output.packages.build import build as made  # noqa: PLC0415  the main command's imports
    from conclave.safety.output.packages.index import SHIPPED  # noqa: PLC0415

    try:
        header = made(data, out or SHIPPED)
    except FileNotFoundError as error:
        raise click.ClickException(f"{error.filename} is not there; --data names its folder") from error
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for name, size in header.lists.items():
        click.echo(f"{name:24} {size:6}")
    click.echo(f"{out or SHIPPED}  sha256 {header.sha256}")
