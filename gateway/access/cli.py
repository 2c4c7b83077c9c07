"""`conclave keys create|list|rotate|revoke`: the only place where a key is ever shown, once, when it is made.

Works beside a running gateway: it notices within `server.keys_refresh_s`. Every change leaves a row in the record.
"""

import functools
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click
import msgspec

if TYPE_CHECKING:
    from conclave.gateway.access.key_table import KeyTable
    from conclave.gateway.access.keys import StoredKey
    from conclave.gateway.settings import ServerSettings

JOURNAL: Final = "keys_journal"  # in click's meta: an OpenJournal, from who knows the journal
Append = Callable[[Mapping[str, object]], object]
OpenJournal = Callable[["ServerSettings"], AbstractContextManager[Append]]

UNITS_S: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
NAME: Final = re.compile(r"[ -~]{1,128}")
TENANT: Final = re.compile(r"[!-~]{1,128}")
SCOPE: Final = re.compile(r"[a-z][a-z0-9_-]{0,47}\.(read|synth)")  # as the policy writes them
EXPERT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as the policy writes them


class Span(click.ParamType[int]):
    """A length of time such as `30d`, in seconds."""

    name = "30d"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", str(value))
        if found is None:
            self.fail(f"{value!r} is no length of time; write 12h, 30d or 8w", param, ctx)
        return int(found[1]) * UNITS_S[found[2]]


class Matching(click.ParamType[str]):
    """A text that matches a pattern as a whole."""

    name = "text"

    def __init__(self, pattern: re.Pattern[str], meaning: str) -> None:
        self._pattern = pattern
        self._meaning = meaning

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if self._pattern.fullmatch(str(value)) is None:
            self.fail(f"{value!r} is no {self._meaning}", param, ctx)
        return str(value)


class ExpertNames(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "a,b"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(","))
        wrong = [name for name in names if EXPERT.fullmatch(name) is None]
        if wrong:
            self.fail(f"{wrong[0]!r} is no name of an expert; write them as in the policy, with commas", param, ctx)
        return names


@dataclass(frozen=True, slots=True)
class Where:
    """What was said about where the keys are."""

    config: Path | None
    state_dir: Path | None


