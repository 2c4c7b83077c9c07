"""`conclave policy list|show|diff|rollback`: the versions of the policy, and how to go back to one.

Works beside running gateways, which take a rollback within `server.policy_refresh_s`, and also where the file's policy
half is wrong. Exits 1 if something cannot be used, 2 for a version that is not there.
"""

import getpass
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click
import msgspec

from conclave.gateway.access.cli import Where, located

if TYPE_CHECKING:
    from conclave.gateway.policy.store import PolicyStore, StoredVersion
    from conclave.gateway.settings import ServerSettings

DIGEST_CHARS: Final = 12
SHOWN: Final = 20  # versions that `list` shows unless told otherwise
AUTHOR_CHARS: Final = 200  # as the table has room for
NUMBER: Final = click.IntRange(1, 2**31)


@click.group()
def policy() -> None:
    """List, compare and roll back the versions of the policy."""


@policy.command("list")
@located
@click.option("-n", "limit", type=click.IntRange(1, 100_000), default=SHOWN, show_default=True, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_versions(*, where: Where, limit: int, as_json: bool) -> None:
    """Show the newest versions, oldest first; the last one is in force."""
    with _store(where) as (store, _):
        versions = store.last(limit)
    if as_json:
        for version in versions:
            row = {name: getattr(version, name) for name in version.__slots__ if name != "document"}
            click.echo(msgspec.json.encode({**row, "in_force": version is versions[-1]}).decode())
        return
    if not versions:
        click.echo("No versions yet: the first one is made when a gateway starts.", err=True)
        return
    cells = [["number", "time", "origin", "digest", "author", "source", ""]]
    cells += [[*_facts(version), "in force" if version is versions[-1] else ""] for version in versions]
    widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@policy.command()
@located
@click.argument("number", type=NUMBER, required=False)
def show(*, where: Where, number: int | None) -> None:
    """Print version NUMBER as the policy half of a file; without it the one that is in force."""
    from conclave.gateway.policy.canonical import plain_of  # noqa: PLC0415  commands load what they need
    from conclave.gateway.policy.difference import as_yaml  # noqa: PLC0415

    with _store(where) as (store, _):
        version = _found(store, number)
        told = as_yaml(plain_of(version.document))
    click.echo(f"# {_about(version)}\n# SHA-256 {version.digest}")
    click.echo(told, nl=False)


@policy.command()
@located
@click.argument("before", type=NUMBER)
@click.argument("after", type=NUMBER)
def diff(*, where: Where, before: int, after: int) -> None:
    """Print what changed from version BEFORE to AFTER: `~` changed, `+` added, `-` removed."""
    from conclave.gateway.policy.canonical import plain_of  # noqa: PLC0415  commands load what they need
    from conclave.gateway.policy.difference import differences  # noqa: PLC0415

    with _store(where) as (store, _):
        old, new = _found(store, before), _found(store, after)
        found = differences(plain_of(old.document), plain_of(new.document))
    click.echo(f"{_about(old)}\n  -> {_about(new)}", err=True)
    for difference in found:
        click.echo(str(difference))
    if not found:
        click.echo("They are the same.", err=True)


@policy.command()
@located
@click.argument("number", type=NUMBER)
@click.option("--author", help="Who does this; else the name of the user who runs it.")
def rollback(*, where: Where, number: int, author: str | None) -> None:
    """Put the document of version NUMBER in force again, as a new version."""
    from conclave.gateway.policy.load import missing_documents, missing_keys  # noqa: PLC0415  commands load what they need
    from conclave.gateway.policy.source import dotted  # noqa: PLC0415

    with _store(where) as (store, server):
        version = _found(store, number)
        try:
            document = version.read()
        except ValueError as error:
            raise click.ClickException(f"version {number} {error}") from error
        newest = store.newest()
        made = store.add(document, origin="rollback", source=f"version {number}", author=_author(author))
    for problem in (*missing_keys(document, os.environ, dotted), *missing_documents(document, dotted)):
        click.echo(f"warning: {problem.key}: {problem.message}; a gateway that lacks it refuses this version", err=True)
    if newest is not None and made.number == newest.number:
        click.echo(f"Version {made.number} is in force and says the same as version {number}: nothing to do.", err=True)
        return
    click.echo(
        f"Version {made.number} says what version {number} said. "
        f"Running gateways take it within {server.policy_refresh_s:g} s.",
        err=True,
    )


@contextmanager
def _store(where: Where) -> "Iterator[tuple[PolicyStore, ServerSettings]]":
    """The versions and what is configured, opened and closed. What cannot be used ends the command in one line."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  0.6 s: not for `--help`

    from conclave.gateway.policy.canonical import UnreadableError  # noqa: PLC0415
    from conclave.gateway.policy.source import ConfigError  # noqa: PLC0415
    from conclave.gateway.policy.store import PolicyStore  # noqa: PLC0415
    from conclave.gateway.settings import load_server  # noqa: PLC0415
    from conclave.gateway.state.sql import Database, StateError  # noqa: PLC0415

    try:
        server = load_server(where.config, state_dir=where.state_dir)
        database = Database.of(server.database_url, server.state_dir).open()
    except (ConfigError, StateError) as error:
        raise click.ClickException(str(error)) from error
    try:
        yield PolicyStore(database), server
    except UnreadableError as error:
        raise click.ClickException(f"a version {error}") from error
    except SQLAlchemyError as error:
        raise click.ClickException(f"cannot use the state database {database}: {type(error).__name__}") from error
    finally:
        database.close()


def _found(store: "PolicyStore", number: int | None) -> "StoredVersion":
    version = store.newest() if number is None else store.get(number)
    if version is None:
        wanted = "any version yet" if number is None else f"a version {number}"
        raise click.UsageError(f"there is not {wanted}; see `conclave policy list`")
    return version


def _facts(version: "StoredVersion") -> Sequence[str]:
    author = version.author or "-"
    texts = (str(version.number), version.time, version.origin, version.digest[:DIGEST_CHARS], author, version.source)
    return [_printable(text) for text in texts]


def _about(version: "StoredVersion") -> str:
    by = f" by {version.author}" if version.author else ""
    return _printable(f"version {version.number}, {version.time}, {version.origin}: {version.source}{by}")


def _printable(text: str) -> str:
    """Without control characters: a file's name or an author must not steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _author(said: str | None) -> str:
    if said:
        return said[:AUTHOR_CHARS]
    try:
        return getpass.getuser()[:AUTHOR_CHARS]
    except (OSError, KeyError):  # a container's user without a name
        return f"user {os.getuid()}"
