"""`python -m lints PATH...`: print each finding as `file:line: words`; exit 1 if there was one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from lints.call_writes import only_the_pipeline_writes_to_a_call
from lints.data_plane import (
    no_finally_awaits,
    no_time_limit_around_a_yield,
    the_pipeline_is_the_only_async_generator,
)
from lints.lazy_imports import heavy_packages_are_imported_late
from lints.log_fields import no_user_text_in_logs
from lints.rule import Finding, Module, Rule
from lints.telemetry_names import telemetry_names_stand_at_one_place

RULES: tuple[Rule, ...] = (
    only_the_pipeline_writes_to_a_call,
    no_user_text_in_logs,
    no_finally_awaits,
    no_time_limit_around_a_yield,
    the_pipeline_is_the_only_async_generator,
    heavy_packages_are_imported_late,
    telemetry_names_stand_at_one_place,
)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(paths: tuple[Path, ...]) -> None:
    """Check files and folders, named from the repository's root, against the house's own rules."""
    findings = [finding for path in _files(paths) for finding in _check(path)]
    for finding in findings:
        click.echo(finding)
    sys.exit(1 if findings else 0)


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _check(path: Path) -> Iterator[Finding]:
    root = Path.cwd()
    place = path.resolve().relative_to(root).as_posix()
    try:
        module = Module.of(path.read_text(encoding="utf-8"), place=place, root=root)
    except SyntaxError as error:
        yield Finding(place, error.lineno or 1, f"not Python as {sys.version.split()[0]} reads it: {error.msg}")
        return
    for rule in RULES:
        yield from rule(module)


if __name__ == "__main__":
    main()