def located(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--config` and `--state-dir`, and hand it both as `where`."""

    @functools.wraps(command)
    def wrapped(config: Path | None, state_dir: Path | None, **options: object) -> None:
        command(where=Where(config, state_dir), **options)

    for option in (
        click.option("--state-dir", type=click.Path(path_type=Path), help="The state folder; else as configured."),
        click.option("--config", type=click.Path(path_type=Path), help="The YAML file, as for `conclave serve`."),
    ):
        wrapped = option(wrapped)
    return wrapped


@click.group()
def keys() -> None:
    """Make, list, rotate and revoke API keys."""


@keys.command()
@located
@click.option("--name", required=True, type=Matching(NAME, "printable name"), help="What it is for, or who has it.")
@click.option("--tenant", default="default", show_default=True, type=Matching(TENANT, "name of a tenant"))
@click.option("--experts", type=ExpertNames(), help="The only experts that it reaches; all if not given.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=Matching(SCOPE, "scope, such as code.read or code.synth"),
    help="A scope of the policy that it is bound to; may be given several times.",
)
@click.option("--expires", type=Span(), help="How long it is good for: 12h, 30d, 8w; for ever if not given.")
def create(  # noqa: PLR0913  an option each
    *,
    where: Where,
    name: str,
    tenant: str,
    experts: tuple[str, ...] | None,
    scopes: tuple[str, ...],
    expires: int | None,
) -> None:
    """Make a key and print it: the key alone on stdout, what to know about it on stderr."""
    from conclave.gateway.access.keys import read_pepper  # noqa: PLC0415  keeps `--help` fast

    with _table(where) as (table, server), _record(server) as record:
        first = not table.all()
        key, token = table.create(
            pepper=read_pepper(server.state_dir),
            tenant=tenant,
            name=name,
            experts=experts,
            scopes=scopes or None,
            expires_in_s=expires,
        )
        record(_row("created", key))
    click.echo(token)
    click.echo(f"Key {key.key_id} of tenant {tenant}, {_until(key)}. It is shown this once: keep it now.", err=True)
    if first:
        click.echo("It is the first key: from now on no call is served without one.", err=True)


@keys.command()
@located
@click.argument("key_id")
@click.option(
    "--overlap", type=Span(), default="24h", show_default=True, help="How long the old key stays good: 30m, 24h, 7d."
)
@click.option("--expires", type=Span(), help="How long the new key is good for; as the old one was if not given.")
def rotate(*, where: Where, key_id: str, overlap: int, expires: int | None) -> None:
    """Replace a key: a new secret for the same tenant, experts and name; the old one ends after the overlap."""
    from conclave.gateway.access.key_table import KeyGoneError  # noqa: PLC0415  SQLAlchemy, 0.6 s
    from conclave.gateway.access.keys import read_pepper  # noqa: PLC0415  keeps `--help` fast

    wanted = _id_of(key_id)
    with _table(where) as (table, server), _record(server) as record:
        try:
            rotated = table.rotate(
                wanted, pepper=read_pepper(server.state_dir), overlap_s=overlap, expires_in_s=expires
            )
        except KeyGoneError as error:
            raise click.ClickException(str(error)) from error
        if rotated is not None:
            record({**_row("rotated", rotated.old), "new_key_id": rotated.new.key_id})
    if rotated is None:
        _unknown(wanted)
    click.echo(rotated.token)
    click.echo(
        f"Key {rotated.new.key_id} takes the place of {wanted}, which {_until(rotated.old)}; itself it "
        f"{_until(rotated.new)}. It is shown this once: keep it now. A running gateway knows it within "
        f"{server.keys_refresh_s:g} s.",
        err=True,
    )


@keys.command("list")
@located
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_keys(*, where: Where, as_json: bool) -> None:
    """Show every key ever made; never the key itself."""
    with _table(where) as (table, _):
        rows = [_shown(key) for key in table.all()]
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row).decode())
        return
    if not rows:
        click.echo("No keys yet: conclave keys create --name NAME", err=True)
        return
    names = list(rows[0])
    cells = [names] + [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@keys.command()
@located
@click.argument("key_id")
def revoke(*, where: Where, key_id: str) -> None:
    """Make a key useless for good; KEY_ID is as `list` shows it."""
    wanted = _id_of(key_id)
    with _table(where) as (table, server), _record(server) as record:
        found = next((key for key in table.all() if key.key_id == wanted), None)
        if found is not None and table.revoke(wanted):
            record(_row("revoked", found))
    if found is None:
        _unknown(wanted)
    click.echo(f"Revoked {wanted}. A running gateway refuses it within {server.keys_refresh_s:g} s.", err=True)


@contextmanager
def _table(where: Where) -> "Iterator[tuple[KeyTable, ServerSettings]]":
    """The table and what is configured, opened and closed. A state that cannot be used ends the command in one line."""
    from conclave.gateway.access.key_table import KeyTable  # noqa: PLC0415  SQLAlchemy, 0.6 s: not for `--help`
    from conclave.gateway.policy.source import ConfigError  # noqa: PLC0415
    from conclave.gateway.settings import load_settings  # noqa: PLC0415
    from conclave.gateway.state.sql import Database, StateError  # noqa: PLC0415

    try:
        server = load_settings(where.config, state_dir=where.state_dir).server
        database = Database.of(server.database_url, server.state_dir).open()
    except (ConfigError, StateError) as error:
        raise click.ClickException(str(error)) from error
    try:
        yield KeyTable(database), server
    finally:
        database.close()


def _record(server: "ServerSettings") -> AbstractContextManager[Append]:
    """Where rows about keys go: opened before a key is touched, so that none changes without its row."""
    opens: OpenJournal | None = click.get_current_context().meta.get(JOURNAL)
    return opens(server) if opens is not None else nullcontext(lambda _: None)


def _row(action: str, key: "StoredKey") -> dict[str, object]:
    ends = None if key.expires_at_s is None else _moment(key.expires_at_s)
    return {"kind": "key", "action": action, "key_id": key.key_id, "tenant": key.tenant, "expires": ends}


def _id_of(key: str) -> str:
    """Someone may paste the whole key."""
    return key.removeprefix("cv_").partition("_")[0]


def _unknown(key_id: str) -> NoReturn:
    click.echo(f"No key has the id {key_id}; see `conclave keys list`.", err=True)
    sys.exit(1)


def _until(key: "StoredKey") -> str:
    return "does not expire" if key.expires_at_s is None else f"expires {_moment(key.expires_at_s)}"


def _shown(key: "StoredKey") -> dict[str, str | list[str] | None]:
    experts = key.scope.experts
    return {
        "id": key.key_id,
        "state": key.state(time.time()),
        "tenant": key.tenant,
        "name": key.name,
        "experts": None if experts is None else sorted(experts),
        "scopes": None if key.scope.named is None else list(key.scope.named),
        "created": _moment(key.created_at_s),
        "expires": None if key.expires_at_s is None else _moment(key.expires_at_s),
        "revoked": None if key.revoked_at_s is None else _moment(key.revoked_at_s),
    }


def _cell(value: str | list[str] | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else ",".join(value)


def _moment(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%MZ")
